"""The notebooks' code runs from top to bottom, and prints what is stored in them."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import re

import jax
import matplotlib
import matplotlib.pyplot
import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"


def without_figures(text: str) -> str:
    """Accuracies differ a little from one processor to another."""
    return re.sub(r"-?\d+\.\d+", "#", text)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_runs(path):
    matplotlib.use("Agg")
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells
    namespace: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for cell in cells:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec("".join(cell["source"]), namespace)
            stored = "".join(
                "".join(o["text"]) for o in cell["outputs"] if o["output_type"] == "stream"
            )
            assert without_figures(printed.getvalue()) == without_figures(stored)
    matplotlib.pyplot.close("all")
