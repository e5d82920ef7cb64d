"""Losses between numbers, or of a distribution's parameters given data, as layers."""

from __future__ import annotations

import jax

from funcnets import functional as F
from funcnets.errors import ArgumentError
from funcnets.functional._numeric import number
from funcnets.nn.loss import Loss

__all__ = [
    "GaussianNLLLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
]


class MSELoss(Loss):
    r"""Squared error.

    .. math:: \ell = (x - y)^2

    Args:
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: any.
        - target: as the input; another shape is broadcast with a warning.
        - output: a number; with ``reduction='none'`` as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.MSELoss()(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])).item()
        2.0

    References:
        torch.nn.MSELoss
    """

    _function = staticmethod(F.mse_loss)


class L1Loss(Loss):
    r"""Absolute error.

    .. math:: \ell = |x - y|

    Its gradient is 0 where the two are equal.

    Args:
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: any.
        - target: as the input; another shape is broadcast with a warning.
        - output: a number; with ``reduction='none'`` as the input.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.L1Loss()(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])).item()
        1.0

    References:
        torch.nn.L1Loss
    """

    _function = staticmethod(F.l1_loss)


class SmoothL1Loss(Loss):
    r"""Absolute error, made quadratic near zero.

    .. math::
        \ell = \begin{cases}
            (x - y)^2 / 2\beta & |x - y| < \beta \\
            |x - y| - \beta / 2 & \text{otherwise}
        \end{cases}

    Args:
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        beta: where the two pieces meet; 0 gives :class:`L1Loss`.

    Shape:
        - input: any.
        - target: as the input; another shape is broadcast with a warning.
        - output: a number; with ``reduction='none'`` as the input.

    Raises:
        ArgumentError: ``beta`` is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.SmoothL1Loss()(jnp.array([1.0, 2.0]), jnp.array([2.0, 5.0])).item()
        1.5

    References:
        Girshick, "Fast R-CNN", 2015; torch.nn.SmoothL1Loss
    """

    _function = staticmethod(F.smooth_l1_loss)
    _options = ("beta",)

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = number("beta", beta)
        if not self.beta >= 0:
            raise ArgumentError(f"beta must not be negative, but got {beta}")


class HuberLoss(Loss):
    r"""Squared error, made linear far from zero.

    .. math::
        \ell = \begin{cases}
            (x - y)^2 / 2 & |x - y| < \delta \\
            \delta \, (|x - y| - \delta / 2) & \text{otherwise}
        \end{cases}

    Args:
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        delta: where the two pieces meet, positive.

    Shape:
        - input: any.
        - target: as the input; another shape is broadcast with a warning.
        - output: a number; with ``reduction='none'`` as the input.

    Raises:
        ArgumentError: ``delta`` is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.HuberLoss()(jnp.array([1.0, 2.0]), jnp.array([2.0, 5.0])).item()
        1.5

    References:
        Huber, "Robust estimation of a location parameter", 1964; torch.nn.HuberLoss
    """

    _function = staticmethod(F.huber_loss)
    _options = ("delta",)

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = number("delta", delta)
        if not self.delta > 0:
            raise ArgumentError(f"delta must be positive, but got {delta}")


class PoissonNLLLoss(Loss):
    r"""Negative log likelihood of counts under a Poisson distribution.

    .. math::
        \ell = \begin{cases}
            e^{x} - y x & \text{log\_input} \\
            x - y \log(x + \epsilon) & \text{otherwise}
        \end{cases}

    ``full`` adds Stirling's :math:`y \log y - y + \frac12 \log 2 \pi y` where :math:`y > 1`.

    Args:
        log_input: whether the input holds logarithms of the expected counts.
        full: add the approximate :math:`\log y!`, which depends on the target alone.
        size_average: deprecated, see ``reduction``.
        eps: keeps the logarithm finite when ``log_input`` is False.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - log_input: any.
        - target: as the input, or broadcasting with it.
        - output: a number; with ``reduction='none'`` the common shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.PoissonNLLLoss()(jnp.zeros(3), jnp.array([1.0, 2.0, 5.0])).item()
        1.0

    References:
        torch.nn.PoissonNLLLoss
    """

    _function = staticmethod(F.poisson_nll_loss)
    _options = ("log_input", "full", "eps")

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: bool | None = None,
        eps: float = 1e-8,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = number("eps", eps)

    def forward(self, log_input: jax.Array, target: jax.Array) -> jax.Array:
        return self.compute(log_input, target)


class GaussianNLLLoss(Loss):
    r"""Negative log likelihood under normal distributions of given means and variances.

    .. math:: \ell = \frac12 \left( \log v + \frac{(x - y)^2}{v} \right), \quad
        v = \max(\text{var}, \epsilon)

    With ``full``, the constant :math:`\frac12 \log 2\pi` is added. The bound does not stop the
    gradient to ``var``.

    Args:
        full: add the constant.
        eps: the least variance.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: the means, any.
        - target: the observations, which broadcast with the input.
        - var: one number, or an array of the shape of the input, of that shape without its last
          axis, or with a 1 in place of one axis. Negative entries of an array count as ``eps``.
        - output: a number; with ``reduction='none'`` the common shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.GaussianNLLLoss()(jnp.zeros(3), jnp.ones(3), 1.0).item()
        0.5

    References:
        Nix and Weigend, "Estimating the mean and variance of the target probability distribution",
        1994; torch.nn.GaussianNLLLoss
    """

    _function = staticmethod(F.gaussian_nll_loss)
    _options = ("full", "eps")

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(None, None, reduction)
        self.full = full
        self.eps = number("eps", eps)

    def forward(self, input: jax.Array, target: jax.Array, var: jax.Array | float) -> jax.Array:
        return self.compute(input, target, var)


class KLDivLoss(Loss):
    r"""Kullback-Leibler divergence of a distribution, given by its logarithm, from a target.

    .. math:: \ell = y \, (\log y - x)

    Args:
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'sum'``, ``'batchmean'``, which divides the sum by the size of axis
            0 and is the divergence as defined, or ``'mean'``, which divides by the number of
            elements and warns when called, as in PyTorch.
        log_target: whether the target holds logarithms.

    Shape:
        - input: log-probabilities, any.
        - target: as the input, or broadcasting with it.
        - output: a number; with ``reduction='none'`` the common shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> p = jnp.full((2, 4), 0.25)
        >>> nn.KLDivLoss(reduction="batchmean")(jnp.log(p), p).item()
        0.0

    References:
        Kullback and Leibler, "On information and sufficiency", 1951; torch.nn.KLDivLoss
    """

    _function = staticmethod(F.kl_div)
    _options = ("log_target",)
    _reductions = ("batchmean",)

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target
