"""Debian's Firefox and WebKit, each by the protocol that it speaks itself: pages opened, scripts run, faults noted."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Page:
    """One tab, with its `faults`: the errors of the page's console."""

    def goto(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        raise NotImplementedError

    def run(self, script: str) -> Any:
        """What a script returns: a number, text, or None."""
        raise NotImplementedError

    def wait(self, script: str, seconds: float = 20) -> None:
        """Until a script returns true."""
        _until(lambda: self.run(script) is True, lambda: script, seconds)


class FirefoxPage(Page):
    """Over WebDriver BiDi."""

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
        self.send("browsingContext.navigate", {"context": self.context, "url": url, "wait": "complete"})

    def run(self, script: str) -> Any:
        target = {"context": self.context}
        params = {"expression": f"(() => {{ {script} }})()", "target": target, "awaitPromise": True}
        answer = self.send("script.evaluate", params)
        assert answer["type"] == "success", answer
        return answer["result"].get("value")


COLLECT = (
    "window.faults = []; const note = e => window.faults.push(String(e.message || e.reason));"
    "for (const kind of ['error', 'unhandledrejection']) addEventListener(kind, note);"
    "console.error = (...words) => window.faults.push(words.join(' '))"
)


class WebKitPage(Page):
    """Over WebDriver, which knows no console: `faults` are those after a page was loaded."""

    def __init__(self, address: str, browser: Path):
        options = {"binary": str(browser), "args": ["--automation"]}
        wanted = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        self.left: list[str] = []  # faults of pages that were left
        self.session = f"{address}/session"
        self.session += "/" + self.send("", wanted)["sessionId"]

    def send(self, path: str, body: dict | None = None) -> Any:
        """A command's result; without a body, what ends the session."""
        data, method = (None, "DELETE") if body is None else (json.dumps(body).encode(), "POST")
        request = urllib.request.Request(self.session + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    @property
    def faults(self) -> list[str]:
        return [*self.left, *self.run("return window.faults || []")]

    def goto(self, url: str) -> None:
        self.left = self.faults
        self.send("/url", {"url": url})
        self.run(COLLECT)

    def run(self, script: str) -> Any:
        return self.send("/execute/sync", {"script": script, "args": []})


@contextlib.contextmanager
def firefox(folder: Path) -> Iterator[Page]:
    """A page of Firefox with a profile of its own below `folder`; skips where there is none."""
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("Firefox is not installed")
    (folder / "profile").mkdir()
    command = [path, "--headless", "--no-remote", "--profile", str(folder / "profile"), "--remote-debugging-port", "0"]
    with _started(command, folder) as log:
        address = _until(lambda: re.search(r"listening on (ws://\S+)", log.read_text()), log.read_text)[1]
        page = FirefoxPage(address)
        yield page
        page.socket.close()


@contextlib.contextmanager
def webkit(folder: Path) -> Iterator[Page]:
    """A page of WebKitGTK's small browser on a screen of its own; skips where packages of Debian's are missing."""
    browser = next(iter(sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))), None)
    if browser is None or not (shutil.which("WebKitWebDriver") and shutil.which("Xvfb")):
        pytest.skip("webkit2gtk-driver and xvfb are not both installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    screen = ["Xvfb", "-displayfd", "1", "-screen", "0", "1300x900x24"]
    with _started(screen, folder) as shown:
        display = _until(lambda: re.search(r"^\d+$", shown.read_text(), re.M), shown.read_text)[0]
        with _started(["WebKitWebDriver", f"--port={port}"], folder, DISPLAY=f":{display}") as log:
            _until(lambda: _answers(port), log.read_text)
            page = WebKitPage(f"http://127.0.0.1:{port}", browser)
            yield page
            page.send("")


@contextlib.contextmanager
def _started(command: list[str], folder: Path, **environment: str) -> Iterator[Path]:
    """A program that runs meanwhile; the file that holds what it says."""
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("w") as out:
        home = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        process = subprocess.Popen(command, stdout=out, stderr=out, env=home | environment)
    try:
        yield log
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _until(found: Callable[[], Any], why: Callable[[], str], seconds: float = 60) -> Any:
    """What `found` returns as soon as it is true; `why` says what was waited for."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)
    return result


ENGINES = pytest.mark.parametrize("engine", [firefox, webkit], ids=["firefox", "webkit"])
