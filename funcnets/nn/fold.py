"""Layers that cut images into patches and put patches together."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from funcnets import functional as F
from funcnets.core.module import Module
from funcnets.functional._window import exact_ints

__all__ = ["Fold", "Unfold"]


class Unfold(Module):
    r"""Cuts images into overlapping patches, one column for each.

    Column :math:`l` of the output holds the patch that a kernel meets at its :math:`l`-th place,
    in row-major order: channels first, then the rows and columns of the kernel.

    Args:
        kernel_size: size of a patch, one integer or two, as are all sizes here.
        dilation: distance between the elements of a patch.
        padding: zeros added on both sides of each axis.
        stride: step from patch to patch.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point, complex or boolean.
        - Output: :math:`(N, C K_H K_W, L)` or :math:`(C K_H K_W, L)` with :math:`L` the product
          over both axes of :math:`\lfloor (\text{size} + 2 \, \text{padding} - \text{dilation} \,
          (\text{kernel\_size} - 1) - 1) / \text{stride} \rfloor + 1`.

    Raises:
        ArgumentError: an option that cannot be.
        ShapeError: (on the call) a wrong rank, an empty axis other than the batch, or no room for
            one patch.
        DTypeError: (on the call) an array of integers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Unfold((2, 3))(jnp.ones((2, 5, 3, 4))).shape
        (2, 30, 4)

    References:
        torch.nn.Unfold
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        _check(kernel_size, dilation, padding, stride)
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: jax.Array) -> jax.Array:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
            f"stride={self.stride}"
        )


class Fold(Module):
    r"""Puts patches back to their places and adds them up where they overlap.

    The adjoint of :class:`Unfold` with the same options. It is no inverse: an element comes back
    as often as there are patches that hold it.

    Args:
        output_size: size of the images, one integer or two, as are all sizes here.
        kernel_size: size of a patch.
        dilation: distance between the elements of a patch.
        padding: elements cut off both sides of each axis.
        stride: step from patch to patch.

    Shape:
        - Input: :math:`(N, C K_H K_W, L)` or :math:`(C K_H K_W, L)`, floating point or complex.
        - Output: :math:`(N, C, H, W)` or :math:`(C, H, W)`, of ``output_size``.

    Raises:
        ArgumentError: an option that cannot be.
        ShapeError: (on the call) a wrong rank, or columns that do not make patches of images of
            that size.
        DTypeError: (on the call) an array that is not of floating point or complex numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Fold((4, 5), (2, 2))(jnp.ones((1, 12, 12))).shape
        (1, 3, 4, 5)

    References:
        torch.nn.Fold
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        kernel_size: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        stride: int | Sequence[int] = 1,
    ) -> None:
        super().__init__()
        exact_ints("output_size", output_size, 2, minimum=1)
        _check(kernel_size, dilation, padding, stride)
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: jax.Array) -> jax.Array:
        window = (self.kernel_size, self.dilation, self.padding, self.stride)
        return F.fold(input, self.output_size, *window)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )


def _check(
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int],
    padding: int | Sequence[int],
    stride: int | Sequence[int],
) -> None:
    """Refuse now what every call would refuse."""
    exact_ints("kernel_size", kernel_size, 2, minimum=1)
    exact_ints("dilation", dilation, 2, minimum=1)
    exact_ints("padding", padding, 2, minimum=0)
    exact_ints("stride", stride, 2, minimum=1)
