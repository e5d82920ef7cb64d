"""What each trace of a program was made from, and who wants to be told of a new one.

All of this happens while ``fn.jit`` traces; a call that runs a program that there is does not come by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from funcnets.core.cell import Cell

__all__ = ["Trace", "observers", "record", "tell"]

#: Called as ``observer(event, program, fact)``:
#:     ``"made"``    there is no program for the present structure; the fact is the one that ran before
#:     ``"again"``   the trace met cells that it did not know of, and begins anew; the fact says which
#:     ``"traced"``  the last of ``program.traces`` is new
observers: list[Callable[[str, Any, Any], None]] = []

_KEPT = 16  # traces of one program


class Trace(NamedTuple):
    """What went into a trace, as text such as ``float32[3]``.

    Attributes:
        structure: of the arguments.
        arguments: by path; the first step is 0 for positional and 1 for keyword arguments.
        cells: by cell.
    """

    structure: Any
    arguments: dict[tuple[Any, ...], str]
    cells: dict[Cell, str]


def record(program: Any, args: Any, kwargs: Any, cells: dict[Cell, Any]) -> None:
    """Remember what the trace that runs is made from, and tell of it."""
    leaves, structure = jax.tree_util.tree_flatten_with_path((tuple(args), kwargs))
    arguments = {path: str(jax.typeof(leaf)) for path, leaf in leaves}
    kinds = {cell: str(jax.typeof(value)) for cell, value in cells.items()}
    program.traces = [*program.traces[1 - _KEPT :], Trace(structure, arguments, kinds)]
    tell("traced", program)


def tell(event: str, program: Any, fact: Any = None) -> None:
    """Let everybody know who wants to."""
    for observer in list(observers):
        observer(event, program, fact)
