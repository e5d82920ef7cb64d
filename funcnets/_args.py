"""Argument checks and small conversions that several families share.

Everything here is about arguments, nothing is about mathematics. Each check raises one of
``funcnets.errors`` with what was expected, what came and what to do.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets.errors import ArgumentError, DTypeError, MissingExtraError, ShapeError

__all__ = [
    "as_array",
    "as_int",
    "channel_axis_check",
    "choice",
    "describe",
    "floating",
    "integer",
    "ntuple",
    "optional",
    "positive",
    "probability",
    "reduce_loss",
    "require_array",
    "require_ndim",
    "resolve_dtype",
]


def describe(value: Any) -> str:
    """``float32[3, 4]`` for an array, the type's name and a short repr for anything else."""
    if isinstance(value, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)) or (
        hasattr(value, "shape") and hasattr(value, "dtype") and isinstance(value.shape, tuple)
    ):
        dims = ", ".join(str(d) for d in value.shape)
        return f"{value.dtype}[{dims}]"
    if isinstance(value, (tuple, list)) and value and all(hasattr(v, "shape") for v in value):
        inner = ", ".join(describe(v) for v in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    text = repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    return (
        text
        if isinstance(value, (bool, int, float, str, type(None)))
        else f"{type(value).__name__} {text}"
    )


def as_int(name: str, value: Any) -> int:
    """``value`` as a Python int; booleans and floats are refused."""
    if isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} must be an integer, but got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentError(f"{name} must be an integer, but got {describe(value)}") from None


def positive(name: str, value: Any, *, minimum: int = 1) -> int:
    """``value`` as an int that is at least ``minimum``."""
    number = as_int(name, value)
    if number < minimum:
        kind = (
            "positive"
            if minimum == 1
            else "non-negative"
            if minimum == 0
            else f"at least {minimum}"
        )
        raise ArgumentError(f"{name} must be {kind}, but got {number}")
    return number


def ntuple(name: str, value: Any, n: int, *, minimum: int | None = None) -> tuple[int, ...]:
    """One int repeated ``n`` times, or a sequence of exactly ``n`` ints (of one, repeated)."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        items = tuple(as_int(name, v) for v in value)
        if len(items) == 1:
            items = items * n
        if len(items) != n:
            raise ArgumentError(
                f"{name} must be one integer or {n} of them, but got {len(items)}: {items}"
            )
    else:
        items = (as_int(name, value),) * n
    if minimum is not None:
        for item in items:
            positive(name, item, minimum=minimum)
    return items


def choice(name: str, value: Any, options: Sequence[Any]) -> Any:
    """``value`` if it is one of ``options``."""
    if value not in options:
        listed = ", ".join(repr(o) for o in options)
        raise ArgumentError(f"{name} must be one of {listed}, but got {value!r}")
    return value


def probability(name: str, p: float) -> float:
    """``p`` if it is a number between 0 and 1."""
    if not isinstance(p, (int, float, np.floating)) or not 0 <= p <= 1:
        raise ArgumentError(f"{name} must be a number between 0 and 1, but got {describe(p)}")
    return p


def require_array(name: str, x: Any, kind: str = "an array") -> None:
    """Refuse what is not an array, such as a number or a list."""
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        remedy = "wrap it in jnp.asarray(...)"
        if isinstance(x, (tuple, dict)) and any(
            hasattr(leaf, "dtype") for leaf in jax.tree.leaves(x)
        ):
            remedy = "pass the array in it that is meant"  # such as the output that an LSTM gives with its state
        raise DTypeError(f"{name} must be {kind}, but got {describe(x)}; {remedy}")


def as_array(name: str, x: Any, kind: str = "an array") -> jax.Array:
    """``x`` itself, or a NumPy array, or a Parameter outside of a call, as a JAX array."""
    if isinstance(x, jax.Array):
        return x
    require_array(name, x, kind)
    return x.__jax_array__() if hasattr(x, "__jax_array__") else jnp.asarray(x)


def floating(name: str, x: Any) -> jax.Array:
    """``x`` as a JAX array if it is a floating point or complex array."""
    x = as_array(name, x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise DTypeError(
            f"{name} must be a floating point array, but got {describe(x)}; "
            f"convert it, for example with {name}.astype(jnp.float32)"
        )
    return x


def integer(name: str, x: Any) -> jax.Array:
    """``x`` as a JAX array if it is an array of integers (not of booleans)."""
    x = as_array(name, x, "an array of integers")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise DTypeError(
            f"{name} must be an array of integers, but got {describe(x)}; "
            f"convert it, for example with {name}.astype(jnp.int32)"
        )
    return x


def require_ndim(name: str, x: Any, allowed: Sequence[int], meaning: str) -> None:
    """Refuse an array whose rank is not among ``allowed``; ``meaning`` tells the expected shape."""
    require_array(name, x)
    if x.ndim not in allowed:
        ranks = " or ".join(f"{n}D" for n in allowed)
        raise ShapeError(
            f"expected {ranks} {name} {meaning}, but got {x.ndim}D {name} {describe(x)}"
        )


def channel_axis_check(name: str, x: Any, axis: int, expected: int, argument: str) -> None:
    """Refuse an array whose size along ``axis`` is not what ``argument`` (a hyper-parameter) says."""
    require_array(name, x)
    if x.shape[axis] != expected:
        raise ShapeError(
            f"expected {name} to have {expected} elements along axis {axis} ({argument}={expected}), "
            f"but got {x.shape[axis]}: {name} is {describe(x)}"
        )


def resolve_dtype(dtype: Any) -> jnp.dtype:
    """``dtype`` as a dtype, None as float32, which is PyTorch's default whatever else is enabled."""
    if dtype is None:
        return jnp.dtype("float32")
    try:
        return jnp.dtype(dtype)
    except TypeError:
        raise DTypeError(f"dtype must be a JAX or NumPy dtype, but got {describe(dtype)}") from None


def reduce_loss(loss: jax.Array, reduction: str) -> jax.Array:
    """``'none'`` | ``'mean'`` | ``'sum'`` over all elements."""
    choice("reduction", reduction, ("none", "mean", "sum"))
    if reduction == "mean":
        return jnp.mean(loss)
    if reduction == "sum":
        return jnp.sum(loss)
    return loss


def optional(module: str, extra: str, purpose: str) -> Any:
    """Import an optional package where it is used, or say how to install it.

    Args:
        module: the dotted name to import.
        extra: funcnets' extra that installs it.
        purpose: what needs it, as the beginning of a sentence ("the progress bar").
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if (getattr(error, "name", None) or package).partition(".")[0] != package:
            raise  # it is there, and broken
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed: pip install 'funcnets[{extra}]'",
            name=package,
        ) from None
