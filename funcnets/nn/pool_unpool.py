"""Layers for the way back from max pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import jax

from funcnets import functional as F
from funcnets._args import ntuple
from funcnets.core.module import Module

__all__ = ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]


class _MaxUnpoolNd(Module):
    """Maxima back to their places; subclasses say in how many dimensions."""

    _ndim: ClassVar[int]
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
    ) -> None:
        super().__init__()
        n = self._ndim
        self.kernel_size = ntuple("kernel_size", kernel_size, n, minimum=1)
        step = kernel_size if stride is None else stride
        self.stride = ntuple("stride", step, n, minimum=1)
        self.padding = ntuple("padding", padding, n, minimum=0)

    def forward(
        self, input: jax.Array, indices: jax.Array, output_size: Sequence[int] | None = None
    ) -> jax.Array:
        window = (self.kernel_size, self.stride, self.padding)
        return self._function(input, indices, *window, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpoolNd):
    r"""Puts maxima back to their places along one axis and zeros everywhere else.

    ``MaxPool1d(..., return_indices=True)`` gives both inputs. Several windows may have had the
    same maximum: its place is written once, and each of them gets its gradient.

    Args:
        kernel_size: that of the pooling.
        stride: that of the pooling; ``kernel_size`` if None.
        padding: that of the pooling.

    Shape:
        - Input: :math:`(N, C, L)` or :math:`(C, L)`, floating point.
        - Indices: integers of the same shape. An index outside of the output, which PyTorch
          refuses, leaves its value out.
        - output_size, optional: the length of the output, alone or as the last of its shape; less
          than ``stride`` away from the default.
        - Output: :math:`(N, C, L')` or :math:`(C, L')` with
          :math:`L' = (L - 1) \, \text{stride} - 2 \, \text{padding} + \text{kernel\_size}`.

    Raises:
        ArgumentError: an option that cannot be; (on the call) an ``output_size`` out of reach.
        ShapeError: (on the call) input and indices differ in shape, or have a wrong rank.
        DTypeError: (on the call) an input that is not floating point, or indices that are not
            integers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> pool, unpool = nn.MaxPool1d(2, return_indices=True), nn.MaxUnpool1d(2)
        >>> unpool(*pool(jnp.asarray([[[1.0, 3.0, 2.0, 2.0]]]))).tolist()
        [[[0.0, 3.0, 2.0, 0.0]]]

    References:
        torch.nn.MaxUnpool1d
    """

    _ndim = 1
    _function = staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpoolNd):
    r"""Puts maxima back to their places in a plane and zeros everywhere else.

    Args:
        kernel_size: that of the pooling, one integer or two, as are all sizes here.
        stride: that of the pooling; ``kernel_size`` if None.
        padding: that of the pooling.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point.
        - Indices: integers of the same shape, places in the flattened plane of the output.
        - output_size, optional: the size of the output, with or without its first axes.
        - Output: :math:`(N, C, H', W')` or :math:`(C, H', W')`, each size as in
          :class:`MaxUnpool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`MaxUnpool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> values, indices = nn.MaxPool2d(2, return_indices=True)(jnp.ones((1, 1, 5, 5)))
        >>> nn.MaxUnpool2d(2)(values, indices, output_size=(1, 1, 5, 5)).shape
        (1, 1, 5, 5)

    References:
        torch.nn.MaxUnpool2d
    """

    _ndim = 2
    _function = staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpoolNd):
    r"""Puts maxima back to their places in a volume and zeros everywhere else.

    Args:
        kernel_size: that of the pooling, one integer or three, as are all sizes here.
        stride: that of the pooling; ``kernel_size`` if None.
        padding: that of the pooling.

    Shape:
        - Input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`, floating point.
        - Indices: integers of the same shape, places in the flattened volume of the output.
        - output_size, optional: the size of the output, with or without its first axes.
        - Output: :math:`(N, C, D', H', W')` or :math:`(C, D', H', W')`, each size as in
          :class:`MaxUnpool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`MaxUnpool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> values, indices = nn.MaxPool3d(2, return_indices=True)(jnp.ones((3, 4, 4, 4)))
        >>> nn.MaxUnpool3d(2)(values, indices).shape
        (3, 4, 4, 4)

    References:
        torch.nn.MaxUnpool3d
    """

    _ndim = 3
    _function = staticmethod(F.max_unpool3d)
