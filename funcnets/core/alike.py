"""Whether two blocks are so alike that one trace of the first is a trace of both, their cells' values apart.

What a trace depends on is the fingerprint of each module. Here two of them are compared in which every module
and cell of a block goes by its path, and functions and arrays by what they are, not by which.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets._args import describe
from funcnets.core.cell import Cell
from funcnets.core.hooks import STATE_DICT_HOOKS
from funcnets.core.module import Module
from funcnets.core.rows import top_of
from funcnets.core.tree import Same, freeze

__all__ = ["difference"]


def difference(one: Module, other: Module, *, calls: bool = True) -> str | None:
    """Where ``other`` is not built as ``one``; None if a call of both does the same.

    Args:
        one: a block.
        other: another.
        calls: whether modes and hooks count, which may change from call to call.
    """
    mine, theirs = _facts(one, calls), _facts(other, calls)
    for name in mine | theirs:
        pair = mine.get(name, (None, "missing")), theirs.get(name, (None, "missing"))
        if pair[0][0] != pair[1][0]:
            return f"{name} is {pair[0][1]} and {pair[1][1]}"
    return None


def _facts(block: Module, calls: bool) -> dict[str, tuple[Any, str]]:
    """What a call of a block depends on, by a name: something comparable, and a description."""
    names: dict[int, Any] = {id(module): (path, module) for path, module in block._walk()}
    facts = {}
    for path, cell in block._cells():
        names[id(cell)] = (f"cell {path}", cell)
        what = describe(jax.ShapeDtypeStruct(cell.shape, cell.dtype))
        what += "" if cell.requires_grad else ", not trained"
        # In a call it has to be a row of the same array, or shared: none that has replaced a row since.
        facts[path] = (what, cell.persistent, id(top_of(cell)) if calls else None), what

    def same(value: Any) -> Any:
        if id(value) in names:
            return names[id(value)][0]
        # What is met again, in itself perhaps, goes by its number; the value is kept, and with it its id.
        names[id(value)] = (f"number {len(names)}", value)
        return _content(value, same)

    for path, module in block._walk():
        kind, mode, cells, children, hooks, plain = module._fingerprint(same)
        dot = f"{path}." if path else ""
        # A module with computed attributes (nn.utils) has a class of its own.
        own = vars(kind).get("_computed")
        facts[f"{dot}__class__"] = (
            (kind.__bases__ if own else kind, freeze(own, same)),
            kind.__name__,
        )
        names_here = ", ".join(name for name, *_ in (*cells, *children))
        facts[f"{dot}parts"] = (cells, children), names_here or "none"
        if calls:
            facts[f"{dot}training"] = mode, str(mode)
            facts[f"{dot}hooks"] = [object()] * bool(hooks), str(len(hooks))  # equal to no others
        for name, frozen in plain:
            if name not in STATE_DICT_HOOKS:
                facts[dot + name] = frozen, describe(vars(module)[name])
    return facts


def _content(value: Any, same: Any) -> Any:
    """Something comparable that is equal for what does the same in a trace."""
    parts: Any = None
    if isinstance(value, (np.ndarray, jax.Array)) and not isinstance(value, Tracer):
        if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return type(value), value.dtype, value.shape, np.asarray(value).tobytes()
    elif isinstance(value, types.MethodType):
        parts = value.__func__, value.__self__
    elif isinstance(value, functools.partial):
        parts = value.func, value.args, value.keywords
    elif isinstance(value, types.FunctionType):
        held = [c.cell_contents for c in value.__closure__ or () if c != types.CellType()]
        parts = held, value.__defaults__, value.__kwdefaults__
        return value.__code__, freeze(parts, same)
    elif isinstance(value, (Module, Cell)) or type(value).__module__ == "builtins":
        return Same(value)
    elif type(value).__eq__ is not object.__eq__:
        return value
    elif not isinstance(value, type) and hasattr(value, "__dict__"):
        parts = vars(value)
    return Same(value) if parts is None else (type(value), freeze(parts, same))
