"""Initial values that are made together: several cells, one function of one key.

``Draw`` and ``Leaf`` are that in general (``nn.FromLayer`` uses them for a pair's own ``init``). A
``Derivation`` is the case in which the function works on the initial value of a cell that was there
before: a normalised weight, say, becomes a length and a direction. It is described, like everything
else, without drawing anything; the new cells get what the old one would have had, from every key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state

from funcnets.core import frame as frames
from funcnets.core.cell import NO_TICKET, Buffer, Cell, Parameter, tickets
from funcnets.core.draw import draw
from funcnets.core.frame import Frame, running
from funcnets.core.keys import child_key, host_key_data
from funcnets.core.module import rooted_frame
from funcnets.init import Initializer

__all__ = ["Derivation", "Draw", "Leaf", "draw_one", "run_apart", "shelf"]


class _Every(frozenset[Any]):
    def __contains__(self, _: object) -> bool:
        return True


_EVERY = _Every()


class Draw:
    """A function of a key that gives a tree, asked once for leaves that are fetched one by one.

    The leaves not fetched yet are kept for the calls that follow with the same key, and each is given
    away once. It is only a shortcut: what a call returns depends on its key alone, so it is not taken
    where keys or values are tracers.
    """

    def __init__(self, init: Callable[[jax.Array], Any]) -> None:
        self.init = init
        self._rest: tuple[bytes, dict[int, Any]] = (b"", {})

    def __call__(self, key: jax.Array, index: int) -> Any:
        words = jax.random.key_data(key)
        if isinstance(words, Tracer):  # also where a concrete key meets somebody's trace
            return jax.tree.leaves(self.init(key))[index]
        name = str(key.dtype).encode() + words.tobytes()
        kept, rest = self._rest
        leaf = rest.pop(index, None) if kept == name else None
        if leaf is not None:
            return leaf
        leaves = jax.tree.leaves(self.init(key))
        if not any(isinstance(x, Tracer) for x in leaves):
            self._rest = name, {i: x for i, x in enumerate(leaves) if i != index}
        return leaves[index]

    def __getstate__(self) -> dict[str, Any]:
        return {"init": self.init, "_rest": (b"", {})}


@dataclass(frozen=True)
class Leaf(Initializer):
    """Leaf ``index`` of what a ``Draw`` gives.

    Its key in the pure face is that of another path than the cell's own: ``levels_up`` names are taken
    off, ``below`` is put on.
    """

    shared: ClassVar[bool] = True  # the function may return an array that somebody else holds
    draw: Draw
    index: int
    levels_up: int
    below: tuple[str, ...] = ()

    def __call__(self, key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.asarray(self.draw(key, self.index), dtype)

    def moved(self, levels_up: int, below: tuple[str, ...]) -> Leaf:
        """The same for a cell at another path."""
        return replace(self, levels_up=levels_up, below=below)


def run_apart(function: Callable[..., Any], *args: Any) -> tuple[Any, dict[Cell, Any]]:
    """``function(*args)`` and what it would have written, which it has not."""
    outer = frames.current()
    if outer is None:
        with rooted_frame():
            return run_apart(function, *args)
    frame = Frame(outer.read, rng=lambda _frame, what: outer.fork_key(what), parent=outer)
    with running(frame):
        out = function(*args)
    return out, frame.written


def draw_one(rule: Initializer, shape: tuple[int, ...], dtype: Any, key: jax.Array) -> jax.Array:
    """``rule(key, shape, dtype)``, without compiling anything where that is possible."""
    raw = host_key_data(key)
    return draw([(rule, shape, dtype)], key[None] if raw is None else raw[None])[0]


def shelf() -> Any:
    """Who may see again what is computed here: the running call, or everybody outside of calls.

    None inside a JAX transformation that the call does not know of, where values must not be kept.
    """
    frame = frames.current()
    if get_opaque_trace_state() != (frames.CLEAN if frame is None else frame._token):
        return None
    return "outside" if frame is None or frame.rooted else frame


class Derivation:
    """Cells whose initial values a function makes of those of others.

    ``function`` runs in a frame of its own, in which reading a cell gives its initial value. What it
    returns are the first values; the buffers that it writes have the next ones. Both are then given
    to cells, by ``give``.

    If all cells that it reads are ``home`` and have no value yet, nothing is drawn here either: the
    new cells share the old ones' ticket. Otherwise they get values now.

    Args:
        function: reads cells and returns a list of arrays. It must be traceable.
        home: the cells whose key, in the pure face, is the one that the new cells are going to have.
    """

    def __init__(self, function: Callable[[], Sequence[Any]], home: Sequence[Cell]) -> None:
        self.function = function
        self._rules = {c: (c.initializer, c.shape, c.dtype) for c in home}
        self.written: list[Cell] = []
        read: dict[Cell, None] = {}

        def describe(_: Any) -> list[Any]:
            def unknown(cell: Cell) -> jax.Array:
                read[cell] = None
                return jnp.zeros(cell.shape, cell.dtype)

            outputs, written = self._run(unknown, lambda _frame, _what: jax.random.key(0))
            self.written = list(written)
            return [*outputs, *written.values()]

        #: The shapes and dtypes of what ``function`` returns, followed by those of what it writes.
        self.shapes: list[jax.ShapeDtypeStruct] = jax.eval_shape(describe, 0)
        self._draw = Draw(self)
        shared = {c._ticket for c in read} - {NO_TICKET}
        waits = all(c in self._rules and not c.has_value for c in read) and len(shared) <= 1
        self._ticket = shared.pop() if waits and shared else tickets.take()
        self._values: list[Any] | None = None
        if not waits:
            with jax.ensure_compile_time_eval():
                outputs, written = run_apart(self.function)
                self._values = [*outputs, *(written[c] for c in self.written)]

    def _run(self, unknown: Any, rng: Any) -> tuple[list[Any], dict[Cell, Any]]:
        frame = Frame(unknown, rng=rng)
        frame.apart = _EVERY  # these may have become rows of stacked cells, which are not drawn yet
        with running(frame):
            return list(self.function()), frame.written

    def __call__(self, key: jax.Array) -> list[Any]:
        """The initial values from a key."""
        others: list[Cell] = []

        def unknown(cell: Cell) -> jax.Array:
            own = key
            rule = self._rules.get(cell)
            if rule is None:  # a parameter of a parametrization: some initial value of it
                others.append(cell)
                own = child_key(key, str(len(others)))
                rule = cell.initializer, cell.shape, cell.dtype
            return draw_one(*rule, own)

        outputs, written = self._run(unknown, lambda _frame, _what: child_key(key, "derived"))
        return [*outputs, *(written[cell] for cell in self.written)]

    def give(self, cell: Cell, index: int, levels_up: int, below: tuple[str, ...]) -> None:
        """Let ``cell`` start from the value ``index``.

        Args:
            cell: its shape, dtype, initializer and value change.
            index: of a value that ``function`` returns, or further on writes.
            levels_up: see :class:`Leaf`.
            below: see :class:`Leaf`.
        """
        spec = self.shapes[index]
        cell._describe(spec.shape, spec.dtype)
        cell.initializer = Leaf(self._draw, index, levels_up, below)
        cell._ticket = self._ticket
        if self._values is None:
            cell.forget()
        else:
            cell._set(jnp.asarray(self._values[index]))

    def cell_like(self, cell: Cell, index: int) -> Cell:
        """A cell of the kind of ``cell`` for the value ``index``."""
        spec, device = self.shapes[index], cell._placement
        if isinstance(cell, Buffer):
            return Buffer(spec, persistent=cell.persistent, device=device)
        return Parameter(spec, requires_grad=cell.requires_grad, device=device)
