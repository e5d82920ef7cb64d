"""Dropout, as layers. They draw in training only; the key comes from the running call."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import jax

from funcnets import functional as F
from funcnets._args import probability
from funcnets.core.module import Module

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class DropoutBase(Module):
    """Base of the dropouts, which differ in the function they apply."""

    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = probability("p", p)
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        # Mode and key are asked for only where they matter, so that p=0 works without either.
        training = self.p > 0 and self.training
        rng = self.make_rng() if training and self.p < 1 else None
        return self._function(input, self.p, training, self.inplace, rng=rng)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(DropoutBase):
    r"""Zero elements at random and scale the others up, so that the mean stays.

    .. math:: y_i = \frac{m_i}{1 - p} \, x_i, \quad m_i \sim \text{Bernoulli}(1 - p)

    In evaluation the input is returned as it is.

    Args:
        p: the probability that an element is zeroed.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Dropout(0.2)(jnp.ones((2, 3))).shape
        (2, 3)

    References:
        Hinton et al., "Improving neural networks by preventing co-adaptation of feature
        detectors", 2012; torch.nn.Dropout
    """

    _function = staticmethod(F.dropout)


class Dropout1d(DropoutBase):
    r"""Dropout of whole channels of a sequence.

    .. math:: y_{nc} = \frac{m_{nc}}{1 - p} \, x_{nc}, \quad m_{nc} \sim \text{Bernoulli}(1 - p)

    In evaluation the input is returned as it is.

    Args:
        p: the probability that a channel is zeroed.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: :math:`(N, C, L)` or :math:`(C, L)`.
        - output: as the input.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Dropout1d(0.2)(jnp.ones((2, 3, 4))).shape
        (2, 3, 4)

    References:
        Tompson et al., "Efficient object localization using convolutional networks", 2015;
        torch.nn.Dropout1d
    """

    _function = staticmethod(F.dropout1d)


class Dropout2d(DropoutBase):
    r"""Dropout of whole channels of an image.

    .. math:: y_{nc} = \frac{m_{nc}}{1 - p} \, x_{nc}, \quad m_{nc} \sim \text{Bernoulli}(1 - p)

    In evaluation the input is returned as it is.

    Args:
        p: the probability that a channel is zeroed.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: :math:`(N, C, H, W)`. Rank 3 is taken as :math:`(N, C, L)`, with a warning, as in
          PyTorch.
        - output: as the input.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Dropout2d(0.2)(jnp.ones((2, 3, 4, 4))).shape
        (2, 3, 4, 4)

    References:
        Tompson et al., "Efficient object localization using convolutional networks", 2015;
        torch.nn.Dropout2d
    """

    _function = staticmethod(F.dropout2d)


class Dropout3d(DropoutBase):
    r"""Dropout of whole channels of a volume.

    .. math:: y_{nc} = \frac{m_{nc}}{1 - p} \, x_{nc}, \quad m_{nc} \sim \text{Bernoulli}(1 - p)

    In evaluation the input is returned as it is.

    Args:
        p: the probability that a channel is zeroed.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: :math:`(N, C, D, H, W)` or :math:`(C, D, H, W)`.
        - output: as the input.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Dropout3d(0.2)(jnp.ones((2, 3, 4, 4, 4))).shape
        (2, 3, 4, 4, 4)

    References:
        Tompson et al., "Efficient object localization using convolutional networks", 2015;
        torch.nn.Dropout3d
    """

    _function = staticmethod(F.dropout3d)


class AlphaDropout(DropoutBase):
    r"""Dropout that keeps mean 0 and variance 1, for networks of SELU.

    .. math::
        y_i = a \, (m_i x_i - (1 - m_i) \alpha') + b, \quad m_i \sim \text{Bernoulli}(1 - p)

    with :math:`\alpha' \approx 1.7581`, :math:`a = ((1 - p)(1 + p \alpha'^2))^{-1/2}` and
    :math:`b = a p \alpha'`.

    In evaluation the input is returned as it is.

    Args:
        p: the probability that an element is replaced.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.AlphaDropout(0.2)(jnp.ones((2, 3))).shape
        (2, 3)

    References:
        Klambauer et al., "Self-normalizing neural networks", 2017; torch.nn.AlphaDropout
    """

    _function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(DropoutBase):
    r"""Alpha dropout of whole channels: as :class:`AlphaDropout` with one draw for each channel.

    .. math:: y_{nc} = a \, (m_{nc} x_{nc} - (1 - m_{nc}) \alpha') + b

    In evaluation the input is returned as it is.

    Args:
        p: the probability that a channel is replaced.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: :math:`(N, C, *)`, floating point.
        - output: as the input.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.FeatureAlphaDropout(0.2)(jnp.ones((2, 3, 4))).shape
        (2, 3, 4)

    References:
        Klambauer et al., "Self-normalizing neural networks", 2017; torch.nn.FeatureAlphaDropout
    """

    _function = staticmethod(F.feature_alpha_dropout)
