"""The notebooks run from top to bottom, and show what is stored in them."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import pathlib
import re
import warnings
from typing import Any

import jax
import matplotlib
import matplotlib.pyplot
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of IPython's own imports
    from IPython.core.formatters import DisplayFormatter

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FIGURE = {"image/png", "image/svg+xml"}


def cells(path: pathlib.Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def without_figures(text: str) -> str:
    """Numbers with a point, and the spaces around them, which differ a little from one processor to another."""
    text = re.sub(r"-?\d+\.\d*(e[-+]?\d+)?|-?\d+e[-+]?\d+", "#", text)
    return re.sub(r"\s+", " ", text)


def seen(kind: str, value: Any) -> str:
    """What is compared of an output: of a view the words, which is what a reader reads."""
    text = "".join(value)
    if kind == "text/html":
        text = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", " ", text, flags=re.DOTALL)
    return without_figures(text)


def run(source: str, count: int, namespace: dict[str, Any]) -> dict[str, str]:
    """Run a cell as Jupyter does; what it shows of its last line, if that is an expression, by kind."""
    tree = ast.parse(source)
    last = None
    if isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    name = f"In[{count}]"
    exec(compile(tree, name, "exec"), namespace)
    value = None if last is None else eval(compile(last, name, "eval"), namespace)
    data = {} if value is None else DisplayFormatter().format(value)[0]
    if "image/svg+xml" in data:
        data.pop("text/html", None)  # refresh.py stores the picture once
    return data


def outputs(cell: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [output for output in cell["outputs"] if output["output_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_shows_what_is_stored(path):
    matplotlib.use("Agg")
    matplotlib.pyplot.close("all")  # what other tests have left open
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for cell in cells(path, "code"):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                shown = run("".join(cell["source"]), cell["execution_count"], namespace)
            stored = "".join("".join(o["text"]) for o in outputs(cell, "stream"))
            where = f"{path.name}, {cell['id']}: run `python -m notebooks.refresh {path.name[:2]}`"
            assert without_figures(printed.getvalue()) == without_figures(stored), where
            results = [o["data"] for o in outputs(cell, "execute_result")]
            assert len(results) == bool(shown), where
            for data in results:
                assert data.keys() == shown.keys(), where
                for kind, value in data.items():
                    assert seen(kind, value) == seen(kind, shown[kind]), f"{where} ({kind})"
            figures = [o for o in outputs(cell, "display_data") if FIGURE & o["data"].keys()]
            assert len(figures) == len(matplotlib.pyplot.get_fignums()), where
            matplotlib.pyplot.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_stored_in_one_form(path):
    notebook = json.loads(path.read_text("utf-8"))
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert [cell["id"] for cell in notebook["cells"]] == [
        f"cell-{i:02d}" for i in range(len(notebook["cells"]))
    ]
    assert not any(cell["metadata"] for cell in notebook["cells"])
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "version" not in notebook["metadata"]["language_info"]
    for cell in code:
        for output in cell["outputs"]:
            assert output.get("name") != "stderr"
            assert output["output_type"] != "error"
            text = "".join(output.get("text", "")) + "".join(
                "".join(value) for key, value in output.get("data", {}).items() if "text/" in key
            )
            assert not re.search(r"/home/|site-packages|ipykernel_\d|0x[0-9a-f]{8}", text)
    assert path.stat().st_size < 600_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_links_of_a_notebook_lead_somewhere(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    links = re.findall(r"\]\(([^)#]+)", text)
    for link in links:
        assert link.startswith("https://") or (FOLDER / link).exists(), link
    following = NOTEBOOKS.index(path) + 1
    if following < len(NOTEBOOKS):
        assert NOTEBOOKS[following].name in links


def test_every_document_has_its_notebook():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i:02d}" for i in range(1, 10)]
