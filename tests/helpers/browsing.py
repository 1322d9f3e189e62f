"""A real browser with its network closed: what a page asks of another host is refused, and is a fault of the page."""

import contextlib
import functools
import http
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
# Handling every request in Python instead would close the network, too, but for half as much work again.
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/favicon.ico":  # the browser asks for it by itself, whatever the page
            self.send_response(http.HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on this machine."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def browsing(chromium: str) -> Iterator:
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def closed_context(browser, own: tuple[str, ...], faults: list[str], width: int = 1000, **options):
    """A context whose pages reach this machine only; to ask for an address that begins as none of `own` is a fault."""
    # without motion unless a test asks for it: axe measures contrast while a page fades in
    context = browser.new_context(viewport={"width": width, "height": 900}, **{"reduced_motion": "reduce"} | options)

    def look(request):
        if not request.url.startswith((*own, "data:", "blob:")):
            faults.append(f"asked for {request.url}")

    context.on("request", look)
    context.on("response", lambda r: faults.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    context.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    context.on("weberror", lambda e: faults.append(str(e.error)))
    return context


def violations(page, *impacts: str, only: str | None = None) -> list[tuple]:
    """What axe-core finds on a page, of these impacts, by all rules or by one."""
    from axe_playwright_python.sync_playwright import Axe

    # preload: axe would fetch style sheets that others import, from the wrong folder
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": [only]} if only else {})
    found = [v for v in Axe().run(page, options=options).response["violations"] if v["impact"] in impacts]
    return [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found]
