"""Layers that resize sequences, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from funcnets import functional as F
from funcnets._args import choice
from funcnets.core.module import Module
from funcnets.functional._window import flag
from funcnets.functional.interpolate import MODES, integers_for_axes, numbers_for_axes

__all__ = ["Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"]


class Upsample(Module):
    r"""Resizes the spatial axes, up or down; ``nn.functional.interpolate`` says how.

    Args:
        size: the wanted size, one integer or one for each axis.
        scale_factor: the wanted size as a multiple of the input's, rounded down; one number or a
            tuple of one for each axis. Either this or ``size``.
        mode: ``'nearest'``, ``'nearest-exact'``, ``'linear'`` (1D), ``'bilinear'`` (2D),
            ``'bicubic'`` (2D), ``'trilinear'`` (3D) or ``'area'``.
        align_corners: whether the corner elements of input and output coincide; False if None. For
            the linear and cubic modes only.
        recompute_scale_factor: with ``scale_factor``: whether the places in the input follow from
            the rounded size rather than from the factor.

    Shape:
        - Input: :math:`(N, C, L)`, :math:`(N, C, H, W)` or :math:`(N, C, D, H, W)`, floating
          point; uint8, too, with the nearest modes.
        - Output: likewise, of the wanted size.

    Raises:
        ArgumentError: an unknown mode, sizes or factors that are no numbers; (on the call) both or
            none of ``size`` and ``scale_factor``, or options that do not fit to the mode or input.
        ShapeError: (on the call) a wrong rank, an empty axis other than the batch, or an empty
            output.
        DTypeError: (on the call) an array of integers or complex numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Upsample(scale_factor=2, mode="bilinear")
        Upsample(scale_factor=2.0, mode='bilinear')
        >>> nn.Upsample(scale_factor=2, mode="bilinear")(jnp.ones((1, 3, 5, 6))).shape
        (1, 3, 10, 12)

    References:
        torch.nn.Upsample
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        if size is not None:
            integers_for_axes(size, None)
        self.size = size
        self.scale_factor = None
        if scale_factor is not None:
            factors = numbers_for_axes(scale_factor, None)
            self.scale_factor = factors if isinstance(scale_factor, Sequence) else factors[0]
        self.mode = choice("mode", mode, MODES)
        self.align_corners = None if align_corners is None else flag("align_corners", align_corners)
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: jax.Array) -> jax.Array:
        target = (self.size, self.scale_factor, self.mode)
        return F.interpolate(input, *target, self.align_corners, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    r"""Resizes images by repeating pixels: :class:`Upsample` with ``mode='nearest'``.

    Args:
        size: the wanted size, one integer or two.
        scale_factor: the wanted size as a multiple of the input's, one number or two.

    Shape:
        - Input: :math:`(N, C, H, W)`, floating point or uint8.
        - Output: likewise, of the wanted size.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`Upsample`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.UpsamplingNearest2d(scale_factor=2)(jnp.ones((1, 3, 5, 6))).shape
        (1, 3, 10, 12)

    References:
        torch.nn.UpsamplingNearest2d
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    r"""Resizes images bilinearly with aligned corners.

    :class:`Upsample` with ``mode='bilinear'`` and ``align_corners=True``.

    Args:
        size: the wanted size, one integer or two.
        scale_factor: the wanted size as a multiple of the input's, one number or two.

    Shape:
        - Input: :math:`(N, C, H, W)`, floating point.
        - Output: likewise, of the wanted size.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`Upsample`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.UpsamplingBilinear2d(4)(jnp.ones((1, 3, 2, 2))).shape
        (1, 3, 4, 4)

    References:
        torch.nn.UpsamplingBilinear2d
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
