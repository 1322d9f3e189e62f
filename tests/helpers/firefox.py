"""Debian's Firefox over WebDriver BiDi, which it speaks by itself: pages opened, scripts run, faults noted."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Page:
    """One tab. `faults` are the errors of the page's console."""

    def __init__(self, address: str):
        websocket = pytest.importorskip("websocket")
        self.socket = websocket.create_connection(f"{address}/session", timeout=60, suppress_origin=True)
        self.number, self.faults = 0, []
        self.send("session.new", {"capabilities": {}})
        self.send("session.subscribe", {"events": ["log.entryAdded"]})
        self.context = self.send("browsingContext.getTree", {})["contexts"][0]["context"]

    def send(self, method: str, params: dict) -> dict:
        """A command's result; events that come before it are noted."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] == "error":
                self.faults.append(answer["params"]["text"])
            if answer.get("id") == self.number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def goto(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        self.send("browsingContext.navigate", {"context": self.context, "url": url, "wait": "complete"})

    def run(self, script: str) -> Any:
        """What a script returns: a number, text, or None."""
        target = {"context": self.context}
        params = {"expression": f"(() => {{ {script} }})()", "target": target, "awaitPromise": True}
        answer = self.send("script.evaluate", params)
        assert answer["type"] == "success", answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 20) -> None:
        """Until a script returns true."""
        deadline = time.monotonic() + seconds
        while self.run(script) is not True:
            assert time.monotonic() < deadline, script
            time.sleep(0.1)


@contextlib.contextmanager
def firefox(folder: Path) -> Iterator[Page]:
    """A page of Firefox with a profile of its own below `folder`; skips where there is none."""
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("Firefox is not installed")
    command = [path, "--headless", "--no-remote", "--profile", str(folder / "profile"), "--remote-debugging-port", "0"]
    (folder / "profile").mkdir()
    log = folder / "firefox.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"})
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"listening on (ws://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        page = Page(found[1])
        yield page
        page.socket.close()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
