"""The things that a training run is made of, as states: taken when saving, put back when restoring.

A thing tells by what it has how its state is taken:

    a Module                        its state_dict, and its buffers that are not part of that
    state_dict, load_state_dict     these: an optimizer, a schedule, a scaler, a loader, ...
    get_state, set_state            these: an iterator of grain
    cells only                      the values of its cells
    anything else                   is a value itself
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core import random
from funcnets.core.cell import Cell, Stateful, tickets
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, DTypeError, StateDictError
from funcnets.io.tree import decode, encode
from funcnets.train._store import Taken, take
from funcnets.train._structure import plain

__all__ = [
    "backup",
    "kind_of",
    "put_back",
    "rng_state",
    "set_rng_state",
    "shardings_of",
    "take_item",
]


def kind_of(thing: Any) -> str:
    """How the state of ``thing`` is taken."""
    if inspect.isclass(thing):
        return "value"
    if isinstance(thing, Module):
        return "module"
    for kind, methods in (
        ("state_dict", ("state_dict", "load_state_dict")),
        ("get_state", ("get_state", "set_state")),
    ):
        if all(callable(getattr(thing, method, None)) for method in methods):
            return kind
    return "cells" if isinstance(thing, Stateful) else "value"


def take_item(name: str, thing: Any) -> Taken:
    """The state of one thing at this moment.

    Raises:
        DTypeError: it is, or holds, something that cannot be saved; the message says where.
    """
    kind = kind_of(thing)
    about: dict[str, Any] = {"kind": kind, "type": type(thing).__qualname__}
    if kind == "module":
        state: Any = thing.state_dict()
        transient = {n: c.data for n, c in _transient(thing).items() if c.has_value}
        about["transient"] = list(transient)
        state.update(transient)
    else:
        state = _state_of(thing, kind)
    try:
        return take(encode(state), about)
    except ArgumentError as error:
        raise DTypeError(
            f"a checkpoint cannot hold {name!r} ({type(thing).__name__}): {error}"
        ) from None


def _state_of(thing: Any, kind: str) -> Any:
    if kind == "state_dict":
        return thing.state_dict()
    if kind == "get_state":
        return thing.get_state()
    if kind == "cells":
        return {name: cell.data for name, cell in thing._cells() if cell.settled}
    return plain(thing)


def _transient(module: Module) -> dict[str, Cell]:
    """The buffers that a state_dict leaves out."""
    return {n: c for n, c in module._cells() if not c.persistent and c.settled}


# --- putting back -----------------------------------------------------------------------------


def put_back(
    thing: Any, entry: Mapping[str, Any], state: Any, strict: bool
) -> tuple[list[str], list[str]]:
    """Give ``thing`` a state.

    Args:
        thing: what had the state when it was saved, or its like.
        entry: what the record has of it.
        state: the state.
        strict: whether a module must have every name of the state, and the state every name of the module.

    Returns:
        The names that were missing in the state, and those that were left over.

    Raises:
        StateDictError: it does not fit; the thing may have changed.
    """
    kind = kind_of(thing)
    if kind == "module":
        return _into_module(thing, entry, state, strict)
    if kind == "cells":
        return _into_cells(dict(thing._cells()), state, strict)
    (thing.load_state_dict if kind == "state_dict" else thing.set_state)(state)
    return [], []


def _into_module(
    module: Module, entry: Mapping[str, Any], state: Any, strict: bool
) -> tuple[list[str], list[str]]:
    transient = {name: state.pop(name) for name in entry.get("transient", ())}
    keys = module.load_state_dict(state, strict=strict)
    missing, left = _into_cells(_transient(module), transient, strict, complete=False)
    return [*keys.missing_keys, *missing], [*keys.unexpected_keys, *left]


def _into_cells(
    cells: dict[str, Cell], state: Mapping[str, Any], strict: bool, *, complete: bool = True
) -> tuple[list[str], list[str]]:
    missing = [name for name in cells if name not in state] if complete else []
    unexpected = [name for name in state if name not in cells]
    problems = [
        f"size mismatch for {name}: it is {describe(cells[name])}, but the checkpoint has {describe(value)}"
        for name, value in state.items()
        if name in cells and tuple(value.shape) != cells[name].shape
    ]
    if strict:
        problems += [f"missing in the checkpoint: {name}" for name in missing]
        problems += [f"unexpected in the checkpoint: {name}" for name in unexpected]
    if problems:
        raise StateDictError("\n\t".join(problems))
    for name, value in state.items():
        if name in cells:
            cells[name]._set(jnp.asarray(value, cells[name].dtype))
    return missing, unexpected


def backup(thing: Any) -> Callable[[], None]:
    """A function that puts ``thing`` back into the state of now."""
    kind = kind_of(thing)
    if kind in ("module", "cells"):
        rows = thing._cells(rows=True) if isinstance(thing, Module) else thing._cells()
        cells = list(dict.fromkeys(cell for _, cell in rows))
        values = [(c, c.lend() if c.has_value else None, c._shape, c._dtype) for c in cells]
        extras = [
            (child, child.get_extra_state())
            for child in (thing.modules() if kind == "module" else ())
            if type(child).get_extra_state is not Module.get_extra_state
        ]

        def undo() -> None:
            for cell, value, shape, dtype in values:
                cell._describe(shape, dtype)  # pyright: ignore[reportArgumentType]
                cell.forget() if value is None else cell._set(value)
            for child, extra in extras:
                child.set_extra_state(extra)

        return undo
    # Taken apart, so that what the thing changes from now on is not changed here.
    tree, held = encode(_state_of(thing, kind))
    arrays = {k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in held.items()}

    def undo_by_loading() -> None:
        put_back(thing, {}, decode(tree, arrays.__getitem__), True)

    return undo_by_loading


# --- where arrays belong ----------------------------------------------------------------------


def shardings_of(thing: Any) -> dict[str, Any]:
    """By name, the places of those arrays of ``thing`` that are spread over several devices."""
    kind = kind_of(thing)
    rows: Any = []
    if kind == "module":
        rows = [*thing.state_dict(keep_vars=True).items(), *_transient(thing).items()]
    elif kind == "cells":
        rows = thing._cells()
    elif kind == "value":
        rows = _leaves(plain(thing), ())
    # A cell that is packed with others has no array of its own, and is not spread.
    values = {n: getattr(v, "_value", None) if isinstance(v, Cell) else v for n, v in rows}
    found = {n: getattr(v, "sharding", None) for n, v in values.items()}
    return {n: s for n, s in found.items() if s is not None and len(s.device_set) > 1}


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The leaves of plain containers, under the names that ``funcnets.io.tree`` gives to arrays."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(child, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for i, child in enumerate(value):
            yield from _leaves(child, (*path, str(i)))
    else:
        yield ".".join(path) or "array", value


# --- the random stream ------------------------------------------------------------------------


def rng_state() -> dict[str, Any]:
    """The seed of the stateful face, how many cells took a ticket, and the key of the random layers."""
    key = np.asarray(random.stream.data).tolist() if random.stream.has_value else None
    return {"seed": tickets.seed, "issued": tickets._issued, "key": key}


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Continue the random streams where :func:`rng_state` was taken."""
    random.manual_seed(state["seed"])
    tickets._issued = int(state["issued"])
    if state["key"] is not None:
        random.stream._set(jnp.asarray(state["key"], jnp.uint32))
