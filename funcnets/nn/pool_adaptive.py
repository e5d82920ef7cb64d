"""Pooling layers whose output size is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax

from funcnets import functional as F
from funcnets.core.module import Module
from funcnets.functional._window import flag
from funcnets.functional.pool_adaptive import adaptive_size

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
]


class _AdaptiveAvgPoolNd(Module):
    """Average over windows whose number is given; subclasses say in how many dimensions."""

    _ndim: ClassVar[int]
    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        super().__init__()
        adaptive_size(output_size, self._ndim)
        self.output_size = output_size

    def forward(self, input: jax.Array) -> jax.Array:
        return self._function(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    r"""Average over as many windows as the output is to have elements.

    .. math::
        y_{n,c,i} = \operatorname{mean}\bigl(x_{n,c,a_i}, \dots, x_{n,c,b_i - 1}\bigr), \quad
        a_i = \lfloor i L / m \rfloor, \; b_i = \lceil (i + 1) L / m \rceil

    for an output of :math:`m` elements. Windows overlap where :math:`m` does not divide :math:`L`.

    Args:
        output_size: the length :math:`m` of the output.

    Shape:
        - Input: :math:`(N, C, L)` or :math:`(C, L)`, floating point.
        - Output: :math:`(N, C, m)` or :math:`(C, m)`.

    Raises:
        ArgumentError: an ``output_size`` that cannot be.
        ShapeError: (on the call) a wrong rank, or an empty axis other than the batch.
        DTypeError: (on the call) an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AdaptiveAvgPool1d(5)(jnp.ones((1, 64, 8))).shape
        (1, 64, 5)

    References:
        torch.nn.AdaptiveAvgPool1d
    """

    _ndim = 1
    _function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    r"""Average over windows whose number is given. :class:`AdaptiveAvgPool1d` has the formula.

    Args:
        output_size: height and width of the output, one integer or two; None keeps the size.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point.
        - Output: :math:`(N, C, H', W')` or :math:`(C, H', W')`, of ``output_size``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`AdaptiveAvgPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AdaptiveAvgPool2d((None, 7))(jnp.ones((1, 64, 10, 9))).shape
        (1, 64, 10, 7)

    References:
        torch.nn.AdaptiveAvgPool2d
    """

    _ndim = 2
    _function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    r"""Average over windows whose number is given. :class:`AdaptiveAvgPool1d` has the formula.

    Args:
        output_size: depth, height and width of the output, one integer or three; None keeps the
            size.

    Shape:
        - Input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`, floating point.
        - Output: :math:`(N, C, D', H', W')` or :math:`(C, D', H', W')`, of ``output_size``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`AdaptiveAvgPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AdaptiveAvgPool3d((5, 7, 1))(jnp.ones((1, 4, 8, 9, 10))).shape
        (1, 4, 5, 7, 1)

    References:
        torch.nn.AdaptiveAvgPool3d
    """

    _ndim = 3
    _function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPoolNd(Module):
    """Maximum over windows whose number is given; subclasses say in how many dimensions."""

    _ndim: ClassVar[int]
    _function: ClassVar[Callable[..., Any]]

    def __init__(
        self, output_size: int | Sequence[int | None] | None, return_indices: bool = False
    ) -> None:
        super().__init__()
        adaptive_size(output_size, self._ndim)
        self.output_size = output_size
        self.return_indices = flag("return_indices", return_indices)

    def forward(self, input: jax.Array) -> Any:
        return self._function(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    r"""Maximum over as many windows as the output is to have elements.

    The windows are those of :class:`AdaptiveAvgPool1d`; ties and NaN are as in
    :class:`MaxPool1d`.

    Args:
        output_size: the length :math:`m` of the output.
        return_indices: whether to return the places of the maxima, too, for :class:`MaxUnpool1d`.

    Shape:
        - Input: :math:`(N, C, L)` or :math:`(C, L)`, floating point.
        - Output: :math:`(N, C, m)` or :math:`(C, m)`.

    Raises:
        ArgumentError: an ``output_size`` that cannot be.
        ShapeError: (on the call) a wrong rank, or an empty axis other than the batch.
        DTypeError: (on the call) an array that is not of real floating point numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AdaptiveMaxPool1d(5)(jnp.ones((1, 64, 8))).shape
        (1, 64, 5)

    References:
        torch.nn.AdaptiveMaxPool1d
    """

    _ndim = 1
    _function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    r"""Maximum over windows whose number is given, as in :class:`AdaptiveMaxPool1d`.

    Args:
        output_size: height and width of the output, one integer or two; None keeps the size.
        return_indices: whether to return the places of the maxima in the flattened
            :math:`(H, W)`, too, for :class:`MaxUnpool2d`.

    Shape:
        - Input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point.
        - Output: :math:`(N, C, H', W')` or :math:`(C, H', W')`, of ``output_size``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`AdaptiveMaxPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AdaptiveMaxPool2d((None, 7))(jnp.ones((1, 64, 10, 9))).shape
        (1, 64, 10, 7)

    References:
        torch.nn.AdaptiveMaxPool2d
    """

    _ndim = 2
    _function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    r"""Maximum over windows whose number is given, as in :class:`AdaptiveMaxPool1d`.

    Args:
        output_size: depth, height and width of the output, one integer or three; None keeps the
            size.
        return_indices: whether to return the places of the maxima in the flattened
            :math:`(D, H, W)`, too, for :class:`MaxUnpool3d`.

    Shape:
        - Input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`, floating point.
        - Output: :math:`(N, C, D', H', W')` or :math:`(C, D', H', W')`, of ``output_size``.

    Raises:
        ArgumentError, ShapeError, DTypeError: as :class:`AdaptiveMaxPool1d`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AdaptiveMaxPool3d((5, 7, 1))(jnp.ones((1, 4, 8, 9, 10))).shape
        (1, 4, 5, 7, 1)

    References:
        torch.nn.AdaptiveMaxPool3d
    """

    _ndim = 3
    _function = staticmethod(F.adaptive_max_pool3d)
