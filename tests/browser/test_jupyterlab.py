"""JupyterLab in a headless Chromium opens notebooks, runs them and shows their figures."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

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


def source_of(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))


def pictures(cells: list[dict[str, Any]]) -> int:
    """How many figures the cells show."""
    return sum("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", ()))


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


def wait(driver: Any, script: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not driver.execute_script(script):
        assert time.monotonic() < end, f"not within {seconds} s: {script}"
        time.sleep(0.3)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_jupyterlab_runs_a_notebook(chromium, server, screenshots: pathlib.Path, name: str):
    chromium.get(f"{server}/lab/tree/{name}.ipynb?reset")
    wait(chromium, READY, 90)
    assert not pictures(chromium.execute_script(CELLS))  # none is left of an earlier run
    chromium.save_screenshot(str(screenshots / f"{name}_opened.png"))

    assert chromium.execute_async_script(RUN) is None
    cells = chromium.execute_script(CELLS)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert pictures(cells) == pictures(source_of(name)["cells"]) > 0

    # What the model has is also in the page: every figure is loaded, and none is wider than its cell.
    sizes = chromium.execute_script(
        "return Array.from(document.querySelectorAll('.jp-RenderedImage img'), (image) =>"
        " [image.naturalWidth, image.width, image.closest('.jp-OutputArea').clientWidth])"
    )
    assert len(sizes) == pictures(cells)
    assert all(0 < shown <= room and natural > 0 for natural, shown, room in sizes)
    for i in range(len(sizes)):
        chromium.execute_script(
            "document.querySelectorAll('.jp-RenderedImage img')[arguments[0]]"
            ".scrollIntoView({block: 'center'})",
            i,
        )
        time.sleep(0.3)
        chromium.save_screenshot(str(screenshots / f"{name}_{i + 1}.png"))
