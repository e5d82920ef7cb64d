"""Layers for the p-norm over sliding windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import jax

from funcnets import functional as F
from funcnets._args import ntuple
from funcnets.core.module import Module
from funcnets.functional._window import flag
from funcnets.functional.pool_lp import exponent

__all__ = ["LPPool1d", "LPPool2d", "LPPool3d"]


class _LPPoolNd(Module):
    """p-norm over windows; subclasses say in how many dimensions."""

    _ndim: ClassVar[int]
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(
        self,
        norm_type: float,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        exponent(norm_type)
        ntuple("kernel_size", kernel_size, self._ndim, minimum=1)
        if stride is not None:
            ntuple("stride", stride, self._ndim, minimum=1)
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = flag("ceil_mode", ceil_mode)

    def forward(self, input: jax.Array) -> jax.Array:
        window = (self.kernel_size, self.stride, self.ceil_mode)
        return self._function(input, self.norm_type, *window)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPoolNd):
    r"""p-norm of a window that slides over one axis.

    .. math::
        y = \Bigl(\sum_{x \in \text{window}} x^p\Bigr)^{1/p}

    There is no absolute value: with an odd ``p`` a negative sum gives NaN. The gradient is 0 where
    the sum is 0. A window cut off by ``ceil_mode`` counts as if its missing elements were the mean
    of the others. ``p`` may be infinite: the largest (``inf``) or smallest (``-inf``) magnitude.

    Args:
        norm_type: the exponent ``p``, not 0.
        kernel_size: number of elements in a window.
        stride: step of the window; ``kernel_size`` if None.
        ceil_mode: whether a last window may reach beyond the input.

    Shape:
        - Input: :math:`(N, C, L)` or :math:`(C, L)`, floating point.
        - Output: :math:`(N, C, L')` or :math:`(C, L')` with
          :math:`L' = (L - \text{kernel\_size}) / \text{stride} + 1`, rounded down, or up in
          ``ceil_mode``.

    Raises:
        ArgumentError: an option that cannot be.
        ShapeError: (on the call) a wrong rank, an empty axis other than the batch, or no room for
            one window.
        DTypeError: (on the call) an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LPPool1d(2, 3, stride=2)(jnp.ones((20, 16, 50))).shape
        (20, 16, 24)

    References:
        torch.nn.LPPool1d
    """

    _ndim = 1
    _function = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPoolNd):
    r"""p-norm of a window that slides over two axes. :class:`LPPool1d` has the formula.

    Args:
        norm_type: the exponent, not 0.
        kernel_size: height and width of the window, one integer or two.
        stride: step of the window; ``kernel_size`` if None.
        ceil_mode: as in :class:`LPPool1d`.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point.
        - Output: :math:`(N, C, H', W')` or :math:`(C, H', W')`, each size as in
          :class:`LPPool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`LPPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LPPool2d(1.2, (3, 2), stride=(2, 1))(jnp.ones((20, 16, 50, 32))).shape
        (20, 16, 24, 31)

    References:
        torch.nn.LPPool2d
    """

    _ndim = 2
    _function = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPoolNd):
    r"""p-norm of a window that slides over three axes. :class:`LPPool1d` has the formula.

    Args:
        norm_type: the exponent, not 0.
        kernel_size: depth, height and width of the window, one integer or three.
        stride: step of the window; ``kernel_size`` if None.
        ceil_mode: as in :class:`LPPool1d`.

    Shape:
        - Input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`, floating point.
        - Output: :math:`(N, C, D', H', W')` or :math:`(C, D', H', W')`, each size as in
          :class:`LPPool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`LPPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LPPool3d(2, 2)(jnp.ones((2, 3, 4, 6, 6))).shape
        (2, 3, 2, 3, 3)

    References:
        torch.nn.LPPool3d
    """

    _ndim = 3
    _function = staticmethod(F.lp_pool3d)
