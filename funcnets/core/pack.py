"""Packs: many small cells that cross the boundary of a compiled step as a few larger ones.

Every array that goes into a compiled program and comes out of it costs a few microseconds, whatever its
size. So what a step replaces, and is small, ``fn.jit`` keeps in a few larger arrays: parameters and
an optimizer's moments alike. Inside the trace a cell's value is a slice of it, which XLA folds away.

Outside, a packed cell is one without an array of its own. Whoever asks for its value gets a piece of
the pack; whoever sets its value takes it out, and the next step packs it again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from funcnets.core.version import Version, step_lock

if TYPE_CHECKING:
    from funcnets.core.cell import Cell

__all__ = ["Pack", "bunch", "grouped", "pack_of", "same", "seen", "value_of"]

#: Elements of the largest array that is packed; for larger ones the work outweighs the boundary.
SMALL = 1 << 14
#: Fewer arrays than this are left as they are.
FEW = 4
#: So many parameters are in one pack, as a rule.
USUAL = 24
#: And so many where the shapes repeat.
PERIODS = range(16, 49)


class Pack:
    """The values of some cells in one array, as long as ``cell._pack`` says so.

    Args:
        cells: small cells of one dtype, on one device.
    """

    __slots__ = ("_host", "_value", "cells", "opened", "spans")

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = list(cells)
        self.spans: dict[Cell, tuple[int, int]] = {}
        start = 0
        for cell in self.cells:
            self.spans[cell] = (start, start := start + math.prod(cell.shape))
        self._value: jax.Array | None = None
        self._host: np.ndarray | None = None
        self.opened = False  # whether a cell has got an array of its own, which a step makes old

    # --- while tracing ---

    def cut(self, vector: jax.Array) -> Iterable[tuple[Cell, jax.Array]]:
        """The cells with their values out of a pack's array."""
        for cell, (start, stop) in self.spans.items():
            yield cell, jax.lax.slice(vector, (start,), (stop,)).reshape(cell.shape)

    @staticmethod
    def join(values: Sequence[jax.Array]) -> jax.Array:
        """A pack's array out of the values of its cells."""
        return jax.lax.concatenate([value.reshape(-1) for value in values], 0)

    # --- while running ---

    def fill(self) -> None:
        """Take in all cells, which have a value, and drop the arrays of their own."""
        if self._value is None or any(cell._pack is not self for cell in self.cells):
            values: list[Any] = [value_of(cell) for cell in self.cells]
            # On the host, where no concatenation has to be compiled; what is packed is small.
            self._value = jax.device_put(
                np.concatenate([np.asarray(value).reshape(-1) for value in values]),
                values[0].sharding if values[0].committed else None,
            )
            self.opened = True
        if self.opened:
            for cell in self.cells:
                cell._value, cell._pack, cell._lent = None, self, False
            Version.lent += 1  # programs that only read these cells have to ask for them again
        self._host, self.opened = None, False

    def value(self, cell: Cell) -> jax.Array:
        """The present value of one cell, in an array of its own."""
        with step_lock:
            if not self.opened or self._host is None:
                # A copy: a view would be overwritten by the next step.
                self._host = np.array(jnp.copy(self._value))  # pyright: ignore[reportArgumentType]
            start, stop = self.spans[cell]
            piece = self._host[start:stop].reshape(cell.shape)
            where: Any = self._value
            place = where.sharding if where.committed else None
            if isinstance(place, NamedSharding):
                # Arguments took the pack to a mesh, and may have cut it as no piece can be cut.
                place = NamedSharding(place.mesh, PartitionSpec())
            self.opened = True
            Version.lent += 1
            return jax.device_put(piece, place)


def value_of(cell: Cell) -> jax.Array:
    """The value of a cell that has one, be it in a pack."""
    if cell._value is None:
        pack: Any = cell._pack
        value = pack.value(cell)
        if cell.whole is not None:  # a row of a stacked cell, which goes on having the value
            return value
        cell._value = value
    return cell._value  # pyright: ignore[reportReturnType]


def seen(cell: Cell, look: Callable[[jax.Array], Any]) -> Any:
    """What ``look`` says of the value of a cell that has one; whose array it is does not change.

    Args:
        cell: a cell with a value, packed or not.
        look: is given the value, which it must not keep.
    """
    with step_lock:
        row: list[int] = []
        span: tuple[int, int] | None = None
        holder: Any = cell
        while holder._value is None:
            if holder.whole is not None:
                row, holder = [holder.row], holder.whole
                continue
            pack: Any = holder._pack
            span, holder = pack.spans[holder], pack
        value = holder._value
        if span is not None:
            shape = cell.shape if not row else cell.whole.shape
            value = value[slice(*span)].reshape(shape)
        return look(value[row[0]] if row else value)


def bunch(cells: Iterable[Cell]) -> None:
    """Let small parameters that are updated together be packed together, with what goes along with them.

    An optimizer joins the same ones in its update as are in one pack, or else XLA has to sort their numbers.

    Args:
        cells: parameters, in the order of the update.
    """
    for part in _parted([c for c in cells if c.settled and 0 < math.prod(c.shape) <= SMALL]):
        for cell in part:
            cell._bunch = id(part[0])


def _parted(cells: Sequence[Cell]) -> list[Sequence[Cell]]:
    """Parts of moderate length and, where the shapes repeat, of the same shapes in the same order.

    XLA compiles equal loops once, but a loop over a piece of a pack is another one for each place of the
    piece. So equal layers are to have their parameters at equal places of equal packs. With all in one pack the
    step of 48 small layers took 3.3 s to compile, with parts 1.0 s, and without any packs as long.
    """
    shapes = [cell.shape for cell in cells]

    def repeated(start: int, length: int) -> int:
        stop = start + length
        while shapes[stop : stop + length] == shapes[start : start + length]:
            stop += length
        return stop - start - length

    ends = [0]

    def go_to(stop: int, length: int) -> None:
        count = -(-(stop - ends[-1]) // length)
        begin = ends[-1]
        ends.extend(begin + (stop - begin) * (i + 1) // count for i in range(count))

    start = 0
    while start < len(shapes):
        saved, length = max(
            ((repeated(start, n), -n) for n in PERIODS if start + 2 * n <= len(shapes)),
            default=(0, 0),
        )
        if not saved:
            start += 1
            continue
        go_to(start, USUAL)
        start += saved - length
        go_to(start, -length)
    go_to(len(shapes), USUAL)
    return [cells[a:b] for a, b in itertools.pairwise(ends)]


def grouped(
    cells: Sequence[Cell], bunches: Mapping[Cell, int] | None = None
) -> list[Sequence[Cell]]:
    """The cells to pack together, all of which have a value: small, of one dtype, on one device.

    Args:
        cells: the cells.
        bunches: which of them belong together, if not those that do now.
    """
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        if not jnp.issubdtype(cell.dtype, jnp.inexact) or not 0 < math.prod(cell.shape) <= SMALL:
            continue
        holder: Any = cell
        while holder._value is None and holder._pack is not None:  # a row's may be packed itself
            holder = holder._pack
        value: Any = holder._value
        # What lies on a mesh stays as it lies, be it a mesh of one device.
        on_mesh = isinstance(value.sharding, NamedSharding)
        if not on_mesh and len(value.sharding.device_set) == 1 and value.is_fully_addressable:
            place = (value.sharding, True) if value.committed else (None, False)
            bunched = cell._bunch if bunches is None else bunches[cell]
            groups.setdefault((cell.dtype, place, bunched), []).append(cell)
    parts = [
        part
        for (*_, bunched), group in groups.items()
        for part in ([group] if bunched else _parted(group))
    ]
    return [part for part in parts if len(part) >= FEW]


def same(cells: Sequence[Cell], others: Sequence[Cell]) -> bool:
    """Whether these are the same cells; ``==`` would compare their values."""
    return list(map(id, cells)) == list(map(id, others))


def pack_of(cells: Sequence[Cell]) -> Pack:
    """The pack that these cells are in together, or a new one."""
    present = cells[0]._pack
    return present if present is not None and same(present.cells, cells) else Pack(cells)
