"""Merging adjacent axes and splitting one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from funcnets._args import as_int, describe
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._numeric import as_array, axis_of

__all__ = ["flatten", "unflatten"]


def flatten(input: jax.Array, start_dim: int = 0, end_dim: int = -1) -> jax.Array:
    """Merge the axes from ``start_dim`` to ``end_dim``, both included, into one.

    Args:
        input: any array; a 0D one becomes 1D.
        start_dim: first axis to merge; negative counts from the end.
        end_dim: last axis to merge; negative counts from the end.

    Returns:
        ``(*, product of the merged axes, *)``.

    Raises:
        ShapeError: an axis that ``input`` does not have.
        ArgumentError: ``start_dim`` comes after ``end_dim``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.flatten(jnp.ones((2, 3, 4, 5)), 1, 2).shape
        (2, 12, 5)

    References:
        torch.flatten
    """
    input = jnp.atleast_1d(as_array("input", input))
    start, end = axis_of("start_dim", start_dim, input), axis_of("end_dim", end_dim, input)
    if start > end:
        raise ArgumentError(
            f"start_dim must not come after end_dim, but got start_dim={start_dim}, "
            f"end_dim={end_dim} for input {describe(input)}"
        )
    shape = input.shape
    return input.reshape(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])


def unflatten(input: jax.Array, dim: int, sizes: Sequence[int]) -> jax.Array:
    """Split one axis into several.

    Args:
        input: any array of at least one axis.
        dim: the axis to split; negative counts from the end.
        sizes: the axes that take its place; one of them may be -1 and is then inferred.

    Returns:
        ``(*, *sizes, *)``.

    Raises:
        ShapeError: an axis that ``input`` does not have, or sizes that do not multiply to it.
        ArgumentError: no sizes, negative ones, or more than one -1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.unflatten(jnp.ones((2, 12)), 1, (3, -1)).shape
        (2, 3, 4)

    References:
        torch.unflatten
    """
    input = as_array("input", input)
    if input.ndim == 0:
        raise ShapeError(f"expected input of at least one axis, but got {describe(input)}")
    axis = axis_of("dim", dim, input)
    sizes = tuple(as_int("sizes", size) for size in sizes)
    if not sizes or sizes.count(-1) > 1 or min(sizes) < -1:
        raise ArgumentError(
            f"sizes must be one or more non-negative integers, at most one of them -1, but got {sizes}"
        )
    length, known = input.shape[axis], math.prod(size for size in sizes if size != -1)
    if -1 in sizes and known and length % known == 0:
        sizes = tuple(length // known if size == -1 else size for size in sizes)
    if -1 in sizes or math.prod(sizes) != length:
        raise ShapeError(
            f"expected sizes that multiply to {length}, the size of axis {dim} of "
            f"input {describe(input)}, but got {sizes}"
        )
    return input.reshape(*input.shape[:axis], *sizes, *input.shape[axis + 1 :])
