"""``{torch} nn`` blocks: a table of PyTorch's names in that module, and what each is here."""

from __future__ import annotations

import re
from typing import Any

import torch_names
from sphinx.application import Sphinx

BLOCK = re.compile(r"^```\{torch\} ([\w.]+)\n```$", re.MULTILINE)
SHORT = {"nn.functional": "F", "nn.Module": ""}


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def said(room: str, row: torch_names.Row) -> str:
    """The last cell of a row."""
    if row.note and row.ours:
        return (
            f"raises; use {row.note}"
            if not row.note.startswith("nothing")
            else f"raises; needs {row.note}"
        )
    if row.note:
        return f"is not here: {row.note}"
    if row.differs:
        return f"[differs](torch-differences.md#{slug(row.differs)})"
    return "same"


def table(block: re.Match[str]) -> str:
    room, prefix = block[1], SHORT.get(block[1], block[1])
    lines = [f"| `torch.{room}` | here | compared |", "|---|---|---|"]
    for row in torch_names.rows(room):
        shown = f"{prefix}.{row.name}".lstrip(".")
        ours = f"{{py:obj}}`{shown} <{row.ours}>`" if row.ours else ""
        lines.append(f"| `{row.name}` | {ours} | {said(room, row)} |")
    return "\n".join(lines)


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == "torch-table":
        source[0] = BLOCK.sub(table, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
