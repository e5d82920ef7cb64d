"""Activations with a curve in them: sigmoids, exponential units, gates.

The ones made of straight pieces are in ``activation``, the normalising ones in
``activation_softmax``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import choice, describe, floating
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._numeric import axis_of, inexact, real, widen
from funcnets.functional.activation import in_place

__all__ = [
    "celu",
    "celu_",
    "elu",
    "elu_",
    "gelu",
    "glu",
    "logsigmoid",
    "mish",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
    "tanhshrink",
]


def sigmoid(input: jax.Array) -> jax.Array:
    r"""Logistic function.

    .. math:: \sigma(x) = \frac{1}{1 + e^{-x}}

    Args:
        input: an array of any shape. Integers and booleans are taken as float32.

    Returns:
        An array of the shape of ``input``.

    Raises:
        DTypeError: ``input`` is not an array of numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.sigmoid(jnp.array([0.0])).tolist()
        [0.5]

    References:
        torch.nn.functional.sigmoid
    """
    return jax.nn.sigmoid(inexact("input", input))


def tanh(input: jax.Array) -> jax.Array:
    r"""Hyperbolic tangent.

    .. math:: \tanh(x) = \frac{e^{x} - e^{-x}}{e^{x} + e^{-x}}

    Args:
        input: an array of any shape. Integers and booleans are taken as float32.

    Returns:
        An array of the shape of ``input``.

    Raises:
        DTypeError: ``input`` is not an array of numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.tanh(jnp.array([0.0])).tolist()
        [0.0]

    References:
        torch.nn.functional.tanh
    """
    return jnp.tanh(inexact("input", input))


def gelu(input: jax.Array, approximate: str = "none") -> jax.Array:
    r"""Gaussian error linear unit: the input times the normal distribution function of it.

    .. math::
        \operatorname{gelu}(x) &= x \, \Phi(x) = \tfrac{x}{2}\,(1 + \operatorname{erf}(x/\sqrt2)) \\
        \operatorname{gelu}_{\tanh}(x) &=
            \tfrac{x}{2}\,(1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3)))

    Args:
        input: a floating point array of any shape.
        approximate: ``'none'`` for the exact function, ``'tanh'`` for the second formula.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``approximate`` is neither ``'none'`` nor ``'tanh'``.
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.gelu(jnp.array([-100.0, 0.0, 100.0])).tolist()
        [-0.0, 0.0, 100.0]

    References:
        Hendrycks and Gimpel, "Gaussian error linear units", 2016; torch.nn.functional.gelu
    """
    choice("approximate", approximate, ("none", "tanh"))
    input = real("input", input)
    # 1 + tanh(x) cancels for negative x, which half precision would show.
    x = widen(input)
    if approximate == "tanh":
        return jax.nn.gelu(x, approximate=True).astype(input.dtype)
    # JAX's own takes erfc, which is two to three times slower on a CPU.
    return (x * 0.5 * (1.0 + lax.erf(x * math.sqrt(0.5)))).astype(input.dtype)


def silu(input: jax.Array, inplace: bool = False) -> jax.Array:
    r"""Sigmoid linear unit, also called swish: the input times its sigmoid.

    .. math:: \operatorname{silu}(x) = x \, \sigma(x)

    Args:
        input: a floating point or complex array of any shape.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a floating point or complex array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.silu(jnp.zeros((2, 3))).shape
        (2, 3)

    References:
        Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units for neural network function
        approximation in reinforcement learning", 2017; torch.nn.functional.silu
    """
    return jax.nn.silu(floating("input", input))


def mish(input: jax.Array, inplace: bool = False) -> jax.Array:
    r"""The input times the hyperbolic tangent of its softplus.

    .. math:: \operatorname{mish}(x) = x \tanh(\log(1 + e^{x}))

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
        >>> F.mish(jnp.zeros((2, 3))).shape
        (2, 3)

    References:
        Misra, "Mish: a self regularized non-monotonic neural activation function", 2019;
        torch.nn.functional.mish
    """
    return jax.nn.mish(real("input", input))


def elu(input: jax.Array, alpha: float = 1.0, inplace: bool = False) -> jax.Array:
    r"""Exponential linear unit.

    .. math:: \operatorname{elu}(x) = \max(x, 0) + \alpha \, (e^{\min(x, 0)} - 1)

    The gradient at 0 is ``alpha``.

    Args:
        input: a floating point array of any shape.
        alpha: minus the value that large negative input tends to.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.elu(jnp.array([-100.0, 2.0]), alpha=0.5).tolist()
        [-0.5, 2.0]

    References:
        Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by
        exponential linear units", 2015; torch.nn.functional.elu
    """
    return jax.nn.elu(real("input", input), alpha)


def selu(input: jax.Array, inplace: bool = False) -> jax.Array:
    r"""Scaled exponential linear unit: keeps mean 0 and variance 1 through a deep network.

    .. math:: \operatorname{selu}(x) = s \, (\max(x, 0) + \alpha \, (e^{\min(x, 0)} - 1))

    with :math:`s \approx 1.0507` and :math:`\alpha \approx 1.6733`.

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
        >>> F.selu(jnp.zeros((2, 3))).shape
        (2, 3)

    References:
        Klambauer et al., "Self-normalizing neural networks", 2017; torch.nn.functional.selu
    """
    return jax.nn.selu(real("input", input))


def celu(input: jax.Array, alpha: float = 1.0, inplace: bool = False) -> jax.Array:
    r"""Exponential linear unit without a corner at 0, whatever ``alpha`` is.

    .. math:: \operatorname{celu}(x) = \max(x, 0) + \alpha \, (e^{\min(x, 0)/\alpha} - 1)

    Args:
        input: a floating point array of any shape.
        alpha: minus the value that large negative input tends to, not 0.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``alpha`` is 0.
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.celu(jnp.array([-100.0, 2.0]), alpha=0.5).tolist()
        [-0.5, 2.0]

    References:
        Barron, "Continuously differentiable exponential linear units", 2017;
        torch.nn.functional.celu
    """
    input = real("input", input)
    if alpha == 0:
        raise ArgumentError(f"alpha must not be 0, but got {alpha}; use relu for that limit")
    # Not min(x, 0): its derivative at 0 is a half, and exp of a large x would spoil the gradient.
    negative = jnp.where(input > 0, jnp.zeros_like(input), input)
    return jnp.where(input > 0, input, alpha * jnp.expm1(negative / alpha))


def softplus(input: jax.Array, beta: float = 1.0, threshold: float = 20.0) -> jax.Array:
    r"""Smooth rectifier.

    .. math:: \operatorname{softplus}(x) = \frac{1}{\beta} \log(1 + e^{\beta x})

    Args:
        input: a floating point array of any shape.
        beta: the sharpness of the bend.
        threshold: where ``input * beta`` exceeds it the result is ``input`` itself.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.softplus(jnp.array([-100.0, 100.0])).tolist()
        [0.0, 100.0]

    References:
        torch.nn.functional.softplus
    """
    input = in_full(input)
    input = real("input", input)
    scaled = input * beta
    return jnp.where(scaled > threshold, input, jax.nn.softplus(scaled) / beta)


def logsigmoid(input: jax.Array) -> jax.Array:
    r"""Logarithm of the logistic function.

    .. math:: \log \sigma(x) = -\log(1 + e^{-x})

    Args:
        input: a floating point array of any shape.

    Returns:
        An array like ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.logsigmoid(jnp.array([-1000.0])).tolist()
        [-1000.0]

    References:
        torch.nn.functional.logsigmoid
    """
    return jax.nn.log_sigmoid(real("input", input))


def softsign(input: jax.Array) -> jax.Array:
    r"""The input divided by one more than its size.

    .. math:: \operatorname{softsign}(x) = \frac{x}{1 + |x|}

    Args:
        input: an array of any shape. Integers are taken as float32.

    Returns:
        An array of the shape of ``input``.

    Raises:
        DTypeError: ``input`` is not an array of numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.softsign(jnp.array([-1.0, 3.0])).tolist()
        [-0.5, 0.75]

    References:
        torch.nn.functional.softsign
    """
    input = inexact("input", input)
    return input / (jnp.abs(input).astype(input.dtype) + 1.0)


def tanhshrink(input: jax.Array) -> jax.Array:
    r"""The input less its hyperbolic tangent.

    .. math:: \operatorname{tanhshrink}(x) = x - \tanh(x)

    Args:
        input: an array of any shape. Integers are taken as float32.

    Returns:
        An array of the shape of ``input``.

    Raises:
        DTypeError: ``input`` is not an array of numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.tanhshrink(jnp.array([0.0, 100.0])).tolist()
        [0.0, 99.0]

    References:
        torch.nn.functional.tanhshrink
    """
    input = inexact("input", input)
    return input - jnp.tanh(input)


def glu(input: jax.Array, dim: int = -1) -> jax.Array:
    r"""Gated linear unit: one half of the input times the sigmoid of the other.

    .. math:: \operatorname{glu}(a, b) = a \, \sigma(b)

    Args:
        input: a floating point array whose size along ``dim`` is even; the first half is
            :math:`a`, the second :math:`b`.
        dim: the axis to halve.

    Returns:
        An array of the shape of ``input``, half as long along ``dim``.

    Raises:
        DTypeError: ``input`` is not a real floating point array.
        ShapeError: ``input`` has no axes, no axis ``dim``, or an odd size along it.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.glu(jnp.ones((4, 6))).shape
        (4, 3)

    References:
        Dauphin et al., "Language modeling with gated convolutional networks", 2016;
        torch.nn.functional.glu
    """
    input = real("input", input)
    axis = axis_of("dim", dim, input)
    if input.ndim == 0 or input.shape[axis] % 2:
        raise ShapeError(
            f"input must have an even size along dim={dim} to be halved, but got {describe(input)}"
        )
    return jax.nn.glu(input, axis)


elu_ = in_place(elu)
selu_ = in_place(selu)
celu_ = in_place(celu)
