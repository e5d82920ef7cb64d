"""Normalisation within a sample: over its last axes, groups of channels or neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from funcnets import functional as F
from funcnets._args import channel_axis_check, positive
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._numeric import real
from funcnets.functional.norm import normalized_shape_tuple
from funcnets.nn import init

__all__ = ["CrossMapLRN2d", "GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


class _Affine(Module):
    """A weight that starts at 1 and a bias that starts at 0, each of which may be absent."""

    def _build(self, shape: tuple[int, ...], device: Any, dtype: Any, **present: bool) -> None:
        for name, wanted in present.items():
            cell = Parameter(shape, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, cell)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                (init.ones_ if name == "weight" else init.zeros_)(parameter)


class LayerNorm(_Affine):
    r"""Normalise over the last axes.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    where :math:`\mu` and :math:`\sigma^2` are the mean and the biased variance over those axes.

    Args:
        normalized_shape: sizes of the axes to normalise over; an integer stands for the last axis.
        eps: :math:`\epsilon`.
        elementwise_affine: whether there are a :math:`\gamma` and a :math:`\beta`.
        bias: whether there is a :math:`\beta`, if ``elementwise_affine``.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    Shape:
        - Input: :math:`(*, \text{normalized\_shape})`.
        - Output: the same.

    Attributes:
        weight: :math:`\gamma`, of ``normalized_shape``, ones, or None.
        bias: :math:`\beta`, of ``normalized_shape``, zeros, or None.

    Raises:
        ArgumentError: ``normalized_shape`` is empty, or not made of non-negative integers.
        ShapeError: (on the call) the input does not end in ``normalized_shape``.
        DTypeError: (on the call) the input is not floating point.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LayerNorm((5, 8))(jnp.ones((2, 5, 8))).shape
        (2, 5, 8)

    References:
        Ba et al., 2016; torch.nn.LayerNorm
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = normalized_shape_tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        present = {"weight": elementwise_affine, "bias": elementwise_affine and bias}
        self._build(self.normalized_shape, device, dtype, **present)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class RMSNorm(_Affine):
    r"""Divide by the root mean square over the last axes.

    .. math::
        y = \frac{x}{\sqrt{\operatorname{mean}(x^2) + \epsilon}} \gamma

    Args:
        normalized_shape: sizes of the axes to normalise over; an integer stands for the last axis.
        eps: :math:`\epsilon`; None takes the machine epsilon of the precision that is computed in,
            which is float32 for half precision inputs.
        elementwise_affine: whether there is a :math:`\gamma`.
        device: where the parameter is placed.
        dtype: its dtype, float32 by default.

    Shape:
        - Input: :math:`(*, \text{normalized\_shape})`.
        - Output: the same.

    Attributes:
        weight: :math:`\gamma`, of ``normalized_shape``, ones, or None.

    Raises:
        ArgumentError: ``normalized_shape`` is empty, or not made of non-negative integers.
        ShapeError: (on the call) the input does not end in ``normalized_shape``.
        DTypeError: (on the call) the input is not floating point.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.RMSNorm(8)(jnp.ones((2, 5, 8))).shape
        (2, 5, 8)

    References:
        Zhang and Sennrich, 2019; torch.nn.RMSNorm
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = normalized_shape_tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._build(self.normalized_shape, device, dtype, weight=elementwise_affine)

    def forward(self, x: jax.Array) -> jax.Array:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(_Affine):
    r"""Normalise groups of adjacent channels of each sample.

    .. math::
        y = \frac{x - \mu_g}{\sqrt{\sigma_g^2 + \epsilon}} \gamma + \beta

    where :math:`\mu_g` and :math:`\sigma_g^2` are the mean and the biased variance of a group of channels.

    Args:
        num_groups: number of groups, a divisor of ``num_channels``.
        num_channels: number of channels :math:`C`.
        eps: :math:`\epsilon`.
        affine: whether there are a :math:`\gamma` and a :math:`\beta`.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.
        bias: whether there is a :math:`\beta`, if ``affine``.

    Shape:
        - Input: :math:`(N, C, *)`.
        - Output: the same.

    Attributes:
        weight: :math:`\gamma`, :math:`(C)`, ones, or None.
        bias: :math:`\beta`, :math:`(C)`, zeros, or None.

    Raises:
        ArgumentError: ``num_groups`` is not positive or does not divide ``num_channels``.
        ShapeError: (on the call) the input has another number of channels, or a single value per
            group in the whole batch.
        DTypeError: (on the call) the input is not floating point.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.GroupNorm(3, 6)(jnp.ones((2, 6, 4, 4))).shape
        (2, 6, 4, 4)

    References:
        Wu and He, 2018; torch.nn.GroupNorm
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_groups = positive("num_groups", num_groups)
        self.num_channels = positive("num_channels", num_channels, minimum=0)
        if num_channels % num_groups:
            raise ArgumentError(
                f"num_channels={num_channels} must be divisible by num_groups={num_groups}"
            )
        self.eps = eps
        self.affine = affine
        self._build((num_channels,), device, dtype, weight=affine, bias=affine and bias)

    def forward(self, input: jax.Array) -> jax.Array:
        input = real("input", input)
        if input.ndim > 1 and self.weight is not None:
            channel_axis_check("input", input, 1, self.num_channels, "num_channels")
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )


class LocalResponseNorm(Module):
    r"""Divide by a power of the mean square over neighbouring channels.

    .. math::
        y_c = x_c \Big(k + \frac{\alpha}{n} \sum_{c' = c - \lfloor n/2 \rfloor}
        ^{c + \lfloor (n-1)/2 \rfloor} x_{c'}^2\Big)^{-\beta}

    Args:
        size: :math:`n`, the number of neighbouring channels; missing ones count as zeros.
        alpha: :math:`\alpha`, a factor.
        beta: :math:`\beta`, the exponent.
        k: a constant.

    Shape:
        - Input: :math:`(N, C, *)`, at least 3D.
        - Output: the same.

    Raises:
        ArgumentError: ``size`` is not a positive integer.
        ShapeError: (on the call) the input has fewer than three axes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LocalResponseNorm(2)(jnp.ones((32, 5, 24, 24))).shape
        (32, 5, 24, 24)

    References:
        Krizhevsky et al., 2012; torch.nn.LocalResponseNorm
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = positive("size", size)
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: jax.Array) -> jax.Array:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """Local response normalisation of images with the values of PyTorch's class of this name.

    It differs from :class:`LocalResponseNorm` in its window of channels; see
    :func:`funcnets.functional.cross_map_lrn2d`. For a new model take :class:`LocalResponseNorm`.

    Args:
        size: number of neighbouring channels.
        alpha: a factor.
        beta: the exponent.
        k: a constant.

    Shape:
        - Input: :math:`(N, C, H, W)`.
        - Output: the same.

    Raises:
        ArgumentError: ``size`` is not a positive integer.
        ShapeError: (on the call) the input is not 4D.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.CrossMapLRN2d(3)(jnp.ones((2, 5, 4, 4))).shape
        (2, 5, 4, 4)

    References:
        torch.nn.CrossMapLRN2d
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__(size, alpha, beta, k)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.cross_map_lrn2d(input, self.size, self.alpha, self.beta, self.k)
