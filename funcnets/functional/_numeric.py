"""Checks and conversions that the activations, dropouts, distances and losses share.

They are about the kind of number an array holds, and about axes; nothing here is public.
"""

from __future__ import annotations

import numbers
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import as_array, as_int, describe, floating
from funcnets.errors import ArgumentError, DTypeError, RngError, ShapeError

__all__ = [
    "absolute",
    "as_array",
    "axis_of",
    "inexact",
    "need_key",
    "real",
    "real_or_integer",
    "widen",
]


def number(name: str, value: Any) -> Any:
    """``value`` if it is a real number; NumPy's scalars become Python's."""
    if not isinstance(value, numbers.Real):
        raise ArgumentError(f"{name} must be a number, but got {describe(value)}")
    return value if isinstance(value, (int, float)) else float(value)


def real(name: str, x: Any) -> jax.Array:
    """``x`` if it is a floating point array and not a complex one."""
    x = floating(name, x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise DTypeError(
            f"{name} must be a real floating point array, but got {describe(x)}; "
            f"treat {name}.real and {name}.imag as two arrays"
        )
    return x


def real_or_integer(name: str, x: Any) -> jax.Array:
    """``x`` if its elements can be ordered and are not booleans."""
    if hasattr(x, "dtype") and hasattr(x, "shape") and jnp.issubdtype(x.dtype, jnp.integer):
        return as_array(name, x)
    return real(name, x)


def inexact(name: str, x: Any) -> jax.Array:
    """``x`` as it is if it is floating point or complex, and in float32 if it is not."""
    whole = hasattr(x, "dtype") and hasattr(x, "shape") and not jnp.issubdtype(x.dtype, jnp.inexact)
    if whole and (jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.bool_)):
        return jnp.asarray(x).astype(jnp.float32)
    return floating(name, x)


def absolute(x: jax.Array) -> jax.Array:
    """The absolute value, with PyTorch's derivative at 0, which is 0; ``jnp.abs`` has 1 there."""
    return x * jnp.sign(x)


def widen(x: jax.Array) -> jax.Array:
    """``x`` in float32 if its dtype is narrower: the dtype in which sums and losses accumulate."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def axis_of(name: str, dim: Any, x: jax.Array) -> int:
    """``dim`` counted from the front; an array without axes counts as one with one axis."""
    dim, rank = as_int(name, dim), max(x.ndim, 1)
    if not -rank <= dim < rank:
        raise ShapeError(
            f"{name} must be between {-rank} and {rank - 1} for {describe(x)}, but got {dim}"
        )
    return dim % rank


def need_key(function: str, rng: jax.Array | None) -> jax.Array:
    """``rng`` if there is one."""
    if rng is None:
        raise RngError(
            f"{function} draws random numbers and got rng=None; "
            f"pass a key, for example {function}(..., rng=jax.random.key(0))"
        )
    return rng
