"""Which modules and optimizers a function can name: what ``fn.jit`` starts from.

It is a guess. Tracing finds the rest (``core/jit.py``), so nothing here has to be complete.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

from funcnets.core.cell import Stateful

__all__ = ["reachable"]

#: No more than this many items of one container, and objects in all, are looked at.
MANY = 1000


def reachable(fun: Any, *, objects: bool = False) -> Iterator[Stateful]:
    """Modules and optimizers that a function can name: a guess that tracing completes.

    With ``objects`` those that it can reach through attributes of any objects, too.
    """
    level, seen = [fun], set()
    for _ in range(6 if objects else 4):
        below: list[Any] = []
        for thing in level:
            if id(thing) in seen or len(seen) > MANY:
                continue
            seen.add(id(thing))
            if isinstance(thing, Stateful):
                yield thing
            else:
                below += _held_by(thing, objects)
        level = below


def _held_by(thing: Any, objects: bool) -> list[Any]:
    if isinstance(thing, (list, tuple)):
        return list(thing[:MANY])
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.MethodType):
        owner = thing.__self__
        held = [owner] if isinstance(owner, Stateful) else getattr(owner, "__dict__", {}).values()
        return [*held, thing.__func__]
    if "_fun" in getattr(thing, "__dict__", {}):  # a function under fn.jit
        return [thing._fun]
    if isinstance(thing, types.FunctionType):
        held = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        held += [thing.__globals__[n] for n in _names(thing.__code__) if n in thing.__globals__]
        for content in thing.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is not assigned yet
                held.append(content.cell_contents)
        inner = inspect.unwrap(thing)
        return held if inner is thing else [*held, inner]
    plain = isinstance(thing, (type, types.ModuleType)) or not (objects or callable(thing))
    return [] if plain else list(getattr(thing, "__dict__", {}).values())


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
