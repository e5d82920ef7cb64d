"""JupyterLab in a headless Chromium opens notebooks, runs them and shows figures, pictures, trees and tables."""

from __future__ import annotations

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from webdriver import Browser

from tests.browser.conftest import ROOT

NOTEBOOKS = ["01_what_a_model_is", "05_layers_of_my_model"]
SETTINGS = {
    # No question about news in front of the page; every cell is in the page, not only those in sight.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
# A headless browser's page has no focus, and so JupyterLab no current widget until one is activated.
PANEL = """
    const app = window.jupyterapp;
    const panel = app && Array.from(app.shell.widgets('main')).find((w) => w.content?.model?.cells);
"""
READY = f"""{PANEL}
    if (!panel || panel.content.model.cells.length < 2) return false;
    app.shell.activateById(panel.id);
    return panel.sessionContext.kernelDisplayStatus === 'idle';
"""
RUN = f"""{PANEL}
    const done = arguments[0];
    app.commands.execute('notebook:run-all-cells').then(
        () => done(null), (error) => done(String(error)));
"""
CELLS = f"""{PANEL}
    return Array.from(panel.content.model.cells, (cell) => cell.toJSON());
"""

THEME = """
    const done = arguments[1];
    window.jupyterapp.commands.execute('apputils:change-theme', {theme: arguments[0]}).then(
        () => done(null), (error) => done(String(error)));
"""
SIGHT = """
    document.querySelectorAll(arguments[0])[arguments[1]].scrollIntoView({block: 'center'});
"""


def source_of(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))


def figures(cells: list[dict[str, Any]]) -> int:
    """How many figures of matplotlib the cells show."""
    return sum("image/png" in data for data in shown(cells))


def shown(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the cells show, each thing in its kinds."""
    return [o["data"] for c in cells for o in c.get("outputs", ()) if "data" in o]


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab with the notebooks, their outputs removed."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    for name in NOTEBOOKS:
        notebook = source_of(name)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
        (home / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    for name, setting in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(setting))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--expose-app-in-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={home / 'notebooks'}"]
    address = f"http://127.0.0.1:{port}"
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(120):
            assert process.poll() is None, (home / "log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module", params=NOTEBOOKS)
def cells(request, browser: Browser, server: str, screenshots: pathlib.Path) -> Any:
    """A notebook that has been opened and run: its name and its cells."""
    name = request.param
    browser.open(f"{server}/lab/tree/{name}.ipynb?reset")
    browser.wait(READY, seconds=90)
    assert not shown(browser.run(CELLS))  # nothing is left of an earlier run
    browser.picture(screenshots / f"{name}_opened.png")
    assert browser.run_later(RUN) is None
    return name, browser.run(CELLS)


@pytest.fixture
def look(browser: Browser, screenshots: pathlib.Path) -> Callable[..., None]:
    """Bring the i-th element of a selection into sight, and save a picture, in the light or dark theme."""

    def save(name: str, selector: str, i: int = 0, dark: bool = False) -> None:
        assert browser.run_later(THEME, "JupyterLab Dark" if dark else "JupyterLab Light") is None
        browser.wait(f"return document.body.dataset.jpThemeLight === '{str(not dark).lower()}'")
        browser.run(SIGHT, selector, i)
        time.sleep(0.3)  # until it is painted
        browser.picture(screenshots / f"{name}.png")

    return save


def test_jupyterlab_runs_a_notebook_without_errors(cells):
    name, now = cells
    code = [cell for cell in now if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert figures(now) == figures(source_of(name)["cells"]) > 0


def test_every_figure_is_in_the_page(cells, browser: Browser, look):
    """Each is loaded, and none is wider than its cell."""
    name, now = cells
    sizes = browser.run(
        "return Array.from(document.querySelectorAll('.jp-RenderedImage img'), (image) =>"
        " [image.naturalWidth, image.width, image.closest('.jp-OutputArea').clientWidth])"
    )
    assert len(sizes) == figures(now)
    assert all(0 < width <= room and natural > 0 for natural, width, room in sizes)
    for i in range(len(sizes)):
        look(f"{name}_figure_{i + 1}", ".jp-RenderedImage img", i)


def test_pictures_of_models_follow_the_theme(cells, browser: Browser, look):
    name, now = cells
    drawn = browser.run(
        "return Array.from(document.querySelectorAll('.jp-OutputArea svg.fnl-pic'), (svg) => {"
        " const box = svg.getBoundingClientRect();"
        " return [box.width, box.height, svg.querySelectorAll('text, circle').length,"
        " svg.closest('.jp-OutputArea').clientWidth]; })"
    )
    assert len(drawn) == sum("image/svg+xml" in data for data in shown(now)) > 0
    assert all(0 < w <= room and h > 50 and marks > 4 for w, h, marks, room in drawn)
    paper = "return getComputedStyle(document.querySelector('svg.fnl-pic > rect')).fill"
    for i in range(len(drawn)):
        look(f"{name}_picture_{i + 1}", "svg.fnl-pic", i)
    light = browser.run(paper)
    for i in range(len(drawn)):
        look(f"{name}_picture_{i + 1}_dark", "svg.fnl-pic", i, dark=True)
    assert light == "rgb(255, 255, 255)" != browser.run(paper)


def test_a_tree_of_modules_opens_on_a_click(cells, browser: Browser, look):
    """A leaf is closed at first; open, it shows its parameters with their histograms."""
    name, _ = cells
    seen = """
        const weight = [...document.querySelectorAll('.fnl-view .fnl-cell')].find(
            (cell) => cell.querySelector('.fnl-bars'));
        return weight.checkVisibility();
    """
    leaf = """
        const bars = document.querySelector('.fnl-view .fnl-cell .fnl-bars');
        const closed = [];
        for (let e = bars.closest('details'); e; e = e.parentElement.closest('details'))
            if (!e.open) closed.unshift(e);
        const summary = closed[0].querySelector('summary');
        summary.scrollIntoView({block: 'center'});
        const box = summary.getBoundingClientRect();
        return [box.x + 20, box.y + box.height / 2];
    """
    look(f"{name}_tree", ".fnl-view")
    for _ in range(3):
        if browser.run(seen):
            break
        browser.click(*browser.run(leaf))
    else:
        raise AssertionError("the tree does not open")
    look(f"{name}_tree_open", ".fnl-view")
    look(f"{name}_tree_open_dark", ".fnl-view", dark=True)
    row = "return document.querySelector('.fnl-view .fnl-cell').innerText"
    assert re.search(r"weight\s+\d+×\d+\s+float32", browser.run(row))
    wide = browser.run(
        "const view = document.querySelector('.fnl-view'); return view.scrollWidth - view.clientWidth"
    )
    assert wide <= 0


def test_a_summary_is_a_table(cells, browser: Browser, look):
    name, now = cells
    tables = sum('class="fn-summary"' in "".join(d.get("text/html", "")) for d in shown(now))
    assert tables == (name == NOTEBOOKS[1])
    if not tables:
        return
    rows = browser.run(
        "return Array.from(document.querySelectorAll('.fn-summary tbody tr'), (row) =>"
        " Array.from(row.cells, (cell) => cell.innerText))"
    )
    assert [row[0].split()[-1] for row in rows] == [
        "SimpleLinearModel",
        "(linear1)",
        "(relu)",
        "(linear2)",
    ]
    sides = browser.run(
        "return Array.from(document.querySelector('.fn-summary tbody tr').cells, (cell) =>"
        " getComputedStyle(cell).textAlign)"
    )
    assert sides[0] == "left" and sides[3] == "right", "the tree leans on its own side"
    heights = browser.run(
        "return Array.from(document.querySelectorAll('.fn-summary dt'), (e) => e.offsetHeight)"
    )
    assert max(heights) == min(heights), "a name is broken into two lines"
    look(f"{name}_summary", ".fn-summary")
    look(f"{name}_summary_dark", ".fn-summary", dark=True)


def test_the_console_has_no_error_of_ours(cells, browser: Browser):
    name, _ = cells
    said = [message for message in browser.errors() if "fnl" in message or "svg" in message.lower()]
    assert not said, name
