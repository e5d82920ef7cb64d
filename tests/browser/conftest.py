"""A headless Chromium for the tests that look at pages: ``make browser`` runs them.

They are not among the tests of ``make test``, since they take a minute or more. Each skips, and says
what is missing, where Chromium, its driver or Selenium is not installed.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
SWITCHES = [
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def screenshots() -> pathlib.Path:
    """Where the pictures go, to be looked at."""
    folder = ROOT / "artifacts" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """Selenium's driver of a headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium or its driver, chromedriver, is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for switch in (*SWITCHES, f"--user-data-dir={profile}", "--window-size=1280,1000"):
            options.add_argument(switch)
        service = webdriver.ChromeService(driver, log_output=os.devnull)
        running = webdriver.Chrome(options, service)
        running.set_script_timeout(300)
        yield running
        running.quit()
