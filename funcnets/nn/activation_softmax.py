"""Activations that normalise along an axis, as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import jax

from funcnets import functional as F
from funcnets._args import as_int, describe
from funcnets.core.module import Module
from funcnets.errors import ShapeError
from funcnets.functional._numeric import real

__all__ = ["LogSoftmax", "Softmax", "Softmax2d", "Softmin"]


class AlongAxis(Module):
    """Base of the layers that apply one function along an axis."""

    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = None if dim is None else as_int("dim", dim)

    def forward(self, input: jax.Array) -> jax.Array:
        return self._function(input, self.dim, _stacklevel=5)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(AlongAxis):
    r"""Positive numbers that sum to one along an axis.

    .. math:: \operatorname{Softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    Args:
        dim: the axis. None takes axis 0 for rank 0, 1 and 3 and axis 1 otherwise, with a warning,
            as PyTorch does.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Softmax(dim=1)(jnp.zeros((2, 4))).shape
        (2, 4)

    References:
        torch.nn.Softmax
    """

    _function = staticmethod(F.softmax)


class Softmin(AlongAxis):
    r"""Softmax of the negated input: the smallest element gets the largest share.

    .. math:: \operatorname{Softmin}(x)_i = \frac{e^{-x_i}}{\sum_j e^{-x_j}}

    Args:
        dim: the axis. None takes axis 0 for rank 0, 1 and 3 and axis 1 otherwise, with a warning,
            as PyTorch does.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Softmin(dim=1)(jnp.zeros((2, 4))).shape
        (2, 4)

    References:
        torch.nn.Softmin
    """

    _function = staticmethod(F.softmin)


class LogSoftmax(AlongAxis):
    r"""Logarithm of the softmax, without its underflow.

    .. math:: \operatorname{LogSoftmax}(x)_i = x_i - \log \sum_j e^{x_j}

    Args:
        dim: the axis. None takes axis 0 for rank 0, 1 and 3 and axis 1 otherwise, with a warning,
            as PyTorch does.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LogSoftmax(dim=1)(jnp.zeros((2, 4))).shape
        (2, 4)

    References:
        torch.nn.LogSoftmax
    """

    _function = staticmethod(F.log_softmax)


class Softmax2d(Module):
    r"""Softmax over the channels of every place of an image.

    .. math:: \operatorname{Softmax2d}(x)_{chw} = \frac{e^{x_{chw}}}{\sum_k e^{x_{khw}}}

    Shape:
        - input: :math:`(N, C, H, W)` or :math:`(C, H, W)`, floating point.
        - output: as the input.

    Raises:
        ShapeError: the input has neither 3 nor 4 axes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Softmax2d()(jnp.zeros((2, 4, 3, 3))).shape
        (2, 4, 3, 3)

    References:
        torch.nn.Softmax2d
    """

    def forward(self, input: jax.Array) -> jax.Array:
        input = real("input", input)
        if input.ndim not in (3, 4):
            raise ShapeError(
                f"expected an input of shape (N, C, H, W) or (C, H, W), but got {describe(input)}"
            )
        return F.softmax(input, -3)
