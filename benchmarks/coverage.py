"""Which of PyTorch's names are here: ``python -m benchmarks.coverage`` (needs the ``torch`` extra).

For every public class of ``torch.nn``, and every public function of ``torch.nn.functional``, ``torch.nn.init``
and ``torch.nn.utils``: whether funcnets has it, whether the table of cases, another test or a running example names it, and
whether ``docs/torch-differences.md`` says that something differs on purpose. ``--missing`` prints only what
lacks something.
"""

from __future__ import annotations

import inspect
import pathlib
import re
import sys
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parent.parent

#: Not functions of a model: torch's own dispatch helpers.
HELPERS = {
    "assert_int_or_pair",
    "boolean_dispatch",
    "handle_torch_function",
    "has_torch_function",
    "has_torch_function_unary",
    "has_torch_function_variadic",
}


class Row(NamedTuple):
    """One name: where it is from, and what is known of it."""

    room: str
    name: str
    present: bool
    tested: bool
    differs: bool


def torch_names() -> dict[str, list[str]]:
    """The public names of PyTorch by room."""
    import torch
    import torch.nn.utils.parametrizations
    import torch.nn.utils.parametrize
    import torch.nn.utils.rnn

    functions = [
        n
        for n, f in vars(torch.nn.functional).items()
        if not n.startswith("_")
        and callable(f)
        and not inspect.isclass(f)
        and n not in HELPERS
        # Names of the typing module that torch imports there.
        and getattr(f, "__module__", "") != "typing"
    ]
    inits = [
        n
        for n, f in vars(torch.nn.init).items()
        if inspect.isfunction(f) and n.endswith("_") and n[0] != "_"
    ]
    utils = [n for n in torch.nn.utils.__all__ if callable(getattr(torch.nn.utils, n))]
    return {
        "nn": sorted(torch.nn.modules.__all__),
        "nn.functional": sorted(functions),
        "nn.init": sorted([*inits, "calculate_gain"]),
        "nn.utils": sorted(utils),
    }


def rows() -> list[Row]:
    """A row for every public name of PyTorch."""
    from funcnets import nn

    ours: dict[str, Any] = {
        "nn": nn,
        "nn.functional": nn.functional,
        "nn.init": nn.init,
        "nn.utils": nn.utils,
    }
    from tests.oracle import all_cases

    tests = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py"))
    # Examples in docstrings run in the tests.
    sources = "\n".join(p.read_text() for p in (ROOT / "funcnets").rglob("*.py"))
    examples = "\n".join(re.findall(r"^ +(?:>>>|\.\.\.) .*$", sources, re.MULTILINE))
    # Many cases are written for three ranks at once, so their names stand in the table only.
    words = set(re.findall(r"\w+", tests + examples)) | {case.name for case in all_cases()}
    differences = set(re.findall(r"\w+", (ROOT / "docs" / "torch-differences.md").read_text()))
    return [
        Row(room, name, hasattr(ours[room], name), name in words, name in differences)
        for room, names in torch_names().items()
        for name in names
    ]


def main(arguments: list[str]) -> int:
    found = rows()
    shown = (
        [r for r in found if not (r.present and r.tested)] if "--missing" in arguments else found
    )
    for row in shown:
        marks = [
            "present" if row.present else "MISSING",
            "tested" if row.tested else "NOT TESTED",
            "differs on purpose" if row.differs else "",
        ]
        print(f"{row.room:14s} {row.name:34s} " + "  ".join(f"{m:10s}" for m in marks))
    for room in dict.fromkeys(r.room for r in found):
        of = [r for r in found if r.room == room]
        present, tested = sum(r.present for r in of), sum(r.tested for r in of)
        print(
            f"{room}: {present} of {len(of)} present, {tested} tested, {sum(r.differs for r in of)} differ on purpose"
        )
    return 0 if all(r.present and r.tested for r in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
