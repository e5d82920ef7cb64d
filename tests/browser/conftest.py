"""A headless Chromium for the tests that look at pages: ``make browser`` runs them.

They are not among the tests of ``make test``, since they take a minute or more. Each skips, and says
what is missing, where Chromium or its driver is not installed.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
import webdriver  # noqa: E402


@pytest.fixture(scope="package")
def screenshots() -> pathlib.Path:
    """Where the pictures go, to be looked at."""
    folder = ROOT / "artifacts" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="package")
def browser() -> Iterator[webdriver.Browser]:
    if words := webdriver.missing():
        pytest.skip(words)
    with webdriver.chromium() as opened:
        opened.size(1280, 1000)
        yield opened
