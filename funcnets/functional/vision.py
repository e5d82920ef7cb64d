"""Rearranging channels and pixels. Patches are in fold.py, resizing in interpolate.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from funcnets._args import as_array, describe, positive
from funcnets.errors import ShapeError

__all__ = ["channel_shuffle", "native_channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]


def pixel_shuffle(input: jax.Array, upscale_factor: int) -> jax.Array:
    r"""Moves channels into space: each block of :math:`r^2` channels becomes :math:`r \times r` pixels.

    .. math::
        y_{c,\, h r + i,\, w r + j} = x_{c r^2 + i r + j,\, h,\, w}

    Args:
        input: ``(*, C * r**2, H, W)``, of any dtype.
        upscale_factor: the :math:`r`.

    Returns:
        ``(*, C, H * r, W * r)``.

    Raises:
        ArgumentError: ``upscale_factor`` is not a positive integer.
        ShapeError: fewer than three axes, or channels that ``r**2`` does not divide.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.pixel_shuffle(jnp.ones((1, 9, 4, 4)), 3).shape
        (1, 1, 12, 12)

    References:
        Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
        Convolutional Neural Network, 2016. torch.nn.functional.pixel_shuffle
    """
    r = positive("upscale_factor", upscale_factor)
    *lead, channels, height, width = _image("pixel_shuffle", input := as_array("input", input))
    if channels % r**2:
        raise ShapeError(
            f"pixel_shuffle: upscale_factor={r} needs channels divisible by {r**2}, but input is "
            f"{describe(input)}"
        )
    out = channels // r**2
    x = input.reshape(*lead, out, r, r, height, width)
    n = len(lead)
    x = jnp.transpose(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))  # (*, C, H, r, W, r)
    return x.reshape(*lead, out, height * r, width * r)


def pixel_unshuffle(input: jax.Array, downscale_factor: int) -> jax.Array:
    r"""Moves space into channels: the inverse of ``pixel_shuffle``.

    Args:
        input: ``(*, C, H * r, W * r)``, of any dtype.
        downscale_factor: the :math:`r`.

    Returns:
        ``(*, C * r**2, H, W)``.

    Raises:
        ArgumentError: ``downscale_factor`` is not a positive integer.
        ShapeError: fewer than three axes, or a height or width that ``r`` does not divide.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.pixel_unshuffle(jnp.ones((1, 1, 12, 12)), 3).shape
        (1, 9, 4, 4)

    References:
        torch.nn.functional.pixel_unshuffle
    """
    r = positive("downscale_factor", downscale_factor)
    *lead, channels, height, width = _image("pixel_unshuffle", input := as_array("input", input))
    if height % r or width % r:
        raise ShapeError(
            f"pixel_unshuffle: downscale_factor={r} must divide height and width, but input is "
            f"{describe(input)}"
        )
    x = input.reshape(*lead, channels, height // r, r, width // r, r)
    n = len(lead)
    x = jnp.transpose(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))  # (*, C, r, r, H, W)
    return x.reshape(*lead, channels * r**2, height // r, width // r)


def channel_shuffle(input: jax.Array, groups: int) -> jax.Array:
    r"""Deals the channels out: the first of each group, then the second of each, and so on.

    .. math::
        y_{n,\, i g + k} = x_{n,\, k m + i}

    for :math:`g` groups of :math:`m` channels.

    Args:
        input: ``(N, C, *)`` with at least one axis after the channels, of any dtype.
        groups: the number :math:`g` of groups.

    Returns:
        An array of the same shape.

    Raises:
        ArgumentError: ``groups`` is not a positive integer.
        ShapeError: fewer than three axes, or channels that ``groups`` does not divide.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets.nn.functional as F
        >>> F.channel_shuffle(jnp.arange(4).reshape(1, 4, 1), 2).ravel().tolist()
        [0, 2, 1, 3]

    References:
        Zhang et al., ShuffleNet, 2017. torch.nn.functional.channel_shuffle
    """
    groups = positive("groups", groups)
    input = as_array("input", input)
    if input.ndim < 3:
        raise ShapeError(
            f"channel_shuffle: expected input (N, C, *) of at least 3 axes, but got {describe(input)}"
        )
    batch, channels, *rest = input.shape
    if channels % groups:
        raise ShapeError(
            f"channel_shuffle: groups={groups} must divide the channels, but input is "
            f"{describe(input)}"
        )
    x = input.reshape(batch, groups, channels // groups, *rest)
    return jnp.swapaxes(x, 1, 2).reshape(input.shape)


def native_channel_shuffle(input: jax.Array, groups: int) -> jax.Array:
    """PyTorch's other name for ``channel_shuffle``."""
    return channel_shuffle(input, groups)


def _image(function: str, input: jax.Array) -> tuple[int, ...]:
    """The shape of what has channels, height and width."""
    if input.ndim < 3:
        raise ShapeError(
            f"{function}: expected input (*, C, H, W) of at least 3 axes, but got {describe(input)}"
        )
    return input.shape
