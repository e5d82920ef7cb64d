"""A headless Chromium, driven over the WebDriver protocol with the standard library alone.

Two programs look at pages: ``visit.py``, beside this file, at the built site, and the tests in ``tests/browser`` at
notebooks in JupyterLab. Both need the few commands below and nothing else of a WebDriver library. It stands here
because ``visit.py`` runs as a program, whose folder is where Python looks first; the tests put this folder on the
path, as those of the site do. Chromium and its driver are programs of the system (Debian: ``chromium``,
``chromium-driver``).
"""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
]
PATIENCE = 300  # seconds that a script of a page may take


def programs() -> tuple[str | None, str | None]:
    """Where Chromium and its driver are."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")


def missing() -> str | None:
    """What has to be installed, in words; None if all is there."""
    binary, driver = programs()
    words = ["Chromium"] * (not binary) + ["its driver, chromedriver,"] * (not driver)
    return f"{' and '.join(words)} cannot be found: install it" if words else None


class Browser:
    """One window of a browser; :func:`chromium` opens it.

    Args:
        address: of the driver.
        binary: the browser.
        profile: a folder for what it keeps.
    """

    def __init__(self, address: str, binary: str | None, profile: str) -> None:
        self.base = f"{address}/session"
        chrome = {"args": [*OPTIONS, f"--user-data-dir={profile}"], "binary": binary}
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/{answer['sessionId']}"
        self.send("POST", "/timeouts", {"script": 1000 * PATIENCE})

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """A command of the protocol, and the value of its answer."""
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE + 30) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def devtools(self, command: str, **options: Any) -> Any:
        """A command of Chromium's own."""
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

    def open(self, address: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self.send("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script ``return``s; it finds its arguments in ``arguments``."""
        return self.send("POST", "/execute/sync", {"script": script, "args": arguments})

    def run_later(self, script: str, *arguments: Any) -> Any:
        """What a script gives to the function that is the last of its ``arguments``."""
        return self.send("POST", "/execute/async", {"script": script, "args": arguments})

    def wait(self, script: str, *arguments: Any, seconds: float = 10.0) -> Any:
        """What a script returns as soon as that is true; an error if it is not in time."""
        end = time.monotonic() + seconds
        while not (found := self.run(script, *arguments)):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s: {script}")
            time.sleep(0.1)
        return found

    def click(self, x: float, y: float) -> None:
        """Press the mouse at a place of what is in sight, and let it go."""
        at = {"x": round(x), "y": round(y), "button": "left", "clickCount": 1}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.devtools("Input.dispatchMouseEvent", type=kind, **at)

    def errors(self) -> list[str]:
        """What the console has said since the last time, but for remarks."""
        entries = self.send("POST", "/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]

    def picture(self, path: pathlib.Path) -> None:
        """Save what is in sight as a PNG file."""
        path.write_bytes(base64.b64decode(self.send("GET", "/screenshot")))


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A new browser with a profile of its own, which is closed and forgotten at the end."""
    if words := missing():
        raise FileNotFoundError(words)
    binary, driver = programs()
    assert driver is not None
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            said = next((line for line in server.stdout if "successfully on port" in line), None)
            if said is None:
                raise RuntimeError("chromedriver did not start")
            port = int(said.rstrip(".\n ").rpartition(" ")[2])
            browser = Browser(f"http://127.0.0.1:{port}", binary, profile)
            try:
                yield browser
            finally:
                browser.send("DELETE", "")
        finally:
            server.terminate()
