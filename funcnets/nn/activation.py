"""Activations made of straight pieces, as layers: rectifiers, clamps and shrinks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from funcnets import functional as F
from funcnets._args import positive
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._numeric import number
from funcnets.functional.activation import slopes
from funcnets.nn import init

__all__ = [
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "Softshrink",
    "Threshold",
]


class Elementwise(Module):
    """Base of the layers that apply one function, and keep its options as attributes.

    A subclass names the function and calls ``super().__init__`` with the options by name. They are
    printed in that order, ``inplace`` only if it is True.
    """

    _function: ClassVar[Callable[..., jax.Array]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, input: jax.Array) -> jax.Array:
        # inplace changes nothing, and is the only option of the commonest ones.
        options = {name: getattr(self, name) for name in self._options if name != "inplace"}
        return self._function(input, **options)

    def extra_repr(self) -> str:
        shown = [n for n in self._options if n != "inplace" or self.inplace]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)


class Optionless(Elementwise):
    """Base of the layers that apply one function as it is: they take no argument at all."""

    def __init__(self) -> None:
        super().__init__()


class ReLU(Elementwise):
    r"""Rectified linear unit.

    .. math:: \operatorname{ReLU}(x) = \max(x, 0)

    Args:
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point or integer.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReLU()(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    References:
        torch.nn.ReLU
    """

    _function = staticmethod(F.relu)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Hardtanh(Elementwise):
    r"""The input, held between two bounds.

    .. math:: \operatorname{Hardtanh}(x) = \min(\max(x, \text{min\_val}), \text{max\_val})

    Args:
        min_val: the lower bound.
        max_val: the upper bound, greater than ``min_val``.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        min_value: deprecated name of ``min_val``; warns.
        max_value: deprecated name of ``max_val``; warns.

    Shape:
        - input: any, floating point or integer.
        - output: as the input.

    Raises:
        ArgumentError: ``max_val`` is not greater than ``min_val``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Hardtanh(-2, 2)(jnp.array([-3.0, 0.5, 3.0])).tolist()
        [-2.0, 0.5, 2.0]

    References:
        torch.nn.Hardtanh
    """

    _function = staticmethod(F.hardtanh)

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        if min_value is not None:
            warnings.warn("min_value is deprecated: write min_val", FutureWarning, stacklevel=2)
            min_val = min_value
        if max_value is not None:
            warnings.warn("max_value is deprecated: write max_val", FutureWarning, stacklevel=2)
            max_val = max_value
        min_val, max_val = number("min_val", min_val), number("max_val", max_val)
        if not max_val > min_val:
            raise ArgumentError(
                f"max_val must be greater than min_val={min_val}, but got max_val={max_val}"
            )
        super().__init__(min_val=min_val, max_val=max_val, inplace=inplace)


class ReLU6(Hardtanh):
    r"""Rectified linear unit that saturates at 6.

    .. math:: \operatorname{ReLU6}(x) = \min(\max(x, 0), 6)

    Args:
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point or integer.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ReLU6()(jnp.array([-1.0, 2.0, 9.0])).tolist()
        [0.0, 2.0, 6.0]

    References:
        Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010; torch.nn.ReLU6
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Elementwise):
    r"""Rectified linear unit with a small slope below zero.

    .. math:: \operatorname{LeakyReLU}(x) = \max(x, 0) + \text{negative\_slope} \cdot \min(x, 0)

    Args:
        negative_slope: the slope for negative input.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LeakyReLU(0.5)(jnp.array([-2.0, 3.0])).tolist()
        [-1.0, 3.0]

    References:
        Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models",
        2013; torch.nn.LeakyReLU
    """

    _function = staticmethod(F.leaky_relu)

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        negative_slope = number("negative_slope", negative_slope)
        super().__init__(negative_slope=negative_slope, inplace=inplace)


class PReLU(Module):
    r"""Rectified linear unit with learned slopes below zero, one for all or one a channel.

    .. math:: \operatorname{PReLU}(x) = \max(x, 0) + w_c \cdot \min(x, 0)

    Args:
        num_parameters: 1, or the number of channels.
        init: the initial value of the slopes.
        device: where the slopes are placed.
        dtype: dtype of the slopes, float32 by default.

    Shape:
        - input: :math:`(N, C, *)`, floating point; fewer than two axes count as one channel.
        - output: as the input.

    Attributes:
        weight: the slopes, :math:`(\text{num\_parameters})`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.PReLU(num_parameters=3)(jnp.ones((2, 3, 4))).shape
        (2, 3, 4)

    References:
        He et al., "Delving deep into rectifiers", 2015; torch.nn.PReLU
    """

    weight: Any

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.num_parameters = positive("num_parameters", num_parameters, minimum=0)
        self.init = number("init", init)
        self.weight = Parameter((self.num_parameters,), device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every slope to ``init``."""
        init.constant_(self.weight, self.init)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    r"""Leaky rectified linear unit whose slope is random in training.

    .. math:: \operatorname{RReLU}(x) = \max(x, 0) + a \cdot \min(x, 0)

    In training :math:`a` is drawn from :math:`U(\text{lower}, \text{upper})`, one for every
    element; in evaluation it is the middle of the two.

    Args:
        lower: the least slope.
        upper: the greatest slope.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Raises:
        ArgumentError: ``lower`` is greater than ``upper`` or one of them is not finite.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.RReLU(0.25, 0.75).eval()(jnp.array([-1.0, 1.0])).tolist()
        [-0.5, 1.0]

    References:
        Xu et al., "Empirical evaluation of rectified activations in convolutional network", 2015;
        torch.nn.RReLU
    """

    def __init__(
        self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False
    ) -> None:
        super().__init__()
        self.lower, self.upper = slopes(lower, upper)
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        training = self.training
        rng = self.make_rng() if training else None
        return F.rrelu(input, self.lower, self.upper, training, self.inplace, rng=rng)

    def extra_repr(self) -> str:
        inplace = ", inplace=True" if self.inplace else ""
        return f"lower={self.lower}, upper={self.upper}{inplace}"


class Threshold(Elementwise):
    r"""The input where it is above a threshold, and a fixed value elsewhere.

    .. math:: y = x \text{ if } x > \text{threshold}, \text{ otherwise } \text{value}

    Args:
        threshold: the bound that an element has to exceed to pass.
        value: what stands for an element that does not.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point or integer.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Threshold(1.0, 20.0)(jnp.array([0.5, 2.0])).tolist()
        [20.0, 2.0]

    References:
        torch.nn.Threshold
    """

    _function = staticmethod(F.threshold)

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        threshold, value = number("threshold", threshold), number("value", value)
        super().__init__(threshold=threshold, value=value, inplace=inplace)


class Hardsigmoid(Elementwise):
    r"""A sigmoid made of three straight pieces.

    .. math:: \operatorname{Hardsigmoid}(x) = \min(\max(x + 3, 0), 6) / 6

    Args:
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Hardsigmoid()(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [0.0, 0.5, 1.0]

    References:
        torch.nn.Hardsigmoid
    """

    _function = staticmethod(F.hardsigmoid)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)

    def extra_repr(self) -> str:
        return ""  # PyTorch prints nothing here


class Hardswish(Elementwise):
    r"""The input times its hard sigmoid.

    .. math:: \operatorname{Hardswish}(x) = x \cdot \min(\max(x + 3, 0), 6) / 6

    Args:
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Hardswish()(jnp.array([0.0, 4.0])).tolist()
        [0.0, 4.0]

    References:
        Howard et al., "Searching for MobileNetV3", 2019; torch.nn.Hardswish
    """

    _function = staticmethod(F.hardswish)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)

    def extra_repr(self) -> str:
        return ""  # PyTorch prints nothing here


class Hardshrink(Elementwise):
    r"""Zero near zero, and the input elsewhere.

    .. math:: y = 0 \text{ if } |x| \le \lambda, \text{ otherwise } x

    Args:
        lambd: half the width of the zero part.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Hardshrink()(jnp.array([-1.0, 0.25, 2.0])).tolist()
        [-1.0, 0.0, 2.0]

    References:
        torch.nn.Hardshrink
    """

    _function = staticmethod(F.hardshrink)

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd=number("lambd", lambd))

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(Elementwise):
    r"""The input moved towards zero by a fixed amount, and zero when it is nearer than that.

    .. math:: y = \operatorname{sign}(x) \cdot \max(|x| - \lambda, 0)

    Args:
        lambd: the amount, not negative.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Raises:
        ArgumentError: ``lambd`` is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Softshrink()(jnp.array([-1.0, 0.25, 2.0])).tolist()
        [-0.5, 0.0, 1.5]

    References:
        torch.nn.Softshrink
    """

    _function = staticmethod(F.softshrink)

    def __init__(self, lambd: float = 0.5) -> None:
        lambd = number("lambd", lambd)
        if not lambd >= 0:
            raise ArgumentError(f"lambd must not be negative, but got {lambd}")
        super().__init__(lambd=lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)
