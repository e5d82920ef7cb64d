"""The code of the documentation runs and prints what it says; the reference has every public name."""

from __future__ import annotations

import importlib
import inspect
import json
import pathlib
import re
import sys
from typing import Any

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import api_names  # noqa: E402
import links  # noqa: E402
import torch_names  # noqa: E402

PAGES = sorted(p for p in DOCS.rglob("*.md") if "```python\n" in p.read_text())
FENCE = re.compile(r"^```(python|text|\{view\} \w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Prints:
    """Stands for ``print``. What follows on the line, ``print(x)  # 3``, must name what is printed."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.lines, self.checked = path, path.read_text().splitlines(), 0
        self.printed: list[str] = []

    def __call__(self, *values: Any, sep: str = " ") -> None:
        text = sep.join(map(str, values))
        self.printed.append(text)
        line = sys._getframe(1).f_lineno
        _, _, said = self.lines[line - 1].partition("  # ")
        if said:
            whole = rf"(?<![\w.-]){re.escape(text)}(?![\w-]|\.\d)"
            assert re.search(whole, said), f"{self.path.name}:{line} prints {text!r}"
            self.checked += 1

    def shown(self, line: int, said: str) -> None:
        """A block of text shows what the block of code before it prints."""
        assert "\n".join(self.printed).strip() == said.strip(), (
            f"{self.path.name}:{line} is not what is printed:\n" + "\n".join(self.printed)
        )
        self.checked += 1


def run(path: pathlib.Path) -> Prints:
    """All ```python blocks of a page in one namespace, at the lines where they stand."""
    text, prints = path.read_text(), Prints(path)
    names: dict[str, Any] = {"__name__": "page", "print": prints}
    for block in FENCE.finditer(text):
        above = text[: block.start(2)].count("\n")
        if block[1] == "text":
            prints.shown(above, block[2])
            continue
        if block[1].startswith("{view}"):
            assert names[block[1].split()[1]]._repr_html_()
            continue
        prints.printed.clear()
        exec(compile("\n" * above + block[2], str(path), "exec"), names)
    return prints


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_the_blocks_of_a_page_run_in_order(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what they save
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run(path)


def test_every_block_of_code_is_one_that_runs():
    """A fence that is written in another way would be shown and never run."""
    for path in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        fences = re.findall(
            r"^ *(?:```+|~~~+|:::+) *\{?(?:code\S* +)?(py\S*|ipy\S*)", path.read_text(), re.M
        )
        count = len(re.findall(r"^```python\n", path.read_text(), re.MULTILINE))
        assert len(fences) == count, f"{path.name}: {fences}"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```python\nprint(1 + 1)  # 2\n```\n\n```python\nprint(1 + 1)  # 3\n```\n", "page.md:6 prints '2'"),
        ("```python\nprint(2)  # 12\n```\n", "prints '2'"),
        ("```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n3\n```\n", "page.md:6 is not what"),
    ],
)  # fmt: skip
def test_a_page_that_says_something_else_is_noticed(tmp_path, page, message):
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(AssertionError, match=message):
        run(path)


def test_a_page_that_fails_is_noticed(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("```python\nprint(1 + 1)  # 2\n```\n\n```text\n2\n```\n")
    assert run(path).checked == 2
    path.write_text("```python\nx = 1\n```\n\n```python\nx.shape\n```\n")
    with pytest.raises(AttributeError):
        run(path)


# --- the reference ----------------------------------------------------------------------------

LISTED = {
    entry
    for page in sorted((DOCS / "api").glob("*.md"))
    for entry in api_names.listed(page.read_text())
}


def public_names() -> list[tuple[str, str]]:
    """Every public name that is no module, by the room that lists it."""
    from tests.test_doctests import ROOMS

    return [
        (room, name)
        for room in ROOMS
        for name in getattr(importlib.import_module(room), "__all__", ())
        if not inspect.ismodule(getattr(importlib.import_module(room), name))
    ]


def test_every_public_name_has_its_place_in_the_reference():
    def value(module: str, name: str) -> Any:
        return getattr(importlib.import_module(module), name)

    shown = {id(value(*entry)) for entry in LISTED}
    missing = [
        f"{module}.{name}"
        for module, name in public_names()
        if id(value(module, name)) not in shown
        # Shown under nn.functional, with which api/functional.md says what is different.
        and not (module == "funcnets.functional" and ("funcnets.nn.functional", name) in LISTED)
        # Listed by {pairs}.
        and not (module == "funcnets.layers" and name[0].isupper())
    ]
    assert not missing, "put them into an {api} block of a page in docs/api"
    assert "```{pairs}\n" in (DOCS / "api" / "layers.md").read_text()


def test_no_name_stands_in_two_places():
    values = [getattr(importlib.import_module(module), name) for module, name in LISTED]
    twice = [v for v in values if callable(v) and sum(v is other for other in values) > 1]
    assert not twice


def test_every_page_of_the_reference_is_reached():
    pages = {p.stem for p in (DOCS / "api").glob("*.md")} - {"index"}
    assert pages <= set((DOCS / "api" / "index.md").read_text().split())


# --- the table of PyTorch's names -------------------------------------------------------------


def test_the_list_of_torchs_names_is_torchs():
    """After an update of PyTorch: ``python docs/_ext/torch_names.py``."""
    assert json.loads(torch_names.FILE.read_text()) == torch_names.from_torch()


def test_every_name_of_torch_has_an_answer():
    rows = [row for room in torch_names.stored() for row in torch_names.rows(room)]
    assert [row.name for row in rows if not row.ours and not row.note] == []
    present = sum(bool(row.ours) for row in rows)
    assert present > 0.9 * len(rows)


def test_notes_are_about_names_that_are_not_here():
    """A note for a name that came in the meantime is out of date."""
    known = {f"{room}.{name}" for room, names in torch_names.stored().items() for name in names}
    assert set(torch_names.INSTEAD) <= known


# --- the check of the built site --------------------------------------------------------------


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">b</a><a href="#here">a</a><a href="https://x.org">x</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there"><a href="a.html">a</a>')
    assert links.broken(tmp_path) == []
    (tmp_path / "b.html").write_text('<img src="https://x.org/y.png"><a href="c.html">c</a>')
    assert links.broken(tmp_path) == [
        "a.html: no place b.html#there",
        "b.html: loads https://x.org/y.png",
        "b.html: no file c.html",
    ]
