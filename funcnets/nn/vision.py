"""Layers that rearrange channels and pixels."""

from __future__ import annotations

import jax

from funcnets import functional as F
from funcnets._args import positive
from funcnets.core.module import Module

__all__ = ["ChannelShuffle", "PixelShuffle", "PixelUnshuffle"]


class PixelShuffle(Module):
    r"""Moves channels into space: each block of :math:`r^2` channels becomes :math:`r \times r` pixels.

    .. math::
        y_{c,\, h r + i,\, w r + j} = x_{c r^2 + i r + j,\, h,\, w}

    Args:
        upscale_factor: the :math:`r`.

    Shape:
        - Input: :math:`(*, C r^2, H, W)`, of any dtype.
        - Output: :math:`(*, C, H r, W r)`.

    Raises:
        ArgumentError: ``upscale_factor`` is not a positive integer.
        ShapeError: (on the call) fewer than three axes, or channels that :math:`r^2` does not
            divide.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.PixelShuffle(3)(jnp.ones((1, 9, 4, 4))).shape
        (1, 1, 12, 12)

    References:
        Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
        Convolutional Neural Network, 2016. torch.nn.PixelShuffle
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = positive("upscale_factor", upscale_factor)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    r"""Moves space into channels: the inverse of :class:`PixelShuffle`.

    Args:
        downscale_factor: the :math:`r`.

    Shape:
        - Input: :math:`(*, C, H r, W r)`, of any dtype.
        - Output: :math:`(*, C r^2, H, W)`.

    Raises:
        ArgumentError: ``downscale_factor`` is not a positive integer.
        ShapeError: (on the call) fewer than three axes, or a height or width that :math:`r` does
            not divide.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.PixelUnshuffle(3)(jnp.ones((1, 1, 12, 12))).shape
        (1, 9, 4, 4)

    References:
        torch.nn.PixelUnshuffle
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = positive("downscale_factor", downscale_factor)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    r"""Deals the channels out: the first of each group, then the second of each, and so on.

    Args:
        groups: number of groups.

    Shape:
        - Input: :math:`(N, C, *)` with at least one axis after the channels, of any dtype.
        - Output: an array of the same shape.

    Raises:
        ArgumentError: ``groups`` is not a positive integer.
        ShapeError: (on the call) fewer than three axes, or channels that ``groups`` does not
            divide.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ChannelShuffle(2)(jnp.arange(4).reshape(1, 4, 1)).ravel().tolist()
        [0, 2, 1, 3]

    References:
        Zhang et al., ShuffleNet, 2017. torch.nn.ChannelShuffle
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = positive("groups", groups)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
