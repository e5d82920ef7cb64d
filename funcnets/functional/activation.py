"""Activations made of straight pieces: rectifiers, clamps and shrinks.

The curved ones are in ``activation_smooth``, the normalising ones in ``activation_softmax``.
At a corner the gradient is the one that PyTorch takes, which is one of the two slopes that meet.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_low
from funcnets.functional._numeric import need_key, number, real, real_or_integer

__all__ = [
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rrelu",
    "rrelu_",
    "softshrink",
    "threshold",
    "threshold_",
]


def in_place(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function under its name with an underscore behind it: the same without ``inplace``."""

    def variant(*args: Any, **kwargs: Any) -> jax.Array:
        bound = signature.bind(*args, **kwargs)
        return function(**bound.arguments)

    shown = inspect.signature(function)
    signature = shown.replace(parameters=[p for n, p in shown.parameters.items() if n != "inplace"])
    name = function.__name__
    variant.__name__ = variant.__qualname__ = f"{name}_"
    variant.__module__ = function.__module__
    variant.__signature__ = signature  # type: ignore[attr-defined]
    variant.__doc__ = (
        f":func:`{name}` under PyTorch's in-place name.\n\n"
        f"Arrays are immutable, so the argument keeps its values: use the result.\n\n"
        f"Returns:\n    What :func:`{name}` returns.\n\n"
        f"References:\n    torch.nn.functional.{name}_\n"
    )
    return variant


def _clamp(x: jax.Array, low: float, high: float) -> jax.Array:
    # The derivative of lax.clamp is 0 on both bounds, as PyTorch's is; jnp.clip halves it there.
    return jax.lax.clamp(jnp.asarray(low, x.dtype), x, jnp.asarray(high, x.dtype))


def relu(input: jax.Array, inplace: bool = False) -> jax.Array:
    r"""Rectified linear unit.

    .. math:: \operatorname{relu}(x) = \max(x, 0)

    The gradient at 0 is 0.

    Args:
        input: a floating point or integer array of any shape.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is boolean or complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
        [0.0, 0.0, 2.0]

    References:
        torch.nn.functional.relu
    """
    return jax.nn.relu(real_or_integer("input", input))


def relu6(input: jax.Array, inplace: bool = False) -> jax.Array:
    r"""Rectified linear unit that saturates at 6.

    .. math:: \operatorname{relu6}(x) = \min(\max(x, 0), 6)

    The gradient is 0 at 0 and at 6.

    Args:
        input: a floating point or integer array of any shape.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is boolean or complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.relu6(jnp.array([-1.0, 2.0, 9.0])).tolist()
        [0.0, 2.0, 6.0]

    References:
        Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010;
        torch.nn.functional.relu6
    """
    return hardtanh(input, 0.0, 6.0)


def hardtanh(
    input: jax.Array, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> jax.Array:
    r"""The input, held between two bounds.

    .. math:: \operatorname{hardtanh}(x) = \min(\max(x, \text{min\_val}), \text{max\_val})

    The gradient is 1 strictly between the bounds and 0 elsewhere.

    Args:
        input: a floating point or integer array of any shape.
        min_val: the lower bound.
        max_val: the upper bound, at least ``min_val``.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``. For integers the bounds are cut to whole numbers.

    Raises:
        ArgumentError: ``min_val`` is greater than ``max_val``, or negative for unsigned integers.
        DTypeError: ``input`` is boolean or complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.hardtanh(jnp.array([-3.0, 0.5, 3.0]), -2.0, 2.0).tolist()
        [-2.0, 0.5, 2.0]

    References:
        torch.nn.functional.hardtanh
    """
    input = real_or_integer("input", input)
    if min_val > max_val:
        raise ArgumentError(
            f"min_val must not be greater than max_val={max_val}, but got min_val={min_val}"
        )
    if jnp.issubdtype(input.dtype, jnp.unsignedinteger) and min_val < 0:
        raise ArgumentError(
            f"min_val must not be negative for {describe(input)}, but got {min_val}"
        )
    if jnp.issubdtype(input.dtype, jnp.integer):
        min_val, max_val = int(min_val), int(max_val)
    return _clamp(input, min_val, max_val)


def leaky_relu(input: jax.Array, negative_slope: float = 0.01, inplace: bool = False) -> jax.Array:
    r"""Rectified linear unit with a small slope below zero.

    .. math:: \operatorname{leaky\_relu}(x) = \max(x, 0) + \text{negative\_slope} \cdot \min(x, 0)

    The gradient at 0 is ``negative_slope``.

    Args:
        input: a floating point array of any shape.
        negative_slope: the slope for negative input.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.leaky_relu(jnp.array([-2.0, 3.0]), 0.5).tolist()
        [-1.0, 3.0]

    References:
        Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models",
        2013; torch.nn.functional.leaky_relu
    """
    input = real("input", input)
    return jnp.where(input > 0, input, input * negative_slope)


def prelu(input: jax.Array, weight: jax.Array) -> jax.Array:
    r"""Rectified linear unit with learned slopes below zero, one for all or one a channel.

    .. math:: \operatorname{prelu}(x) = \max(x, 0) + w_c \cdot \min(x, 0)

    Args:
        input: a floating point array; axis 1 holds the channels. An array with fewer than two
            axes counts as one channel.
        weight: the slopes, of shape ``(C,)``, ``(1,)`` or ``()``, in the dtype of ``input``.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array or ``weight`` has another dtype.
        ShapeError: ``weight`` has more than one axis, or another size than the channels.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.prelu(jnp.array([[-2.0, -2.0]]), jnp.array([0.25, 0.5])).tolist()
        [[-0.5, -1.0]]

    References:
        He et al., "Delving deep into rectifiers", 2015; torch.nn.functional.prelu
    """
    input, weight = in_low(input, weight)
    input, weight = real("input", input), real("weight", weight)
    if input.dtype != weight.dtype:
        raise DTypeError(
            f"input and weight must have one dtype, but got input {describe(input)} and "
            f"weight {describe(weight)}; convert one of them"
        )
    if weight.ndim > 1:
        raise ShapeError(f"weight must have shape (C,), (1,) or (), but got {describe(weight)}")
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.size not in (1, channels) or (weight.size != 1 and input.ndim == 0):
        raise ShapeError(
            f"weight must have 1 element or as many as input has channels (axis 1), {channels}, "
            f"but got weight {describe(weight)} for input {describe(input)}"
        )
    shape = [1] * input.ndim
    if input.ndim > 1:
        shape[1] = weight.size
    return jnp.where(input > 0, input, input * weight.reshape(shape))


def slopes(lower: float, upper: float) -> tuple[float, float]:
    """The bounds of random slopes, if they are finite and in order."""
    for name, bound in (("lower", lower), ("upper", upper)):
        if not math.isfinite(number(name, bound)):
            raise ArgumentError(f"{name} must be finite, but got {bound}")
    if lower > upper:
        raise ArgumentError(
            f"lower must not be greater than upper, but got lower={lower}, upper={upper}"
        )
    return lower, upper


def rrelu(
    input: jax.Array,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Leaky rectified linear unit whose slope is random in training.

    .. math:: \operatorname{rrelu}(x) = \max(x, 0) + a \cdot \min(x, 0)

    In training :math:`a` is drawn from :math:`U(\text{lower}, \text{upper})`, one for every
    element; otherwise it is the middle of the two.

    Args:
        input: a floating point array of any shape.
        lower: the least slope.
        upper: the greatest slope.
        training: draw the slopes instead of taking the middle.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        rng: the key to draw with, needed in training only.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``lower`` is greater than ``upper`` or one of them is not finite.
        DTypeError: ``input`` is not a real floating point array.
        RngError: ``training`` without ``rng``.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.rrelu(jnp.array([-1.0, 1.0]), 0.25, 0.75).tolist()
        [-0.5, 1.0]
        >>> F.rrelu(jnp.ones((2, 3)), training=True, rng=jax.random.key(0)).shape
        (2, 3)

    References:
        Xu et al., "Empirical evaluation of rectified activations in convolutional network", 2015;
        torch.nn.functional.rrelu
    """
    input = real("input", input)
    lower, upper = slopes(lower, upper)
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    slope = jax.random.uniform(
        need_key("rrelu", rng), input.shape, input.dtype, minval=lower, maxval=upper
    )
    return jnp.where(input > 0, input, input * slope)


def threshold(input: jax.Array, threshold: float, value: float, inplace: bool = False) -> jax.Array:
    r"""The input where it is above a threshold, and a fixed value elsewhere.

    .. math:: y = x \text{ if } x > \text{threshold}, \text{ otherwise } \text{value}

    Args:
        input: a floating point or integer array of any shape.
        threshold: the bound that an element has to exceed to pass.
        value: what stands for an element that does not.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``. For integers both numbers are cut to whole ones.

    Raises:
        DTypeError: ``input`` is boolean or complex.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.threshold(jnp.array([0.5, 2.0]), 1.0, 20.0).tolist()
        [20.0, 2.0]

    References:
        torch.nn.functional.threshold
    """
    input = real_or_integer("input", input)
    if jnp.issubdtype(input.dtype, jnp.integer):
        threshold, value = int(threshold), int(value)
    return jnp.where(input <= threshold, jnp.asarray(value, input.dtype), input)


def hardsigmoid(input: jax.Array, inplace: bool = False) -> jax.Array:
    r"""A sigmoid made of three straight pieces.

    .. math:: \operatorname{hardsigmoid}(x) = \min(\max(x + 3, 0), 6) / 6

    The gradient is 0 at -3 and at 3.

    Args:
        input: a floating point array of any shape.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.hardsigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [0.0, 0.5, 1.0]

    References:
        torch.nn.functional.hardsigmoid
    """
    return _clamp(real("input", input) + 3.0, 0.0, 6.0) / 6.0


def hardswish(input: jax.Array, inplace: bool = False) -> jax.Array:
    r"""The input times its hard sigmoid.

    .. math:: \operatorname{hardswish}(x) = x \cdot \min(\max(x + 3, 0), 6) / 6

    Args:
        input: a floating point array of any shape.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.hardswish(jnp.array([-4.0, 0.0, 4.0])).tolist()
        [-0.0, 0.0, 4.0]

    References:
        Howard et al., "Searching for MobileNetV3", 2019; torch.nn.functional.hardswish
    """
    return real("input", input) * hardsigmoid(input)


def hardshrink(input: jax.Array, lambd: float = 0.5) -> jax.Array:
    r"""Zero near zero, and the input elsewhere.

    .. math:: y = 0 \text{ if } |x| \le \lambda, \text{ otherwise } x

    Args:
        input: a floating point array of any shape.
        lambd: half the width of the zero part.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.hardshrink(jnp.array([-1.0, 0.25, 2.0])).tolist()
        [-1.0, 0.0, 2.0]

    References:
        torch.nn.functional.hardshrink
    """
    input = real("input", input)
    return jnp.where((input >= -lambd) & (input <= lambd), jnp.zeros_like(input), input)


def softshrink(input: jax.Array, lambd: float = 0.5) -> jax.Array:
    r"""The input moved towards zero by a fixed amount, and zero when it is nearer than that.

    .. math:: y = \operatorname{sign}(x) \cdot \max(|x| - \lambda, 0)

    Args:
        input: a floating point array of any shape.
        lambd: the amount, not negative.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``lambd`` is negative.
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.softshrink(jnp.array([-1.0, 0.25, 2.0])).tolist()
        [-0.5, 0.0, 1.5]

    References:
        torch.nn.functional.softshrink
    """
    input = real("input", input)
    if not lambd >= 0:
        raise ArgumentError(f"lambd must not be negative, but got {lambd}")
    moved = input - lambd * jnp.sign(input)
    return jnp.where(jnp.abs(input) <= lambd, jnp.zeros_like(input), moved)


relu_ = in_place(relu)
hardtanh_ = in_place(hardtanh)
leaky_relu_ = in_place(leaky_relu)
rrelu_ = in_place(rrelu)
threshold_ = in_place(threshold)
