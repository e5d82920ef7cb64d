"""The inputs with which a model is looked at: arrays, shapes in their place, and trees of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from funcnets._args import describe, resolve_dtype
from funcnets.core.cell import Cell, is_shape
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, DTypeError

__all__ = ["OTHER_DTYPES", "as_inputs", "module_of", "shapes_are_floats"]

OTHER_DTYPES = "pass an array, or jax.ShapeDtypeStruct(shape, dtype), for another dtype"


def as_inputs(
    inputs: Any, kwargs: Any, dtypes: Any = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with a ``ShapeDtypeStruct`` in the place of arrays and of shapes.

    Args:
        inputs: positional ones; a tuple of ints is a shape, trees of tuples, lists and dicts are looked into.
        kwargs: those with names, likewise.
        dtypes: of the shapes: one for all, or a list; float32 by default.
    """
    many = isinstance(dtypes, (list, tuple))
    left = iter(dtypes if many else ())
    shapes = 0

    def convert(value: Any) -> Any:
        nonlocal shapes
        if isinstance(value, tuple) and is_shape(value):
            if min(value, default=0) < 0:
                raise ArgumentError(f"a shape has no negative numbers, but got {value}")
            shapes += 1
            dtype = next(left, None) if many else dtypes
            return jax.ShapeDtypeStruct(value, resolve_dtype(dtype))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(convert, value))
        if isinstance(value, (tuple, list)):
            return type(value)(map(convert, value))
        if isinstance(value, dict):
            return type(value)((name, convert(item)) for name, item in value.items())
        if isinstance(value, Cell) or (hasattr(value, "shape") and hasattr(value, "dtype")):
            return jax.ShapeDtypeStruct(tuple(value.shape), value.dtype)
        return value

    args = tuple(map(convert, inputs))
    words = {name: convert(value) for name, value in kwargs.items()}
    if many and shapes != len(dtypes):
        raise ArgumentError(f"{len(dtypes)} dtypes were given for {shapes} shapes")
    return args, words


@contextmanager
def shapes_are_floats(remedy: str) -> Iterator[None]:
    """Let an error about a dtype say that a shape stands for a float32 array, and what to do about it."""
    try:
        yield
    except DTypeError as error:
        error.add_note(f"a shape stands for a float32 array: {remedy}")
        raise


def module_of(model: Any, what: str, kinds: str = "a Module") -> Module:
    """The module that is looked at: ``model``, or that of which it is the compiled call (``fn.jit(model)``)."""
    inner = model if isinstance(model, Module) else getattr(model, "__wrapped__", None)
    if not isinstance(inner, Module):
        raise DTypeError(f"{what} takes {kinds}, but got {describe(model)}")
    return inner
