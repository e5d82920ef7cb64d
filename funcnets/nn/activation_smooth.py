"""Activations with a curve in them, as layers: sigmoids, exponential units, gates."""

from __future__ import annotations

from funcnets import functional as F
from funcnets._args import as_int, choice
from funcnets.errors import ArgumentError
from funcnets.functional._numeric import number
from funcnets.nn.activation import Elementwise, Optionless

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "LogSigmoid",
    "Mish",
    "SELU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
]


class Sigmoid(Optionless):
    r"""Logistic function.

    .. math:: \sigma(x) = \frac{1}{1 + e^{-x}}

    Shape:
        - input: any; integers are taken as float32.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Sigmoid()(jnp.array([0.0])).tolist()
        [0.5]

    References:
        torch.nn.Sigmoid
    """

    _function = staticmethod(F.sigmoid)


class Tanh(Optionless):
    r"""Hyperbolic tangent.

    .. math:: \tanh(x) = \frac{e^{x} - e^{-x}}{e^{x} + e^{-x}}

    Shape:
        - input: any; integers are taken as float32.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Tanh()(jnp.array([0.0])).tolist()
        [0.0]

    References:
        torch.nn.Tanh
    """

    _function = staticmethod(F.tanh)


class GELU(Elementwise):
    r"""Gaussian error linear unit: the input times the normal distribution function of it.

    .. math:: \operatorname{GELU}(x) = x \, \Phi(x)

    Args:
        approximate: ``'none'`` for the exact function, ``'tanh'`` for
            :math:`\frac{x}{2} (1 + \tanh(\sqrt{2/\pi} \, (x + 0.044715 \, x^3)))`.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Raises:
        ArgumentError: ``approximate`` is neither ``'none'`` nor ``'tanh'``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.GELU()(jnp.zeros((2, 3))).shape
        (2, 3)

    References:
        Hendrycks and Gimpel, "Gaussian error linear units", 2016; torch.nn.GELU
    """

    _function = staticmethod(F.gelu)

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=choice("approximate", approximate, ("none", "tanh")))


class SiLU(Elementwise):
    r"""Sigmoid linear unit, also called swish: the input times its sigmoid.

    .. math:: \operatorname{SiLU}(x) = x \, \sigma(x)

    Args:
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point or complex.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.SiLU()(jnp.zeros((2, 3))).shape
        (2, 3)

    References:
        Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units for neural network function
        approximation in reinforcement learning", 2017; torch.nn.SiLU
    """

    _function = staticmethod(F.silu)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class Mish(Elementwise):
    r"""The input times the hyperbolic tangent of its softplus.

    .. math:: \operatorname{Mish}(x) = x \tanh(\log(1 + e^{x}))

    Args:
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Mish()(jnp.zeros((2, 3))).shape
        (2, 3)

    References:
        Misra, "Mish: a self regularized non-monotonic neural activation function", 2019;
        torch.nn.Mish
    """

    _function = staticmethod(F.mish)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class ELU(Elementwise):
    r"""Exponential linear unit.

    .. math:: \operatorname{ELU}(x) = \max(x, 0) + \alpha \, (e^{\min(x, 0)} - 1)

    Args:
        alpha: minus the value that large negative input tends to.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.ELU(alpha=0.5)(jnp.array([-100.0, 2.0])).tolist()
        [-0.5, 2.0]

    References:
        Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by
        exponential linear units", 2015; torch.nn.ELU
    """

    _function = staticmethod(F.elu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(alpha=number("alpha", alpha), inplace=inplace)


class SELU(Elementwise):
    r"""Scaled exponential linear unit: keeps mean 0 and variance 1 through a deep network.

    .. math:: \operatorname{SELU}(x) = s \, (\max(x, 0) + \alpha \, (e^{\min(x, 0)} - 1))

    with :math:`s \approx 1.0507` and :math:`\alpha \approx 1.6733`.

    Args:
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.SELU()(jnp.zeros((2, 3))).shape
        (2, 3)

    References:
        Klambauer et al., "Self-normalizing neural networks", 2017; torch.nn.SELU
    """

    _function = staticmethod(F.selu)

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace=inplace)


class CELU(Elementwise):
    r"""Exponential linear unit without a corner at 0, whatever ``alpha`` is.

    .. math:: \operatorname{CELU}(x) = \max(x, 0) + \alpha \, (e^{\min(x, 0)/\alpha} - 1)

    Args:
        alpha: minus the value that large negative input tends to, not 0.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Raises:
        ArgumentError: ``alpha`` is 0.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.CELU(alpha=0.5)(jnp.array([-100.0, 2.0])).tolist()
        [-0.5, 2.0]

    References:
        Barron, "Continuously differentiable exponential linear units", 2017; torch.nn.CELU
    """

    _function = staticmethod(F.celu)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        alpha = number("alpha", alpha)
        if alpha == 0:
            raise ArgumentError(f"alpha must not be 0, but got {alpha}; use ReLU for that limit")
        super().__init__(alpha=alpha, inplace=inplace)


class Softplus(Elementwise):
    r"""Smooth rectifier.

    .. math:: \operatorname{Softplus}(x) = \frac{1}{\beta} \log(1 + e^{\beta x})

    Args:
        beta: the sharpness of the bend.
        threshold: where ``input * beta`` exceeds it the result is the input itself.

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Softplus()(jnp.array([-100.0, 100.0])).tolist()
        [0.0, 100.0]

    References:
        torch.nn.Softplus
    """

    _function = staticmethod(F.softplus)

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(beta=number("beta", beta), threshold=number("threshold", threshold))


class LogSigmoid(Optionless):
    r"""Logarithm of the logistic function.

    .. math:: \operatorname{LogSigmoid}(x) = -\log(1 + e^{-x})

    Shape:
        - input: any, floating point.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.LogSigmoid()(jnp.array([-1000.0])).tolist()
        [-1000.0]

    References:
        torch.nn.LogSigmoid
    """

    _function = staticmethod(F.logsigmoid)


class Softsign(Optionless):
    r"""The input divided by one more than its size.

    .. math:: \operatorname{Softsign}(x) = \frac{x}{1 + |x|}

    Shape:
        - input: any; integers are taken as float32.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Softsign()(jnp.array([-1.0, 3.0])).tolist()
        [-0.5, 0.75]

    References:
        torch.nn.Softsign
    """

    _function = staticmethod(F.softsign)


class Tanhshrink(Optionless):
    r"""The input less its hyperbolic tangent.

    .. math:: \operatorname{Tanhshrink}(x) = x - \tanh(x)

    Shape:
        - input: any; integers are taken as float32.
        - output: as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Tanhshrink()(jnp.array([0.0, 100.0])).tolist()
        [0.0, 99.0]

    References:
        torch.nn.Tanhshrink
    """

    _function = staticmethod(F.tanhshrink)


class GLU(Elementwise):
    r"""Gated linear unit: one half of the input times the sigmoid of the other.

    .. math:: \operatorname{GLU}(a, b) = a \, \sigma(b)

    Args:
        dim: the axis to halve; the first half is :math:`a`, the second :math:`b`.

    Shape:
        - input: :math:`(*, 2M, *)`, floating point, with :math:`2M` along ``dim``.
        - output: :math:`(*, M, *)`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.GLU()(jnp.ones((4, 6))).shape
        (4, 3)

    References:
        Dauphin et al., "Language modeling with gated convolutional networks", 2016; torch.nn.GLU
    """

    _function = staticmethod(F.glu)

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim=as_int("dim", dim))
