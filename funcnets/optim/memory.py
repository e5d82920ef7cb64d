"""What an optax transformation keeps between steps, as cells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import DictKey, GetAttrKey

from funcnets.core.cell import Buffer, Cell, Parameter, materialise
from funcnets.core.pack import bunch, value_of
from funcnets.core.state_dict import store
from funcnets.init import Initializer

__all__ = ["STARTED", "Memory", "Slot"]

#: A flag of this name tells whether the fields beside it hold anything yet. PyTorch has no such flag:
#: there the fields are missing until then, and so they are in a state_dict.
STARTED = "started"


class Slot(NamedTuple):
    """One array of a transformation's state.

    Attributes:
        path: the names on the way to it, without the parameter's.
        field: the innermost name of a field, which is PyTorch's name in our own transformations.
        place: which parameter of the memory it belongs to; None if all of them share it.
        leaf: its shape and dtype.
        buffer: the cell that holds it.
    """

    path: tuple[str, ...]
    field: str
    place: int | None
    leaf: jax.ShapeDtypeStruct
    buffer: Buffer

    @property
    def key(self) -> Any:
        """What identifies it, whatever the options."""
        return self.path, self.place, self.leaf.shape


class Memory:
    """The state of a transformation for the parameters that took their first step together.

    Parameters that join later (unfrozen, say) get a memory of their own, so that their step count
    starts at one as in PyTorch. Once ``started``, a memory holds the same parameters for good:
    compiled steps rely on it.

    Args:
        cells: the parameters.
    """

    def __init__(self, cells: Sequence[Parameter]) -> None:
        self.cells = list(cells)
        bunch(self.cells)
        self.started = False
        #: Loaded values that the present options have no use for, by field and place.
        self.spare: dict[tuple[str, int | None], jax.Array] = {}
        # By the place in the state, so that what a change of options leaves in place is kept.
        self._buffers: dict[Any, Buffer] = {}

    def name(self, place: int) -> str:
        """The name of a parameter in the tree that the transformation sees; sorts as the places do."""
        return f"{place:06d}"

    @property
    def live(self) -> bool:
        """Whether a step has begun with it, or a state_dict was loaded."""
        return any(buffer.has_value for buffer in self._buffers.values()) or bool(self.spare)

    def holds(self, cells: Iterable[Parameter]) -> bool:
        """Whether it is the memory of just these parameters, in this order."""
        return list(map(id, cells)) == list(map(id, self.cells))

    # --- its arrays ---

    def slots(self, tx: optax.GradientTransformation) -> tuple[list[Slot], Any]:
        """What ``tx`` keeps, described without allocating it.

        Args:
            tx: the transformation, with the options of now.

        Returns:
            The arrays, and the structure to put them into.
        """
        names = {self.name(i): i for i in range(len(self.cells))}
        shapes = {name: _shape_of(self.cells[i]) for name, i in names.items()}
        rows, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(tx.init, shapes))
        slots, fresh = [], []
        for i, (path, leaf) in enumerate(rows):
            key = _place_in_state(path, names)
            known = self._buffers.get((key[0], key[2], leaf.shape))
            if known is None:
                known = _cell_for(leaf)
                fresh.append(i)
            slots.append(slot := Slot(*key, leaf, known))
            owner = self._owner(slot)
            known._bunch = 0 if owner is None else owner._bunch
        begin = self._beginning(tx, fresh)
        for i in fresh:
            slot, buffer = slots[i], slots[i].buffer
            buffer.initializer = _Start(begin, i)
            self._buffers[slot.key] = buffer
            if (slot.field, slot.place) in self.spare:
                buffer._set(self.spare.pop((slot.field, slot.place)).astype(slot.leaf.dtype))
            elif slot.field == STARTED and self.spare:
                buffer._set(jnp.ones(slot.leaf.shape, slot.leaf.dtype))
        return slots, structure

    def _beginning(
        self, tx: optax.GradientTransformation, wanted: Collection[int]
    ) -> Callable[[int], jax.Array]:
        """A function that gives the i-th array of ``tx.init``, which runs once for all of them."""
        waiting: dict[int, jax.Array] = {}

        def begin(i: int) -> jax.Array:
            if i not in waiting:
                materialise(self.cells)
                params: Any = {self.name(n): value_of(c) for n, c in enumerate(self.cells)}
                held = {id(value) for value in params.values()}
                for n, value in enumerate(jax.tree.leaves(tx.init(params))):
                    if n not in wanted:
                        continue
                    # A transformation may keep the parameters themselves, or one array in two places.
                    value = jnp.asarray(value)
                    waiting[n] = jnp.copy(value) if id(value) in held else value
                    held.add(id(waiting[n]))
            return waiting.pop(i)

        return begin

    # --- changes between the steps ---

    def forget(self) -> None:
        """Back to the beginning: the next step is the first."""
        self.spare.clear()
        for buffer in self._buffers.values():
            buffer.forget()

    def put(
        self,
        tx: optax.GradientTransformation,
        values: Mapping[tuple[str, int | None], jax.Array],
        name_of: Callable[[Slot], str],
    ) -> None:
        """Take over loaded values; what is not among them begins anew.

        Args:
            tx: the transformation, with the options of now.
            values: arrays by name and place. Those that ``tx`` has no place for are kept aside.
            name_of: the name of an array.
        """
        left = dict(values)
        slots, _ = self.slots(tx)
        before = {slot.key: _value_if_any(slot.buffer) for slot in slots}
        self.forget()
        self.started = True
        given = {s.path[:-1] for s in slots if (name_of(s), s.place) in left}
        for slot in slots:
            if slot.field == STARTED and slot.path[:-1] in given:
                slot.buffer._set(jnp.ones(slot.leaf.shape, slot.leaf.dtype))
            elif (name_of(slot), slot.place) in left:
                array = left.pop((name_of(slot), slot.place))
                store(slot.buffer, _placed(array, before[slot.key], self._owner(slot)))
        self.spare = left

    def _owner(self, slot: Slot) -> Parameter | None:
        return None if slot.place is None else self.cells[slot.place]

    def split(self, ready: Any, copy: Callable[[Buffer], Buffer]) -> list[Memory]:
        """Two memories: of the parameters in ``ready``, and of the others.

        Args:
            ready: the parameters that step now.
            copy: makes a cell with the value of another.
        """
        parts = []
        for chosen in (True, False):
            places = [i for i, cell in enumerate(self.cells) if (cell in ready) == chosen]
            new = {place: i for i, place in enumerate(places)}
            part = Memory([self.cells[i] for i in places])
            part.started = True
            for (path, place, shape), buffer in self._buffers.items():
                if place is None:
                    # The first part goes on with the cells that all shared so far.
                    part._buffers[path, place, shape] = buffer if chosen else copy(buffer)
                elif place in new:
                    part._buffers[path, new[place], shape] = buffer
            for (field, place), array in self.spare.items():
                if place is None or place in new:
                    part.spare[field, None if place is None else new[place]] = array
            parts.append(part)
        return parts


def _cell_for(leaf: jax.ShapeDtypeStruct) -> Buffer:
    """A cell of a shape and dtype, which may be that of random keys."""
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return Buffer(leaf)
    cell = Buffer(leaf.shape, dtype=jnp.uint32)
    cell._dtype = leaf.dtype
    return cell


def _value_if_any(cell: Cell) -> jax.Array | None:
    return value_of(cell) if cell.has_value else None


def _placed(array: jax.Array, before: jax.Array | None, owner: Parameter | None) -> jax.Array:
    """An array where the one before it was, or where its parameter is."""
    like = before
    if like is None and owner is not None and owner.shape == array.shape:
        like = _value_if_any(owner)
    # An array that is bound to its device by nobody stays so: else the step would compile again.
    if like is None or not like.committed or like.is_deleted():
        return array
    return jax.device_put(array, like.sharding)


def _shape_of(cell: Parameter) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(cell.shape, cell.dtype)


def _place_in_state(
    path: Sequence[Any], names: Mapping[str, int]
) -> tuple[tuple[str, ...], str, int | None]:
    """``(path without the parameter, field, place)`` of a leaf."""
    place, field, rest = None, "", []
    for entry in path:
        if isinstance(entry, DictKey) and entry.key in names:
            place = names[entry.key]
            continue
        text = str(getattr(entry, "name", getattr(entry, "idx", getattr(entry, "key", entry))))
        rest.append(text)
        if isinstance(entry, GetAttrKey):
            field = text
    return tuple(rest), field or ".".join(rest), place


class _Start(Initializer):
    """One array of the initial state."""

    needs_key: ClassVar[bool] = False

    def __init__(self, begin: Callable[[int], jax.Array], index: int) -> None:
        object.__setattr__(self, "begin", begin)
        object.__setattr__(self, "index", index)

    def __call__(self, key: Any, shape: Any, dtype: Any = None) -> jax.Array:
        return self.begin(self.index)  # pyright: ignore[reportAttributeAccessIssue]

    __eq__ = object.__eq__  # pyright: ignore[reportAssignmentType]
    __hash__ = object.__hash__
