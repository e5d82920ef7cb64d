"""Norms, and distances and similarities between vectors.

At the zero vector a norm has no derivative; the gradient there is 0, as in PyTorch, and never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import require_ndim
from funcnets.errors import ArgumentError, UnsupportedError
from funcnets.functional._autocast import in_full
from funcnets.functional._loss import broadcast, common
from funcnets.functional._numeric import absolute, axis_of, number, real, widen

__all__ = ["cosine_similarity", "normalize", "pairwise_distance", "pdist"]


def norm(
    x: jax.Array, p: float, axis: int | tuple[int, ...], *, keepdims: bool = False
) -> jax.Array:
    """The ``p``-norm along ``axis``, for any ``p``, with a finite gradient everywhere."""
    if p == 0:
        return (x != 0).sum(axis, keepdims=keepdims).astype(x.dtype)
    if p == 1:
        return absolute(x).sum(axis, keepdims=keepdims)
    if math.isinf(p):
        return (jnp.max if p > 0 else jnp.min)(absolute(x), axis, keepdims=keepdims)
    # The powers of 0 are put in as constants: their derivatives are infinite for p < 1, and that of
    # the root is for any p.
    zero = x == 0
    size = jnp.where(zero, jnp.ones_like(x), absolute(x))
    powers = jnp.square(x) if p == 2 else jnp.where(zero, jnp.inf if p < 0 else 0.0, size**p)
    total = powers.sum(axis, keepdims=keepdims)
    nothing = total == 0
    positive = jnp.where(nothing, jnp.ones_like(total), total)
    root = jnp.sqrt(positive) if p == 2 else positive ** (1.0 / p)
    return jnp.where(nothing, jnp.zeros_like(total), root)


def normalize(
    input: jax.Array,
    p: float = 2.0,
    dim: int | Sequence[int] | None = 1,
    eps: float = 1e-12,
    out: None = None,
) -> jax.Array:
    r"""Divide vectors by their norm.

    .. math:: y = \frac{x}{\max(\lVert x \rVert_p, \epsilon)}

    Args:
        input: a floating point array.
        p: which norm.
        dim: the axis, or axes, along which the vectors lie; None takes all as one vector.
        eps: the least norm to divide by.
        out: not supported; arrays are immutable.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``p`` is not a number.
        DTypeError: ``input`` is not a real floating point array.
        ShapeError: ``input`` has no axis ``dim``.
        UnsupportedError: ``out`` is given.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.normalize(jnp.array([[3.0, -1.0]]), p=1).tolist()
        [[0.75, -0.25]]

    References:
        torch.nn.functional.normalize
    """
    input = in_full(input)
    if out is not None:
        raise UnsupportedError("out= is not supported: arrays are immutable, use the result")
    p, input = number("p", p), real("input", input)
    dims = dim if isinstance(dim, Sequence) else range(input.ndim) if dim is None else [dim]
    axes = tuple(axis_of("dim", d, input) for d in dims) if input.ndim else ()
    wide = widen(input)
    length = norm(wide, p, axes, keepdims=True)
    # Where the norm is too small the denominator is a constant, for the gradient, too.
    length = jnp.where(length >= eps, length, jnp.full_like(length, eps))
    return (wide / length).astype(input.dtype)


def pairwise_distance(
    x1: jax.Array, x2: jax.Array, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> jax.Array:
    r"""Distances between vectors that correspond to one another, along the last axis.

    .. math:: d = \lVert x_1 - x_2 + \epsilon \rVert_p

    Args:
        x1: vectors, a floating point array of shape ``(*, D)``.
        x2: vectors; the two are broadcast.
        p: which norm.
        eps: added to each difference.
        keepdim: keep the last axis, with size 1.

    Returns:
        An array of shape ``(*,)``, or ``(*, 1)`` with ``keepdim``.

    Raises:
        ArgumentError: ``p`` is not a number.
        DTypeError: neither array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.pairwise_distance(jnp.zeros((3, 4)), jnp.ones((3, 4))).shape
        (3,)

    References:
        torch.nn.functional.pairwise_distance
    """
    x1, x2 = in_full(x1, x2)
    p = number("p", p)
    (x1, x2), dtype = common(x1=x1, x2=x2)
    x1, x2 = broadcast(x1=x1, x2=x2)
    axis = -1 if x1.ndim else ()
    return norm(x1 - x2 + eps, p, axis, keepdims=keepdim).astype(dtype)


def cosine_similarity(x1: jax.Array, x2: jax.Array, dim: int = 1, eps: float = 1e-8) -> jax.Array:
    r"""Cosine of the angle between vectors.

    .. math:: s = \frac{x_1}{\max(\lVert x_1 \rVert_2, \epsilon)} \cdot
        \frac{x_2}{\max(\lVert x_2 \rVert_2, \epsilon)}

    Args:
        x1: a floating point array.
        x2: a floating point array; the two are broadcast.
        dim: the axis of the common shape along which the vectors lie.
        eps: the least norm to divide by, not negative.

    Returns:
        An array of the common shape without axis ``dim``.

    Raises:
        ArgumentError: ``eps`` is negative.
        DTypeError: neither array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not broadcast, or have no axis ``dim``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.cosine_similarity(jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0]])).tolist()
        [1.0]

    References:
        torch.nn.functional.cosine_similarity
    """
    x1, x2 = in_full(x1, x2)
    if not eps >= 0:
        raise ArgumentError(f"eps must not be negative, but got {eps}")
    (x1, x2), dtype = common(x1=x1, x2=x2)
    x1, x2 = broadcast(x1=x1, x2=x2)
    axis = axis_of("dim", dim, x1) if x1.ndim else ()
    axis_of("dim", dim, x1)

    def unit(x: jax.Array) -> jax.Array:
        length = norm(x, 2, axis, keepdims=True)
        return x / jnp.maximum(length, eps)

    return (unit(x1) * unit(x2)).sum(axis).astype(dtype)


def pdist(input: jax.Array, p: float = 2.0) -> jax.Array:
    r"""Distances between all pairs of rows, each pair once.

    .. math:: d_{ij} = \lVert x_i - x_j \rVert_p, \quad i < j

    Args:
        input: a floating point array of shape ``(N, M)``.
        p: which norm, not negative.

    Returns:
        An array of shape ``(N (N - 1) / 2,)``, the pairs in the order (0, 1), (0, 2), ..., (1, 2), ...

    Raises:
        ArgumentError: ``p`` is negative or not a number.
        DTypeError: ``input`` is not a real floating point array.
        ShapeError: ``input`` has not two axes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.pdist(jnp.array([[0.0], [1.0], [3.0]])).tolist()
        [1.0, 3.0, 2.0]

    References:
        torch.nn.functional.pdist
    """
    input = in_full(input)
    input = real("input", input)
    require_ndim("input", input, [2], "of shape (N, M)")
    if not number("p", p) >= 0:
        raise ArgumentError(f"p must not be negative, but got {p}")
    first, second = np.triu_indices(input.shape[0], 1)
    wide = widen(input)
    return norm(wide[first] - wide[second], p, 1).astype(input.dtype)
