"""Which modules, optimizers and cells a function can name: what ``fn.jit`` starts from.

It is a guess. Tracing finds the rest (``core/jit.py``), so nothing here has to be complete.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Iterable, Iterator
from typing import Any

from funcnets.core.cell import Cell, Stateful

__all__ = ["Binding", "reachable", "unchanged"]

#: No more than this many items of one container, and objects in all, are looked at.
MANY = 1000
#: Where something was found, under which key, and what it was. A variable of a closure has no key.
Binding = tuple[Any, Any, Any]
_VARIABLE = object()


def reachable(
    fun: Any, *, objects: bool = False
) -> Iterator[tuple[Stateful | Cell, tuple[Binding, ...]]]:
    """What a function can name, each with the names on the way to it: a guess that tracing completes.

    With ``objects`` also what it can reach through attributes of any objects.
    """
    level: list[tuple[Any, tuple[Binding, ...]]] = [(fun, ())]
    seen: set[int] = set()
    for _ in range(6 if objects else 4):
        below: list[tuple[Any, tuple[Binding, ...]]] = []
        for thing, path in level:
            if isinstance(thing, (Stateful, Cell)):
                yield thing, path
            elif id(thing) not in seen and len(seen) < MANY:
                seen.add(id(thing))
                below += [
                    (held, path if box is None else (*path, (box, key, held)))
                    for box, key, held in _held_by(thing, objects)
                ]
        level = below


def unchanged(bindings: Iterable[Binding]) -> bool:
    """Whether the names still mean what they meant."""
    try:
        for box, key, value in bindings:
            if (box.cell_contents if key is _VARIABLE else box[key]) is not value:
                return False
    except (LookupError, ValueError):  # deleted
        return False
    return True


def _held_by(thing: Any, objects: bool) -> list[Binding]:
    """``(container, key, content)``; no container where the content cannot be exchanged."""
    if isinstance(thing, list):
        return [(thing, i, item) for i, item in enumerate(thing[:MANY])]
    if isinstance(thing, dict):
        return [(thing, key, value) for key, value in thing.items()]
    if isinstance(thing, tuple):
        return _fixed(thing[:MANY])
    if isinstance(thing, functools.partial):
        return _fixed([thing.func, *thing.args, *thing.keywords.values()])
    if isinstance(thing, types.MethodType):
        owner = thing.__self__
        held = _fixed([owner]) if isinstance(owner, Stateful) else _attributes(owner)
        return [*held, *_fixed([thing.__func__])]
    if "_fun" in getattr(thing, "__dict__", {}):  # a function under fn.jit
        return _fixed([thing._fun])
    if isinstance(thing, types.FunctionType):
        names, inner = thing.__globals__, inspect.unwrap(thing)
        held = _fixed([*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()])
        held += [(names, n, names[n]) for n in _names(thing.__code__) if n in names]
        for variable in thing.__closure__ or ():
            try:
                held.append((variable, _VARIABLE, variable.cell_contents))
            except ValueError:  # it is not assigned yet
                continue
        return held if inner is thing else [*held, *_fixed([inner])]
    plain = isinstance(thing, (type, types.ModuleType)) or not (objects or callable(thing))
    return [] if plain else _attributes(thing)


def _fixed(things: Iterable[Any]) -> list[Binding]:
    return [(None, None, thing) for thing in things]


def _attributes(thing: Any) -> list[Binding]:
    home = getattr(thing, "__dict__", {})
    return [(home, name, value) for name, value in home.items()]


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """The global names that a function reads; its ``co_names`` are those of attributes, too."""
    names = [
        i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    ]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names(constant)
    return tuple(dict.fromkeys(names))
