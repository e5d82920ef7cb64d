"""Stacked cells: one array whose rows are the values of a cell in all blocks of an ``nn.Stack``.

The blocks keep their own cells, with names, initializers and tickets. As long as the stacked cell has an
array, its rows have none: they are to it what packed cells are to a pack (``core/pack.py``), and whoever asks a row
for its value gets a piece. Whoever gives a row another value parts the array: then every row has its own, and when the
stacked cell is next asked for, it joins them, drawing those that have no value yet. So at any time the
values are in one place. In a call ``Frame.read`` and ``Frame.write`` of a row go to the stacked cell's value.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import jax

from funcnets._args import describe
from funcnets.core.cell import Cell, Version
from funcnets.core.pack import value_of
from funcnets.core.rows import row_of, stack_rows
from funcnets.core.version import step_lock
from funcnets.errors import ArgumentError, ShapeError

__all__ = ["Stacked"]


class Stacked(Cell):
    """The cells of one name in all blocks as one, of shape ``(number of blocks, *shape)``.

    Args:
        rows: cells of one shape and dtype. They keep the values that they have.
        name: what each block calls its own.
    """

    __slots__ = ("name",)

    def __init__(self, rows: Sequence[Cell], name: str) -> None:
        super().__init__(jax.ShapeDtypeStruct((len(rows), *rows[0].shape), rows[0].dtype))
        self.rows, self.name = tuple(rows), name
        self.persistent = rows[0].persistent
        for number, row in enumerate(rows):
            if row._pack is not None:
                value_of(row)
                row._pack = None
            row.whole, row.row = self, number
        self.agree()
        Version.structure += 1

    def agree(self) -> None:
        """Be as the rows are, which have to be alike."""
        kinds = {(r._shape, r._dtype, r.requires_grad): n for n, r in enumerate(self.rows)}
        if len(kinds) > 1:
            seen = "; ".join(
                f"in block {n} {describe(jax.ShapeDtypeStruct(shape, dtype))}, "
                + ("trained" if trained else "not trained")
                for (shape, dtype, trained), n in kinds.items()
            )
            raise ArgumentError(
                f"'{self.name}' must be alike in all blocks of a Stack, whose values are one array, but is {seen}: "
                "change it, or freeze it, in all of them, or use nn.ModuleList"
            )
        ((shape, self._dtype, self.requires_grad),) = kinds
        self._shape = (len(self.rows), *(shape or ()))

    # --- its value ---

    def value(self, row: Cell) -> jax.Array:
        """The value of a row, in an array of its own; what a pack has, too."""
        with step_lock, jax.ensure_compile_time_eval():
            return row_of(value_of(self), row.row)

    def part(self) -> None:
        """Give every row its own array, if they are one now."""
        with step_lock:
            if not self.has_value:
                return
            for row in self.rows:
                row._value, row._lent = self.value(row), False
            for row in self.rows:
                row._pack = None
            self._value = self._pack = None
            Version.lent += 1

    def join(self) -> None:
        """Make the array out of those of the rows, all of which have one."""
        self.agree()
        self._set(stack_rows([value_of(row) for row in self.rows]), lent=False)

    def _set(self, array: jax.Array, *, lent: bool = True) -> None:
        super()._set(array, lent=lent)
        for row in self.rows:
            row._value, row._pack, row._lent = None, self, False  # pyright: ignore[reportAttributeAccessIssue]

    def forget(self) -> None:
        super().forget()
        for row in self.rows:
            row._value = row._pack = None

    def _describe(self, shape: tuple[int, ...], dtype: Any) -> None:
        if shape[:1] != (len(self.rows),):
            raise ShapeError(
                f"a stacked cell of {len(self.rows)} blocks cannot be of shape {shape}"
            )
        super()._describe(shape, dtype)
        for row in self.rows:
            row._describe(shape[1:], dtype)

    # --- copies: of the rows, stacked anew ---

    def __deepcopy__(self, memo: dict[int, Any]) -> Cell:
        twin = memo[id(self)] = Stacked(copy.deepcopy(self.rows, memo), self.name)
        return twin

    def __reduce__(self) -> Any:
        return Stacked, (self.rows, self.name)
