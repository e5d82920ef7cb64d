"""Fractional max pooling: windows at random places whose distances give a fractional ratio."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._maximum import Best, answer, positions, running_max, with_indices
from funcnets.functional._numeric import need_key, real, widen
from funcnets.functional._window import Window, check_spatial, exact_ints, flag

__all__ = [
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
]


def fractional_max_pool2d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: jax.Array | None = None,
    *,
    rng: jax.Array | None = None,
) -> Any:
    r"""Maximum over windows that begin at pseudo-random places.

    Along an axis of :math:`n` elements, :math:`m` windows of :math:`k` elements begin at

    .. math::
        a_i = \lfloor (i + u) \, \alpha \rfloor - \lfloor u \, \alpha \rfloor, \quad
        \alpha = \frac{n - k}{m - 1}, \quad a_{m-1} = n - k

    with :math:`u` uniform in :math:`[0, 1)`, drawn for each sample, channel and axis. Ties and
    NaN are as in ``max_pool2d``.

    Args:
        input: ``(N, C, H, W)`` or ``(C, H, W)``, floating point.
        kernel_size: size of the windows, one integer or two.
        output_size: the size of the output, one integer or two.
        output_ratio: the size of the output as a part of that of the input, one number or two;
            used where ``output_size`` is None.
        return_indices: whether to return the places of the maxima in the flattened ``(H, W)``, too.
        _random_samples: the numbers :math:`u`, ``(N, C, 2)``, for the width first; drawn if None.
        rng: key for the draw.

    Returns:
        ``(N, C, H', W')`` or ``(C, H', W')``, or a pair of it and of the indices.

    Raises:
        ArgumentError: neither a size nor a ratio, or an option that cannot be.
        ShapeError: a wrong rank or an empty axis, windows that do not fit, or ``_random_samples``
            of another shape.
        DTypeError: an array that is not of real floating point numbers.
        RngError: there are numbers to draw and no key.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> x = jnp.ones((1, 3, 9, 9))
        >>> F.fractional_max_pool2d(x, 2, output_ratio=0.7, rng=jax.random.key(0)).shape
        (1, 3, 6, 6)

    References:
        Graham, Fractional Max-Pooling, 2014. torch.nn.functional.fractional_max_pool2d
    """
    sizes = (kernel_size, output_size, output_ratio)
    return _fractional(2, input, sizes, return_indices, _random_samples, rng)


def fractional_max_pool3d(
    input: jax.Array,
    kernel_size: int | Sequence[int],
    output_size: int | Sequence[int] | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: jax.Array | None = None,
    *,
    rng: jax.Array | None = None,
) -> Any:
    """Maximum over windows that begin at pseudo-random places; see ``fractional_max_pool2d``.

    Args:
        input: ``(N, C, D, H, W)`` or ``(C, D, H, W)``, floating point.
        kernel_size, output_size, output_ratio: as in ``fractional_max_pool2d``, one number or three.
        return_indices: whether to return the places of the maxima in the flattened ``(D, H, W)``,
            too.
        _random_samples: ``(N, C, 3)``, for the depth first; drawn if None.
        rng: key for the draw.

    Returns:
        ``(N, C, D', H', W')`` or ``(C, D', H', W')``, or a pair of it and of the indices.

    Raises:
        ArgumentError, ShapeError, DTypeError, RngError: as ``fractional_max_pool2d``.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> x = jnp.ones((1, 3, 5, 9, 9))
        >>> F.fractional_max_pool3d(x, 2, (3, 5, 5), rng=jax.random.key(0)).shape
        (1, 3, 3, 5, 5)

    References:
        torch.nn.functional.fractional_max_pool3d
    """
    sizes = (kernel_size, output_size, output_ratio)
    return _fractional(3, input, sizes, return_indices, _random_samples, rng)


fractional_max_pool2d_with_indices = with_indices(fractional_max_pool2d)
fractional_max_pool3d_with_indices = with_indices(fractional_max_pool3d)


def ratios(name: str, value: Any, n: int) -> tuple[float, ...]:
    """One number repeated or exactly ``n`` numbers, all positive."""
    items = tuple(value) if isinstance(value, Sequence) else (value,) * n
    if len(items) != n or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and v > 0 for v in items
    ):
        raise ArgumentError(f"{name} must be one positive number or {n}, but got {describe(value)}")
    return items


def _fractional(
    n: int,
    input: jax.Array,
    sizes: tuple[Any, Any, Any],
    return_indices: bool,
    samples: jax.Array | None,
    rng: jax.Array | None,
) -> Any:
    """Checks, and the draw."""
    function = f"fractional_max_pool{n}d"
    kernel_size, output_size, output_ratio = sizes
    input = real("input", input)
    kernels = exact_ints("kernel_size", kernel_size, n, minimum=1)
    if output_size is None and output_ratio is None:
        raise ArgumentError(f"{function} needs output_size or output_ratio, but got neither")
    check_spatial(function, input, n)
    lengths = input.shape[-n:]
    if output_size is None:
        parts = ratios("output_ratio", output_ratio, n)
        output_size = [int(length * r) for length, r in zip(lengths, parts, strict=True)]
    counts = exact_ints("output_size", output_size, n, minimum=0)
    for length, k, count in zip(lengths, kernels, counts, strict=True):
        # PyTorch wants one element to spare in three dimensions.
        if count + k - 1 > length - (n == 3):
            raise ShapeError(
                f"{function}: {counts} windows of {kernels} elements do not fit into input "
                f"{describe(input)}"
            )
    batch = (input.shape[0] if input.ndim == n + 2 else 1, input.shape[-n - 1])
    if samples is None:
        samples = jax.random.uniform(need_key(function, rng), (*batch, n), widen(input).dtype)
    samples = real("_random_samples", samples)
    if samples.shape != (*batch, n):
        raise ShapeError(
            f"{function}: _random_samples must have the shape {(*batch, n)}, "
            f"but got {describe(samples)}"
        )
    samples = widen(samples).reshape(*input.shape[:-n], n)
    if n == 2:  # PyTorch's samples are for (W, H), but for (D, H, W).
        samples = samples[..., ::-1]
    return _pool(input, samples, kernels, counts, flag("return_indices", return_indices))


@partial(jax.jit, static_argnums=(2, 3, 4), inline=True)
def _pool(
    input: jax.Array,
    samples: jax.Array,
    kernels: tuple[int, ...],
    counts: tuple[int, ...],
    return_indices: bool,
) -> Any:
    """Gather the windows of each axis, the last one first, and take their maxima."""
    n = len(kernels)
    lead = input.ndim - n
    best = Best(input, positions(input, n) if return_indices else None)
    for i in reversed(range(n)):
        axis, k, count = lead + i, kernels[i], counts[i]
        shape = list(best.value.shape)
        members = _members(samples[..., i], shape[axis], k, count)
        shape[axis] = count * k
        ones = [1] * n
        ones[i] = count * k
        index = jnp.broadcast_to(members.reshape(*members.shape[:-1], *ones), shape)
        best = jax.tree.map(partial(jnp.take_along_axis, indices=index, axis=axis), best)
        best = running_max(best, axis, Window(k * count, k, k, 1, 0, 0, count))
    return answer(best)


def _members(sample: jax.Array, length: int, kernel: int, count: int) -> jax.Array:
    """The elements of ``count`` windows along an axis, one window after the other.

    One more axis than ``sample``, which holds a number for each row.
    """
    starts = jnp.full((*sample.shape, count), length - kernel, jnp.int32)
    if count > 1:
        alpha = jnp.asarray(length - kernel, sample.dtype) / (count - 1)
        steps = jnp.arange(count - 1, dtype=sample.dtype)
        places = jnp.floor(jnp.add.outer(sample, steps) * alpha)
        places = places - jnp.floor(sample * alpha)[..., None]
        starts = starts.at[..., :-1].set(places.astype(jnp.int32))
    inside = jnp.add.outer(starts, jnp.arange(kernel, dtype=jnp.int32))
    return inside.reshape(*sample.shape, count * kernel)
