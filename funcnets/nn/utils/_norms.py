"""The arithmetic of weight and spectral normalisation, which exist in two interfaces each.

The functions are compiled, once for each shape, because they run outside of compiled code, too: when a
normalised weight is read, and when the first vectors of a power iteration are found.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnets import functional as F
from funcnets._args import as_int
from funcnets.core.derived import draw_one
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._numeric import widen
from funcnets.init import normal
from funcnets.nn.conv_transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

__all__ = [
    "as_matrix",
    "check_dim",
    "default_dim",
    "first_vectors",
    "norm_except_dim",
    "power_iteration",
    "sigma",
    "unit_vector",
    "weight_norm",
]


# --- weight normalisation ---------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=1)
def norm_except_dim(v: jax.Array, dim: int) -> jax.Array:
    """The Euclidean norms of the slices along ``dim``; of the whole array, as a number, if it is -1.

    Args:
        v: the array.
        dim: an axis; -1 is not the last one but none, as in PyTorch.
    """
    wide = widen(v)
    axes = None if dim == -1 else tuple(i for i in range(v.ndim) if i != dim % v.ndim)
    squares = jnp.sum(jnp.square(jnp.abs(wide)), axes, keepdims=axes is not None)
    return jnp.sqrt(squares).astype(v.dtype)


@functools.partial(jax.jit, static_argnums=2)
def weight_norm(v: jax.Array, g: jax.Array, dim: int) -> jax.Array:
    """The array with the directions of ``v`` and the norms ``g``."""
    scale = g / norm_except_dim(v, dim)
    return v * jnp.broadcast_to(scale, v.shape)


def check_dim(dim: Any, ndim: int) -> int:
    """``dim`` as an axis; None, which is -1 here, stays."""
    dim = -1 if dim is None else as_int("dim", dim)
    if not -ndim <= dim < max(ndim, 1):
        raise ArgumentError(
            f"dim must be in the range of [{-ndim}, {ndim - 1}] for a weight of {ndim} dimensions, but got {dim}"
        )
    return dim


# --- spectral normalisation -------------------------------------------------------------------


def default_dim(module: Module, dim: int | None) -> int:
    """The axis of the outputs in a layer's weight."""
    transposed = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
    return dim if dim is not None else int(isinstance(module, transposed))


@functools.partial(jax.jit, static_argnums=1)
def as_matrix(weight: jax.Array, dim: int) -> jax.Array:
    """A matrix whose rows belong to the axis ``dim``."""
    return jnp.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)


@functools.partial(jax.jit, static_argnames=("steps", "eps", "u_first"))
def power_iteration(
    matrix: jax.Array, u: jax.Array, v: jax.Array, steps: int, eps: float, u_first: bool
) -> tuple[jax.Array, jax.Array]:
    """Bring ``u`` and ``v`` nearer to the first singular vectors; no gradient goes through this.

    Args:
        matrix: the matrix.
        u: a vector of the length of its columns.
        v: a vector of the length of its rows.
        steps: how often.
        eps: the least norm that is divided by.
        u_first: which of the two is computed from the other first.
    """
    matrix = jax.lax.stop_gradient(matrix)

    def step(_: Any, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u, v = pair
        new_u: Callable[..., Any] = lambda v: F.normalize(matrix @ v, dim=0, eps=eps)  # noqa: E731
        new_v: Callable[..., Any] = lambda u: F.normalize(matrix.conj().T @ u, dim=0, eps=eps)  # noqa: E731
        if u_first:
            u = new_u(v)
            return u, new_v(u)
        v = new_v(u)
        return new_u(v), v

    u, v = jax.lax.stop_gradient((u, v))
    return step(0, (u, v)) if steps == 1 else jax.lax.fori_loop(0, steps, step, (u, v))


@jax.jit
def sigma(matrix: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """The first singular value, from approximate singular vectors."""
    return jnp.vdot(u, matrix @ v)


def unit_vector(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A vector of a uniformly distributed direction: an initializer."""
    return _direction(draw_one(normal(), tuple(shape), dtype, key))


@jax.jit
def _direction(x: jax.Array) -> jax.Array:
    return F.normalize(x, dim=0)


def first_vectors(
    key: jax.Array, weight: jax.Array, dim: int, eps: float
) -> tuple[jax.Array, jax.Array]:
    """Vectors that are near to the first singular ones already, from random ones."""
    matrix = as_matrix(weight, dim)
    v = draw_one(normal(), matrix.shape[1:], matrix.dtype, key)
    u = jnp.zeros(matrix.shape[:1], matrix.dtype)
    return power_iteration(matrix, u, v, steps=15, eps=eps, u_first=True)
