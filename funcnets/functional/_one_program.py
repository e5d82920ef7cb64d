"""One dispatch for a call of a function outside of any compilation: what an eager model runs on.

JAX runs every operation that is not being compiled as a program of its own, and a loss or a layer is many
operations. A function marked with ``one_program`` runs as one compiled program instead, kept for each
combination of its options (arguments that are no arrays); on arrays that ``jit``, ``vmap`` or whatever else
traces it is called as it is and leaves no mark in the traced program.

Parts of some functions are under a ``jax.jit(..., inline=True)`` of their own. That is not the same twice: it serves
where this one steps aside, in an eager ``vmap`` (up to 26 times faster for it) and in a trace that meets a layer of
the same shapes again (up to 11 times).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.core import Tracer, eval_context
from jax.extend.core import get_opaque_trace_state

from funcnets.errors import RngError

__all__ = ["one_program"]

P = ParamSpec("P")
R = TypeVar("R")

#: So many combinations of options a function has at most. One of which an option is a new number at
#: every call (a temperature that is annealed, say) would otherwise be compiled at every call.
LIMIT = 64

#: What stands for an array in the key of a program.
_ARRAY: Any = object()

#: The types of arrays that were met, tracers apart; looking a type up is quicker than asking what it is.
_plain: set[type] = set()

with eval_context():
    _CLEAN = get_opaque_trace_state()


class _Unfit(Exception):
    """A call that cannot be one program: an argument that is neither array nor plain value."""


class _Warned(BaseException):
    """The function warns when it is called so, which a compiled program would do only once."""


def one_program(function: Callable[P, R]) -> Callable[P, R]:
    """Let ``function`` run as one program when it is called outside of any compilation.

    For functions of arrays and options that look at no value of an array, and draw no random numbers
    of their own accord. What they refuse they refuse as ever; a call that warns runs as it is written.

    Args:
        function: of arrays, lists and tuples of them, and plain values.
    """
    programs: dict[Any, Any] = {}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        key: Any
        arrays: Any
        if args and not kwargs and _plain.issuperset(map(type, args)):
            # The usual call, in which every microsecond counts. (Constants within a trace come here, too:
            # the program is then called as part of what is traced.)
            key, arrays = len(args), args
        else:
            arrays = []
            try:
                positional = [_key(value, arrays) for value in args]
                key = (
                    *positional,
                    *((name, _key(value, arrays)) for name, value in kwargs.items()),
                )
            except _Unfit:
                return function(*args, **kwargs)
            if not arrays or not _runs_at_once(arrays):
                return function(*args, **kwargs)
            if not kwargs and all(part is _ARRAY for part in positional):
                key = len(args)
        program = programs.get(key)
        if program is None and key not in programs and len(programs) < LIMIT:
            program = programs[key] = _compiled(function, args, kwargs)
        if program is not None:
            try:
                return program(*arrays)
            except (_Warned, RngError):  # without a key, some draw and some do not
                programs[key] = None
            except Exception:  # said again by the function itself, without what JAX adds
                pass
        # From this very frame, so that warnings know how far up the caller is.
        out = function(*args, **kwargs)
        if program is not None:
            programs[key] = None  # it can be computed, but not as a program
        return out

    return call


def _compiled(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    # The program must not keep the arrays of its first call alive.
    args, kwargs = _without_arrays(args), _without_arrays(kwargs)

    def body(*arrays: Any) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                return _apply(function, args, kwargs, arrays)
            finally:
                if caught:
                    # Whatever else: it is said again when the function runs as it is written.
                    raise _Warned

    body.__name__ = body.__qualname__ = function.__name__
    return jax.jit(body)


def _apply(function: Callable[..., Any], args: Any, kwargs: Any, arrays: Any) -> Any:
    left = iter(arrays)
    args = [_with_arrays(value, left) for value in args]
    return function(*args, **{name: _with_arrays(v, left) for name, v in kwargs.items()})


def _key(value: Any, arrays: list[Any]) -> Any:
    """A hashable description of an argument; its arrays are added to ``arrays``."""
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is str:
        return kind, value  # 1 and True are equal, and not the same
    if kind is float:
        return kind, value.hex()  # 0.0 and -0.0, likewise
    if isinstance(value, jax.Array):
        if not isinstance(value, Tracer):
            _plain.add(kind)
        arrays.append(value)
        return _ARRAY
    if hasattr(kind, "__jax_array__"):  # a parameter, say
        arrays.append(value.__jax_array__())
        return _ARRAY
    if kind is tuple or kind is list:
        return (kind, *[_key(item, arrays) for item in value])
    if isinstance(value, (type, np.dtype)):
        return value
    raise _Unfit


def _without_arrays(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_arrays, value))
    if isinstance(value, dict):
        return {name: _without_arrays(item) for name, item in value.items()}
    return _ARRAY if isinstance(value, jax.Array) or hasattr(value, "__jax_array__") else value


def _with_arrays(value: Any, left: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)([_with_arrays(item, left) for item in value])
    return next(left) if value is _ARRAY else value


def _runs_at_once(arrays: list[Any]) -> bool:
    """Whether operations on the arrays are computed now, be it within an eager ``jax.grad``."""
    if get_opaque_trace_state() == _CLEAN:
        return True
    traced = [x for x in arrays if isinstance(x, Tracer)]
    return bool(traced) and all(x.to_concrete_value() is not None for x in traced)
