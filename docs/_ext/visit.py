"""Visit every page of the built site in headless Chromium: no console error, nothing wider than the screen.

    python docs/_ext/visit.py build/docs/html [PICTURES]

Needs Chromium and its driver (Debian: ``chromium``, ``chromium-driver``), and no Python package: the driver speaks
HTTP. With a folder for PICTURES it leaves screenshots of some pages there, in light and dark, wide and as on a phone.
The pages are served on this machine's own address, as a reader's browser gets them, without any network.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

SIZES = {"wide": (1280, 900), "phone": (390, 844)}
PICTURED = ("index", "idea", "guides/training", "api/norm", "torch-table")
OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
]
# What stands out of the page, or of the theme's box around all of the text, which would scroll by itself.
TOO_WIDE = """
const boxes = [document.documentElement, ...document.querySelectorAll(".content")];
return Math.max(...boxes.map(box => box.scrollWidth - box.clientWidth));
"""
THEME = "document.body.dataset.theme = arguments[0]; localStorage.setItem('theme', arguments[0])"
SEARCH = "return [...document.querySelectorAll('#search-results li a')].map(a => [a.textContent, a.href])"
#: What a reader may type into the search box, and a page that then must be among the results.
QUERIES = {"LayerNorm": "api/norm.html", "frozen parameters": "guides/freezing.html"}
ENTER = "\ue007"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Browser:
    """The few commands of WebDriver that a visit needs."""

    def __init__(self, port: int, profile: str) -> None:
        self.base = f"http://127.0.0.1:{port}/session"
        chrome = {"args": [*OPTIONS, f"--user-data-dir={profile}"]}
        if binary := shutil.which("chromium") or shutil.which("google-chrome"):
            chrome["binary"] = binary  # type: ignore[assignment]
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/{answer['sessionId']}"

    def send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, **options: Any) -> Any:
        return self.send("POST", "/goog/cdp/execute", {"cmd": command, "params": options})

    def size(self, width: int, height: int) -> None:
        """The size of the page itself: a window has a smallest width."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def run(self, script: str, *arguments: Any) -> Any:
        return self.send("POST", "/execute/sync", {"script": script, "args": arguments})

    def errors(self) -> list[str]:
        """What the console has said since the last time, but for remarks."""
        entries = self.send("POST", "/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    driver = shutil.which("chromedriver")
    if driver is None:
        sys.exit("chromedriver is not here: install Chromium and its driver")
    with tempfile.TemporaryDirectory() as profile:
        server = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "successfully on port" in line:
                    break
            found = Browser(int(line.rstrip(".\n ").rpartition(" ")[2]), profile)
            yield found
            found.send("DELETE", "")
        finally:
            server.terminate()
            server.wait()


def search(view: Browser, address: str) -> list[str]:
    """What is wrong with the search: words typed on the first page, and where the results lead."""
    found = []
    for query, wanted in QUERIES.items():
        view.send("POST", "/url", {"url": f"{address}/index.html"})
        box = view.send("POST", "/element", {"using": "css selector", "value": ".sidebar-search"})
        view.send("POST", f"/element/{next(iter(box.values()))}/value", {"text": query + ENTER})
        results: list[tuple[str, str]] = []
        for _ in range(100):
            time.sleep(0.1)
            results = view.run(SEARCH)
            if any(f"/{wanted}" in link for _, link in results):
                break
        else:
            titles = [title for title, _ in results]
            found.append(f"search for {query!r}: not {wanted} but {titles}")
        found += [f"search for {query!r}: {message}" for message in view.errors()]
    return found


def visit(site: pathlib.Path, pictures: pathlib.Path | None) -> tuple[int, list[str]]:
    """How many pages were visited, and a line for everything that is wrong."""
    pages = [str(p.relative_to(site)) for p in sorted(site.rglob("*.html"))]
    pages = [p for p in pages if not p.startswith("_static")]
    found: list[str] = []
    with served(site) as address, browser() as view:
        for name, size in SIZES.items():
            view.size(*size)
            for page in pages:
                view.send("POST", "/url", {"url": f"{address}/{page}"})
                found += [f"{page} ({name}): {message}" for message in view.errors()]
                if (wide := view.run(TOO_WIDE)) > 0:
                    found.append(f"{page} ({name}): {wide} pixels too wide")
                if pictures and page.removesuffix(".html") in PICTURED:
                    for theme in ("light", "dark"):
                        view.run(THEME, theme)
                        picture = base64.b64decode(view.send("GET", "/screenshot"))
                        target = pictures / f"{page[:-5].replace('/', '-')}-{name}-{theme}.png"
                        target.write_bytes(picture)
        view.size(*SIZES["wide"])
        found += search(view, address)
    return len(pages), found


def main(arguments: list[str]) -> int:
    os.environ.pop("DISPLAY", None)
    pictures = pathlib.Path(arguments[1]) if len(arguments) > 1 else None
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    count, found = visit(pathlib.Path(arguments[0]).resolve(), pictures)
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{count} pages visited twice, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
