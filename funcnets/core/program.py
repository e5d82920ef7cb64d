"""One compiled version of a function: what goes in, what comes out, and when it may run again.

    donated = [h._value for h in holders];  kept = [c._value for c in other_cells]
    *new, out = compiled(donated, kept, args, kwargs)
    for holder, value in zip(holders, new): holder._value = value

A holder is a cell that the function writes, or a pack of small ones (``core/pack.py``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from funcnets.core.cell import Cell, Stateful, Version, materialise
from funcnets.core.frame import Frame, running
from funcnets.core.module import Module, stream_key
from funcnets.core.pack import Pack, grouped, pack_of, same, value_of
from funcnets.core.random import stream
from funcnets.core.reach import Binding, unchanged
from funcnets.core.remat import compiler_options
from funcnets.core.rows import top_of
from funcnets.core.traces import Trace, record
from funcnets.core.version import step_lock

__all__ = ["Again", "Program"]

_run_through = deque(maxlen=0).extend
_VALUE = repeat("_value")


class _Output:
    """What a program returns, in a place like a cell's, so that one chain fills both."""

    _value: Any = None


class Again(BaseException):
    """The trace met cells that were not inputs, wrote some that were not outputs, or reshaped packed ones."""

    def __init__(
        self, met: Iterable[Cell], written: Iterable[Cell], reshaped: Iterable[Cell] = ()
    ) -> None:
        super().__init__()
        self.met, self.written, self.reshaped = list(met), list(written), list(reshaped)


class Program:
    """One compiled version: which cells go in, which come out, and for which structure it holds."""

    def __init__(
        self, key: Any, call: Callable[..., Any], found: list[Stateful | Cell], donate: bool
    ) -> None:
        self.key, self.call, self.donate = key, call, donate
        self.version = self.lent = -1
        self.parts: list[Stateful] = []
        self.fingerprint: list[Any] | None = None  # not traced yet
        self.reshapes = False
        self.owner: Any = None  # the function under fn.jit, weakly
        self.traces: list[Trace] = []
        self.unpackable: set[Cell] = set()
        self.paths: dict[Any, list[Binding]] = {}
        self.bindings: list[Binding] = []
        roots = [thing for thing in found if isinstance(thing, Stateful)]
        cells = {top_of(cell): None for root in roots for _, cell in root._cells() if cell.settled}
        cells |= {top_of(x): None for x in found if isinstance(x, Cell) and x.settled}
        written = {top_of(cell): None for r in roots for cell in r._will_write() if cell.settled}
        if any(isinstance(r, Module) and r._may_draw() for r in roots):
            written[stream] = None
        self.roots = roots
        self._arrange([*cells, *written], written)

    def _arrange(self, cells: Iterable[Cell], written: Iterable[Cell]) -> None:
        self.donated = list(dict.fromkeys(written))
        self.donated_set = set(self.donated)
        for cell in self.donated:
            cell._replaced = True
        self.output = _Output()
        self.kept = [c for c in dict.fromkeys(cells) if c not in self.donated_set]
        self.lent = -1
        #: Which cells were to be packed together at first: another answer would be another program.
        self.bunches: dict[Cell, int] = {}
        self._hold([], {})

    def _hold(self, packs: list[Pack], places: dict[Cell, Sharding]) -> None:
        """Put what is replaced into ``packs``, as far as they go; what else there is goes by itself.

        Cells in ``places`` lie on a mesh of devices, and are to stay as they lie.
        """
        self.packs, self.places = packs, places
        packed = {cell for pack in packs for cell in pack.cells}
        self.loose = [cell for cell in self.donated if cell not in packed]
        self.holders: list[Any] = [*packs, *self.loose]
        self.targets = [*self.holders, self.output]
        # None leaves it to XLA, as for whatever the function returns.
        shardings = [None] * len(packs) + [places.get(cell) for cell in self.loose]

        def step(donated: list[Any], kept: list[Any], args: Any, kwargs: Any) -> Any:
            return self._pure(donated, kept, args, kwargs)

        # The name by which profiles, dumps and errors of JAX call it.
        step.__name__ = step.__qualname__ = getattr(self.call, "__name__", "step")
        self.compiled = jax.jit(
            step,
            donate_argnums=(0,) if self.donate else (),
            out_shardings=(*shardings, None) if places else None,
            compiler_options=compiler_options(),
        )

    def widen(self, more: Again) -> None:
        """Take in what a trace met beyond the inputs and outputs so far."""
        self.unpackable.update(more.reshaped)
        self._arrange([*self.donated, *self.kept, *more.met], [*self.donated, *more.written])

    # --- while tracing ---

    def _pure(self, donated: list[Any], kept: list[Any], args: Any, kwargs: Any) -> Any:
        met: dict[Cell, None] = {}

        def unknown(cell: Cell) -> Any:
            met[cell] = None
            materialise([cell])
            return cell._value

        whole, loose = donated[: len(self.packs)], donated[len(self.packs) :]
        pieces = [pack.cut(value) for pack, value in zip(self.packs, whole, strict=True)]
        inputs = [
            *chain.from_iterable(pieces),
            *zip(self.loose, loose, strict=True),
            *zip(self.kept, kept, strict=True),
        ]
        frame = Frame(unknown, values=dict(inputs), rng=stream_key)
        with running(frame):
            out = self.call(*args, **kwargs)
        written = [cell for cell in frame.written if cell not in self.donated_set]
        if met or written:
            raise Again(met, written)
        self._remember(frame)
        out, news = self._separate(out, frame, inputs, (args, kwargs))
        record(self, args, kwargs, dict(inputs))
        self.lent = -1  # arguments on a mesh take the cells there, which the next call has to see
        return (*news, out)

    def _remember(self, frame: Frame) -> None:
        """The structure that this trace depended on."""
        used = dict.fromkeys([*self.parts, *self.roots, *frame.used])
        self.parts = list(dict.fromkeys(part for user in used for part in user._parts()))
        self.fingerprint = [part._fingerprint() for part in self.parts]
        self.version = Version.structure
        # The names by which the function knows what it used: another module may get them.
        known = [self.paths[x] for x in self.paths if x in frame.used or x in frame.values]
        self.bindings = list({(id(b[0]), id(b[1])): b for path in known for b in path}.values())

    def _separate(self, out: Any, frame: Frame, inputs: Any, arguments: Any) -> Any:
        """Outputs that are no other array: a cell's memory is reused in the next call.

        An output that is an argument, another cell's value or given twice would otherwise be the same
        ``jax.Array`` object in two hands.
        """
        wholes = []
        for pack in self.packs:
            given = {cell: jnp.asarray(frame.values[cell]) for cell in pack.cells}
            reshaped = [
                c for c, new in given.items() if new.shape != c._shape or new.dtype != c._dtype
            ]
            if reshaped:
                raise Again((), (), reshaped)
            wholes.append(pack.join(list(given.values())))
        owner = {id(value): cell for cell, value in inputs}
        taken = {id(leaf) for leaf in jax.tree.leaves(arguments)}
        news = []
        for cell in self.loose:
            value = jnp.asarray(frame.values[cell])
            if id(value) in taken or owner.get(id(value), cell) is not cell:
                value = jnp.copy(value)
            elif getattr(value, "weak_type", False):
                value = jax.lax.convert_element_type(value, value.dtype)
            taken.add(id(value))
            news.append(value)
            if value.shape != cell._shape or value.dtype != cell._dtype:
                self.reshapes = True
                if cell in self.places:
                    raise Again((), (), [cell])

        def apart(leaf: Any) -> Any:
            leaf = frame.read(leaf) if isinstance(leaf, Cell) else leaf
            if id(leaf) in taken or owner.get(id(leaf)) is not None:
                return jnp.copy(leaf)
            return leaf

        return jax.tree.map(apart, out), [*wholes, *news]

    # --- while running ---

    def matches(self) -> bool:
        """Whether the structure it was traced for is the present one."""
        if self.fingerprint is None or not unchanged(self.bindings):
            return False
        if any(cell.whole is not None for cell in [*self.donated, *self.kept]):
            return False  # stacked since then, and without an array of its own
        parts = dict.fromkeys(part for user in self.parts for part in user._parts())
        return (
            list(parts) == self.parts and [p._fingerprint() for p in self.parts] == self.fingerprint
        )

    def run(self, args: Any, kwargs: Any) -> Any:
        """One step: gather, call, put back."""
        if not self.donated and self.fingerprint is not None:
            return self._run(args, kwargs)
        with step_lock:  # another thread must not gather what this one donates
            return self._run(args, kwargs)

    def _run(self, args: Any, kwargs: Any) -> Any:
        if self.lent != Version.lent:
            self._prepare()
        donated: list[Any] = [holder._value for holder in self.holders]
        kept = [c._value for c in self.kept]
        if not donated:
            return self.compiled(donated, kept, args, kwargs)[0]
        # The old values are gone once the program has run. So the call, and putting the new ones into
        # the cells, is one chain of iterators that C runs through: a KeyboardInterrupt, which Python
        # delivers between bytecodes, comes before it or after it.
        results = map(self.compiled, (donated,), (kept,), (args,), (kwargs,))
        try:
            _run_through(map(setattr, self.targets, _VALUE, chain.from_iterable(results)))
        except Exception as error:
            if any(value.is_deleted() for value in donated):
                error.add_note(
                    "The step failed while it ran, when its memory had been given away: what it was to "
                    "change (parameters, buffers, optimizer memory) is lost. Load a state_dict, and use "
                    "fn.jit(donate=False) where a step may fail so."
                )
            raise
        if self.reshapes:
            for cell in self.loose:
                value: Any = cell._value
                cell._shape, cell._dtype = value.shape, value.dtype
                for row in cell.rows:
                    row._shape, row._dtype = value.shape[1:], value.dtype
        out, self.output._value = self.output._value, None
        return out

    def _prepare(self) -> None:
        """Give every cell a value, and to those that will be donated one that nobody else holds."""
        cells = [*self.donated, *self.kept]
        materialise(c for c in cells if c._value is None and c._pack is None)
        places = self._spread(cells)
        self.bunches = self.bunches or {cell: cell._bunch for cell in self.donated}
        groups = grouped([c for c in self.donated if c not in self.unpackable], self.bunches)
        # Two programs that replace the same cells share their pack.
        packs = [pack_of(group) for group in groups]
        if (
            places != self.places
            or len(packs) != len(self.packs)
            or not all(
                same(old.cells, new.cells) for old, new in zip(self.packs, packs, strict=True)
            )
        ):
            self._hold(packs, places)
        elif packs != self.packs:
            self.packs = packs
            self.holders = [*packs, *self.loose]
            self.targets = [*self.holders, self.output]
        for pack in packs:
            pack.fill()
        materialise([*self.loose, *self.kept])
        if self.donate:
            for cell in self.loose:
                if cell._lent:
                    cell._value = jnp.copy(cell._value)  # pyright: ignore[reportArgumentType]
                    cell._lent = False
        for cell in self.loose:
            cell._pack = None
        self.lent = Version.lent

    def _spread(self, cells: list[Cell]) -> dict[Cell, Sharding]:
        """How what is replaced lies on a mesh, and is to stay, if any of ``cells`` lies on one.

        Values that are bound to no device go there first. They would come out so (a step count, say), and the
        second call would have to be compiled again.
        """
        mesh: Any = None
        for cell in cells:
            holder: Any = cell if cell._value is not None else cell._pack
            if isinstance(holder._value.sharding, NamedSharding):
                mesh = holder._value.sharding.mesh
                break
        else:
            return {}
        places: dict[Cell, Sharding] = {}
        for cell in self.donated:
            value: Any = value_of(cell)  # out of its pack: nothing on a mesh is packed
            place: Any = value.sharding
            if not value.committed:
                if not isinstance(place, NamedSharding):
                    place = NamedSharding(mesh, PartitionSpec())
                cell._value = jax.device_put(value, place)
                Version.lent += 1
            if cell not in self.unpackable:
                places[cell] = place
        return places
