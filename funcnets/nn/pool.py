"""Layers for the maximum and the average over sliding windows.

Power means are in pool_lp.py, windows that a given output size implies in pool_adaptive.py, random
windows in pool_fractional.py, the way back from a maximum in pool_unpool.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax

from funcnets import functional as F
from funcnets._args import as_int, ntuple
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._window import flag

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]


class _PoolNd(Module):
    """The sliding window; sizes are kept as they were given, which is how they are printed."""

    _ndim: ClassVar[int]
    _function: ClassVar[Callable[..., Any]]

    def _set_window(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1) -> None:
        n = self._ndim
        ntuple("kernel_size", kernel_size, n, minimum=1)
        if stride is not None:
            ntuple("stride", stride, n, minimum=1)
        ntuple("padding", padding, n, minimum=0)
        ntuple("dilation", dilation, n, minimum=1)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding


class _MaxPoolNd(_PoolNd):
    """Maximum over windows; subclasses say in how many dimensions."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self._set_window(kernel_size, stride, padding, dilation)
        self.dilation = dilation
        self.return_indices = flag("return_indices", return_indices)
        self.ceil_mode = flag("ceil_mode", ceil_mode)

    def forward(self, input: jax.Array) -> Any:
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return self._function(input, *window, self.ceil_mode, self.return_indices)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPoolNd):
    r"""Maximum over a window that slides over one axis.

    .. math::
        y_{n,c,t} = \max_{0 \le k < \text{kernel\_size}} x_{n,c,\, t \cdot \text{stride}
        - \text{padding} + k \cdot \text{dilation}}

    Padding counts as less than everything. Of several equal maxima the first one gets the whole
    gradient. A NaN in the window makes the result NaN.

    Args:
        kernel_size: number of elements in a window.
        stride: step of the window; ``kernel_size`` if None.
        padding: elements added on both sides, at most half of ``kernel_size``.
        dilation: distance between the elements of a window.
        return_indices: whether to return the places of the maxima, too, for :class:`MaxUnpool1d`.
        ceil_mode: whether a last window may reach beyond the padded input, as long as it begins
            within the input or its left padding.

    Shape:
        - Input: :math:`(N, C, L)` or :math:`(C, L)`, floating point or integer.
        - Output: :math:`(N, C, L')` or :math:`(C, L')` with :math:`L' = (L + 2 \, \text{padding} -
          \text{dilation} \, (\text{kernel\_size} - 1) - 1) / \text{stride} + 1`, rounded down, or
          up in ``ceil_mode``.

    Raises:
        ArgumentError: an option that cannot be; (on the call) too large a padding.
        ShapeError: (on the call) a wrong rank, an empty axis other than the batch, or no room for
            one window.
        DTypeError: (on the call) an array of booleans or complex numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.MaxPool1d(3, stride=2)(jnp.ones((20, 16, 50))).shape
        (20, 16, 24)

    References:
        torch.nn.MaxPool1d
    """

    _ndim = 1
    _function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPoolNd):
    r"""Maximum over a window that slides over two axes. :class:`MaxPool1d` has the formula.

    Args:
        kernel_size: height and width of the window, one integer or two, as are all sizes here.
        stride: step of the window; ``kernel_size`` if None.
        padding: elements added on both sides of each axis.
        dilation: distance between the elements of a window.
        return_indices: whether to return the places of the maxima in the flattened
            :math:`(H, W)`, too, for :class:`MaxUnpool2d`.
        ceil_mode: as in :class:`MaxPool1d`.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point or integer.
        - Output: :math:`(N, C, H', W')` or :math:`(C, H', W')`, each size as in
          :class:`MaxPool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`MaxPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.MaxPool2d(2)
        MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
        >>> nn.MaxPool2d((3, 2), stride=(2, 1))(jnp.ones((20, 16, 50, 32))).shape
        (20, 16, 24, 31)

    References:
        torch.nn.MaxPool2d
    """

    _ndim = 2
    _function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPoolNd):
    r"""Maximum over a window that slides over three axes. :class:`MaxPool1d` has the formula.

    Args:
        kernel_size: depth, height and width of the window, one integer or three, as are all sizes
            here.
        stride: step of the window; ``kernel_size`` if None.
        padding: elements added on both sides of each axis.
        dilation: distance between the elements of a window.
        return_indices: whether to return the places of the maxima in the flattened
            :math:`(D, H, W)`, too, for :class:`MaxUnpool3d`.
        ceil_mode: as in :class:`MaxPool1d`.

    Shape:
        - Input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`, floating point or integer.
        - Output: :math:`(N, C, D', H', W')` or :math:`(C, D', H', W')`, each size as in
          :class:`MaxPool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`MaxPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.MaxPool3d((1, 2, 2))(jnp.ones((2, 3, 4, 6, 6))).shape
        (2, 3, 4, 3, 3)

    References:
        torch.nn.MaxPool3d
    """

    _ndim = 3
    _function = staticmethod(F.max_pool3d)


class _AvgPoolNd(_PoolNd):
    """Average over windows; subclasses say in how many dimensions."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self._set_window(kernel_size, stride, padding)
        self.ceil_mode = flag("ceil_mode", ceil_mode)
        self.count_include_pad = flag("count_include_pad", count_include_pad)
        if divisor_override is not None and as_int("divisor_override", divisor_override) == 0:
            raise ArgumentError("divisor_override must not be 0")
        self.divisor_override = divisor_override

    def forward(self, input: jax.Array) -> jax.Array:
        window = (self.kernel_size, self.stride, self.padding)
        divisor = () if self.divisor_override is None else (self.divisor_override,)
        return self._function(input, *window, self.ceil_mode, self.count_include_pad, *divisor)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPoolNd):
    r"""Average over a window that slides over one axis.

    .. math::
        y_{n,c,t} = \frac{1}{m_t} \sum_{0 \le k < \text{kernel\_size}}
        x_{n,c,\, t \cdot \text{stride} - \text{padding} + k}

    where :math:`m_t` is the number of elements of the window, without those beyond the right
    padding (``ceil_mode``) and, unless ``count_include_pad``, without the padding. 16-bit floats
    are summed in float32.

    Args:
        kernel_size: number of elements in a window.
        stride: step of the window; ``kernel_size`` if None.
        padding: zeros added on both sides, at most half of ``kernel_size``.
        ceil_mode: whether a last window may reach beyond the padded input, as long as it begins
            within the input or its left padding.
        count_include_pad: whether the padding counts in the average.

    Shape:
        - Input: :math:`(N, C, L)` or :math:`(C, L)`, floating point.
        - Output: :math:`(N, C, L')` or :math:`(C, L')` with :math:`L' = (L + 2 \, \text{padding} -
          \text{kernel\_size}) / \text{stride} + 1`, rounded down, or up in ``ceil_mode``.

    Raises:
        ArgumentError: an option that cannot be; (on the call) too large a padding.
        ShapeError: (on the call) a wrong rank, an empty axis other than the batch, or no room for
            one window.
        DTypeError: (on the call) an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AvgPool1d(3, stride=2)(jnp.arange(1.0, 8.0).reshape(1, 1, 7)).tolist()
        [[[2.0, 4.0, 6.0]]]

    References:
        torch.nn.AvgPool1d
    """

    _ndim = 1
    _function = staticmethod(F.avg_pool1d)

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        window = (self.kernel_size, self.stride, self.padding)
        self.kernel_size, self.stride, self.padding = (ntuple("size", v, 1) for v in window)


class AvgPool2d(_AvgPoolNd):
    r"""Average over a window that slides over two axes. :class:`AvgPool1d` has the formula.

    Args:
        kernel_size: height and width of the window, one integer or two, as are all sizes here.
        stride: step of the window; ``kernel_size`` if None.
        padding: zeros added on both sides of each axis.
        ceil_mode: as in :class:`AvgPool1d`.
        count_include_pad: whether the padding counts in the average.
        divisor_override: what the sums are divided by instead of the number of elements.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point.
        - Output: :math:`(N, C, H', W')` or :math:`(C, H', W')`, each size as in
          :class:`AvgPool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`AvgPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AvgPool2d(3, stride=2, padding=1)
        AvgPool2d(kernel_size=3, stride=2, padding=1)
        >>> nn.AvgPool2d(3, stride=2, padding=1)(jnp.ones((1, 3, 7, 7))).shape
        (1, 3, 4, 4)

    References:
        torch.nn.AvgPool2d
    """

    _ndim = 2
    _function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPoolNd):
    r"""Average over a window that slides over three axes. :class:`AvgPool1d` has the formula.

    Args:
        kernel_size: depth, height and width of the window, one integer or three, as are all sizes
            here.
        stride: step of the window; ``kernel_size`` if None.
        padding: zeros added on both sides of each axis.
        ceil_mode: as in :class:`AvgPool1d`.
        count_include_pad: whether the padding counts in the average.
        divisor_override: what the sums are divided by instead of the number of elements.

    Shape:
        - Input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`, floating point.
        - Output: :math:`(N, C, D', H', W')` or :math:`(C, D', H', W')`, each size as in
          :class:`AvgPool1d`.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`AvgPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AvgPool3d((1, 2, 2))(jnp.ones((2, 3, 4, 6, 6))).shape
        (2, 3, 4, 3, 3)

    References:
        torch.nn.AvgPool3d
    """

    _ndim = 3
    _function = staticmethod(F.avg_pool3d)
