"""Frames: where a read of a cell finds its array while a call runs, and what the call wrote.

A frame is opened by whoever runs a module's code and is the only mechanism for state:

    opened by                    a cell not given to it           what was written
    ---------------------------  -------------------------------  ----------------------------
    a call ``model(x)``          the cell's own value             put into the cells at the end
    ``apply`` of functionalize   refused: not part of the model   returned as the new state
    ``fn.jit``                   noted, and traced once more      outputs of the compiled step
    ``fn.grad``, ``scan``, ...   asked of the enclosing frame     outputs of the transformation
    ``fn.eval_shape``            zeros of its shape, traced       dropped

Frames live in a context variable: nested, re-entrant, safe across threads. The reading, writing and
drawing is the same in all of them; they differ in the one function ``unknown``.

A frame remembers the JAX trace it was opened in. A write or a random draw in a deeper trace (a raw
``jax.lax.scan`` inside ``forward``, say) would be lost or repeated, so it is refused.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.core import Tracer, eval_context
from jax.extend.core import get_opaque_trace_state

from funcnets.core.keys import name_hash
from funcnets.core.rows import put_row, rows_of, with_rows
from funcnets.core.version import Version
from funcnets.errors import ModeError, RngError, StateLeakError

if TYPE_CHECKING:
    from funcnets.core.cell import Cell
    from funcnets.core.module import Module

__all__ = ["Frame", "Taps", "current", "running"]

_current: contextvars.ContextVar[Frame | None] = contextvars.ContextVar(
    "funcnets_frame", default=None
)

#: The trace state outside of every JAX transformation.
with eval_context():
    CLEAN = get_opaque_trace_state()

#: How the modes are decided: each module's own flag, or the ``training=`` of a pure call.
OWN = object()

LIFTS = "fn.jit, fn.grad, fn.value_and_grad, fn.scan, fn.vmap, fn.checkpoint"


class Frame:
    """One running call: values of cells, what was written, the mode, and a source of keys."""

    __slots__ = (
        "_counts",
        "_key",
        "_paths",
        "_rng",
        "_rows",
        "_token",
        "_trees",
        "apart",
        "mode",
        "rooted",
        "taps",
        "unknown",
        "used",
        "values",
        "word",
        "written",
    )

    def __init__(
        self,
        unknown: Callable[[Cell], Any],
        *,
        values: dict[Cell, Any] | None = None,
        mode: Any = OWN,
        rng: Callable[[Frame, str], jax.Array | None],
        parent: Frame | None = None,
        rooted: bool = False,
    ) -> None:
        self.unknown = unknown
        self.values = {} if values is None else values
        self.written: dict[Cell, Any] = {}
        self.mode = mode if parent is None else parent.mode
        #: Whether what is written goes straight into the cells, so that no tracer may be written.
        self.rooted = rooted
        #: Every module and optimizer whose structure or mode the call depended on.
        self.used: dict[Any, None] = {} if parent is None else parent.used
        self._trees: list[Module] = [] if parent is None else parent._trees
        self._paths: dict[int, str] = {} if parent is None else parent._paths  # by id
        self._counts: dict[str, int] = {}
        self._rng = rng
        self._key: jax.Array | None = None
        self._token = CLEAN if rooted else get_opaque_trace_state()
        #: The word that is folded into a key for a path's n-th draw; in a scan over blocks it is traced.
        self.word: Callable[[str, int], Any] = _word if parent is None else parent.word
        #: The rows of stacked cells that have values of their own here (core/stacked.py).
        self.apart: Set[Cell] = frozenset() if parent is None else parent.apart
        self._rows: dict[Cell, tuple[Any, list[Any]]] = {}
        #: Who is called in the place of every module, and what was found so (core/watch.py).
        self.taps: Taps | None = None if parent is None else parent.taps
        if not self.values:
            return
        rows = [cell for cell in self.values if cell.whole is not None and cell not in self.apart]
        if rows and parent is None:
            self.apart = frozenset(rows)
        elif rows:
            self.values |= with_rows(self.read, {cell: self.values.pop(cell) for cell in rows})

    # --- cells ---

    def read(self, cell: Cell) -> Any:
        """The array of ``cell`` in this call."""
        value = self.values.get(cell)
        if value is None:
            if cell.whole is not None and cell not in self.apart:
                return self._rows_of(cell.whole)[cell.row]
            value = self.unknown(cell)
            # A tracer that was made in a deeper trace must not be met again outside of that.
            if (
                self.rooted
                or not isinstance(value, Tracer)
                or get_opaque_trace_state() == self._token
            ):
                self.values[cell] = value
        return value

    def write(self, cell: Cell, value: Any, what: str) -> None:
        """Give ``cell`` a new array for the rest of this call; ``what`` names it in errors."""
        self.check_depth(f"writing {what}")
        if cell.whole is not None and cell not in self.apart:
            cell, value = cell.whole, put_row(self.read(cell.whole), cell.row, value, what)
        self.values[cell] = self.written[cell] = value

    def _rows_of(self, whole: Cell) -> list[Any]:
        """The rows of a stacked cell, parted once as long as its value stays the same."""
        value = self.read(whole)
        known, rows = self._rows.get(whole, (None, []))
        if known is not value:
            rows = rows_of(value)
            if get_opaque_trace_state() == self._token:
                self._rows[whole] = value, rows
        return rows

    def check_depth(self, action: str) -> None:
        """Refuse a side effect inside a JAX transformation that this frame does not know of."""
        if get_opaque_trace_state() != self._token:
            raise StateLeakError(
                f"{action} inside a raw JAX transformation (jax.jit, jax.grad, jax.vmap, "
                "jax.lax.scan, jax.checkpoint, ...): it would be lost or repeated. Use the lift of the "
                f"same name, which threads state and splits keys ({LIFTS}), or the pure face: "
                "fn.functionalize(model)"
            )

    # --- names of modules: for keys and for errors ---

    def enter(self, module: Module) -> None:
        """Note the paths of a module tree, of which a module that no known tree holds is called."""
        self._trees.append(module)
        if len(self._trees) == 1:
            self._paths.update(_paths_below(module))
            return
        # A second tree in one call (a teacher and a student, say) has its number as a prefix.
        for name, child in module._walk(str(len(self._trees) - 1)):
            self._paths.setdefault(id(child), name)

    @property
    def trees(self) -> list[Module]:
        """The module trees called so far; the first one's root decides what ``training=`` means."""
        return self._trees

    def path(self, module: Module) -> str:
        """Where ``module`` stands in the tree that was called, ``""`` for its root."""
        return self._paths.get(id(module), "")

    # --- mode ---

    def training(self, module: Module) -> bool:
        """The mode of ``module``: its own flag, or in a pure call that of ``training=``.

        In a pure call a module whose flag differs from the root's was set apart on purpose (a
        frozen BatchNorm in a trained network) and keeps its own.
        """
        own = module._training
        if self.mode is OWN:
            return own
        if self._trees and own != self._trees[0]._training:
            return own
        if self.mode is None:
            raise ModeError(
                f"{type(module).__name__} behaves differently in training and in evaluation: "
                "say which with apply(params, state, ..., training=True) or training=False"
            )
        return self.mode

    # --- random keys ---

    def next_key(self, module: Module | None, what: str) -> jax.Array:
        """A key that no other module, no other draw of this call and no other call gets."""
        self.check_depth(f"drawing a random key for {what}")
        return self._derive("" if module is None else self.path(module), what)

    def fork_key(self, what: str) -> jax.Array:
        """A key for a child frame, drawn before its transformation begins."""
        self.check_depth(f"drawing a random key for {what}")
        return self._derive("lift", what)

    def own_key(self, what: str) -> jax.Array:
        """The key that all of this call's are derived from, for a child that goes on with its draws."""
        self.check_depth(f"drawing a random key for {what}")
        if self._key is None:
            self._key = self._rng(self, what)
            if self._key is None:
                raise RngError(
                    f"{what} draws random numbers and the pure call was given no key: "
                    "pass one with apply(params, state, ..., rng=jax.random.key(...))"
                )
        return self._key

    def _derive(self, path: str, what: str) -> jax.Array:
        key = self.own_key(what)
        count = self._counts[path] = self._counts.get(path, -1) + 1
        return jax.random.fold_in(key, self.word(path, count))

    # --- children ---

    def child(self, values: dict[Cell, Any] | None = None, key: jax.Array | None = None) -> Frame:
        """A frame for code that a lift runs in a transformation of its own; reads fall through.

        Without a ``key`` a random draw in the child raises ``NeedsKey``: the lift then draws one here,
        outside of its transformation, and starts again. So a model without random layers never
        touches the random stream.
        """

        def rng(_: Frame, what: str) -> jax.Array:
            if key is None:
                raise NeedsKey(what)
            return key

        frame = Frame(self.read, values=values, rng=rng, parent=self)
        if self.taps is not None:
            frame.taps = Taps(self.taps.watch)
        return frame

    def continued(self, key: jax.Array | None) -> Frame:
        """A child that draws, from this call's own key, what this call would draw next."""
        child = self.child(key=key)
        child._counts = dict(self._counts)
        return child

    def go_on_from(self, child: Frame) -> None:
        """Draw next what comes after the draws of a ``continued`` child."""
        self._counts = child._counts

    def absorb(self, cells: Any, values: Any) -> None:
        """Take over what a child frame wrote, once its values have left the transformation."""
        for cell, value in zip(cells, values, strict=True):
            self.write(cell, value, "state from a lifted function")

    # --- what is found by the way ---

    def tapped(self) -> list[list[Any]]:
        """The arrays that were found in this frame, for a lift to give out of its transformation."""
        return [] if self.taps is None else [arrays for _, arrays in self.taps.found]

    def take_taps(self, child: Frame, arrays: list[list[Any]]) -> None:
        """Take over what was found in a child frame, once the arrays have left the transformation."""
        if self.taps is not None and child.taps is not None:
            infos = [info for info, _ in child.taps.found]
            self.taps.found += zip(infos, arrays, strict=True)


class Taps:
    """What is called in the place of every module in a frame, and what was found so.

    ``found`` has pairs of something static and a list of arrays, which belong to the trace of the frame.
    """

    __slots__ = ("found", "token", "watch")

    def __init__(self, watch: Callable[[Module, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        self.watch, self.token = watch, get_opaque_trace_state()
        self.found: list[tuple[Any, list[Any]]] = []


def _word(path: str, count: int) -> np.uint32:
    return np.uint32(name_hash(f"{path}#{count}"))


class NeedsKey(BaseException):
    """A child frame drew a key and its lift had none to give. Never leaves the lift."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


#: A root, the version of all structures, and the paths below the root: those of the last call, which are
#: most often those of the next. By id and weakly, so that nothing is kept alive.
_last: tuple[Callable[[], Any], int, dict[int, str]] = (lambda: None, -1, {})


def _paths_below(root: Module) -> dict[int, str]:
    global _last
    known, version, paths = _last
    if known() is not root or version != Version.structure:
        version = Version.structure
        paths = {id(child): name for name, child in root._walk()}
        _last = weakref.ref(root), version, paths
    return paths


def current() -> Frame | None:
    """The innermost frame, or None outside of any call."""
    return _current.get()


class running:
    """Make ``frame`` the current one."""

    __slots__ = ("_frame", "_token")

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __enter__(self) -> Frame:
        self._token = _current.set(self._frame)
        return self._frame

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


@contextmanager
def outside() -> Iterator[None]:
    """Step out of the running call: attributes are cells, and descriptions may be changed."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
