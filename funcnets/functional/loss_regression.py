"""Losses between numbers, and between a distribution's parameters and what was observed."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._loss import broadcast, common, matched, reduced, resolve_reduction
from funcnets.functional._numeric import absolute, as_array, real, widen

__all__ = [
    "gaussian_nll_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
]


def _weights(weight: Any, input: Any) -> jax.Array:
    weight = real("weight", weight)
    if weight.shape != input.shape:
        raise ShapeError(
            f"weight must have the shape of input, {input.shape}, but got {describe(weight)}"
        )
    return widen(weight)


def _weighted_mean(
    loss: jax.Array, weight: Any, input: Any, reduction: str, dtype: Any
) -> jax.Array:
    """The reduction of L1 and squared errors: their mean divides by the sum of the weights."""
    if weight is None:
        return reduced(loss, reduction, dtype)
    weight = _weights(weight, input).astype(loss.dtype)
    loss = loss * (weight if weight.shape == loss.shape else jnp.broadcast_to(weight, loss.shape))
    if reduction == "mean":
        return (loss.sum() / weight.sum()).astype(dtype)
    return reduced(loss, reduction, dtype)


def mse_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: jax.Array | None = None,
) -> jax.Array:
    r"""Squared error.

    .. math:: \ell = w \, (x - y)^2

    Args:
        input: an array of any shape.
        target: what ``input`` should be; another shape is broadcast with a warning.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``; with weights the mean divides by their sum.
        weight: a factor for each element, of the shape of ``input``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: neither array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not broadcast, or ``weight`` has another one than ``input``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.mse_loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])).item()
        2.0

    References:
        torch.nn.functional.mse_loss
    """
    input, target = in_full(input, target)
    reduction = resolve_reduction(size_average, reduce, reduction)
    x, y, dtype = matched(input, target)
    return _weighted_mean(jnp.square(x - y), weight, input, reduction, dtype)


def l1_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: jax.Array | None = None,
) -> jax.Array:
    r"""Absolute error.

    .. math:: \ell = w \, |x - y|

    Its gradient is 0 where the two are equal.

    Args:
        input: an array of any shape.
        target: what ``input`` should be; another shape is broadcast with a warning.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``; with weights the mean divides by their sum.
        weight: a factor for each element, of the shape of ``input``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: neither array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not broadcast, or ``weight`` has another one than ``input``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.l1_loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])).item()
        1.0

    References:
        torch.nn.functional.l1_loss
    """
    input, target = in_full(input, target)
    reduction = resolve_reduction(size_average, reduce, reduction)
    x, y, dtype = matched(input, target)
    return _weighted_mean(absolute(x - y), weight, input, reduction, dtype)


def smooth_l1_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> jax.Array:
    r"""Absolute error, made quadratic near zero.

    .. math::
        \ell = \begin{cases}
            (x - y)^2 / 2\beta & |x - y| < \beta \\
            |x - y| - \beta / 2 & \text{otherwise}
        \end{cases}

    Args:
        input: an array of any shape.
        target: what ``input`` should be; another shape is broadcast with a warning.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        beta: where the two pieces meet; 0 gives :func:`l1_loss`.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid or ``beta`` is negative.
        DTypeError: neither array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.smooth_l1_loss(jnp.array([1.0, 2.0]), jnp.array([2.0, 5.0])).item()
        1.5

    References:
        Girshick, "Fast R-CNN", 2015; torch.nn.functional.smooth_l1_loss
    """
    input, target = in_full(input, target)
    reduction = resolve_reduction(size_average, reduce, reduction)
    if not beta >= 0:
        raise ArgumentError(f"beta must not be negative, but got {beta}")
    x, y, dtype = matched(input, target)
    error = absolute(x - y)
    if beta != 0:
        error = jnp.where(error < beta, 0.5 * jnp.square(x - y) / beta, error - 0.5 * beta)
    return reduced(error, reduction, dtype)


def huber_loss(
    input: jax.Array,
    target: jax.Array,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: jax.Array | None = None,
) -> jax.Array:
    r"""Squared error, made linear far from zero.

    .. math::
        \ell = w \cdot \begin{cases}
            (x - y)^2 / 2 & |x - y| < \delta \\
            \delta \, (|x - y| - \delta / 2) & \text{otherwise}
        \end{cases}

    Args:
        input: an array of any shape.
        target: what ``input`` should be; another shape is broadcast with a warning.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``; the mean divides by the number of elements.
        delta: where the two pieces meet, positive.
        weight: a factor for each element, of the shape of ``input``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid or ``delta`` is not positive.
        DTypeError: neither array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not broadcast, or ``weight`` has another one than ``input``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.huber_loss(jnp.array([1.0, 2.0]), jnp.array([2.0, 5.0])).item()
        1.5

    References:
        Huber, "Robust estimation of a location parameter", 1964; torch.nn.functional.huber_loss
    """
    input, target = in_full(input, target)
    reduction = resolve_reduction(None, None, reduction)
    if not delta > 0:
        raise ArgumentError(f"delta must be positive, but got {delta}")
    x, y, dtype = matched(input, target)
    error = absolute(x - y)
    loss = jnp.where(error < delta, 0.5 * jnp.square(x - y), delta * (error - 0.5 * delta))
    if weight is not None:
        factor = _weights(weight, input).astype(loss.dtype)
        loss = loss * jnp.broadcast_to(factor, loss.shape)
    return reduced(loss, reduction, dtype)


def poisson_nll_loss(
    input: jax.Array,
    target: jax.Array,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""Negative log likelihood of counts under a Poisson distribution.

    .. math::
        \ell = \begin{cases}
            e^{x} - y x & \text{log\_input} \\
            x - y \log(x + \epsilon) & \text{otherwise}
        \end{cases}

    ``full`` adds Stirling's :math:`y \log y - y + \frac12 \log 2 \pi y` where :math:`y > 1`.

    Args:
        input: the expected counts or their logarithms.
        target: the counts; the two are broadcast.
        log_input: whether ``input`` holds logarithms.
        full: add the approximate :math:`\log y!`, which depends on ``target`` alone.
        size_average: deprecated, see ``reduction``.
        eps: keeps the logarithm finite when ``log_input`` is False.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: neither array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.poisson_nll_loss(jnp.zeros(3), jnp.array([1.0, 2.0, 5.0])).item()
        1.0

    References:
        torch.nn.functional.poisson_nll_loss
    """
    input, target = in_full(input, target)
    reduction = resolve_reduction(size_average, reduce, reduction)
    (x, y), dtype = common(input=input, target=target)
    x, y = broadcast(input=x, target=y)
    loss = jnp.exp(x) - y * x if log_input else x - y * jnp.log(x + eps)
    if full:
        count = jnp.where(y > 1.0, y, jnp.ones_like(y))
        stirling = count * jnp.log(count) - count + 0.5 * jnp.log(2.0 * math.pi * count)
        loss = loss + jnp.where(y > 1.0, stirling, jnp.zeros_like(y))
    return reduced(loss, reduction, dtype)


def _variance(var: Any, shape: tuple[int, ...]) -> jax.Array:
    """``var`` in a shape that broadcasts against ``shape``."""
    var = as_array("var", var)
    if var.shape == shape:
        return var
    if var.shape == shape[:-1]:
        return var[..., None]
    differing = [n for m, n in zip(shape, var.shape, strict=False) if m != n]
    if var.ndim == len(shape) and differing == [1]:
        return var
    raise ShapeError(
        f"var must have the shape of input, {shape}, or that without its last axis, or with a 1 in "
        f"place of one axis, but got {describe(var)}"
    )


def gaussian_nll_loss(
    input: jax.Array,
    target: jax.Array,
    var: jax.Array | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> jax.Array:
    r"""Negative log likelihood under normal distributions of given means and variances.

    .. math:: \ell = \frac12 \left( \log v + \frac{(x - y)^2}{v} \right), \quad
        v = \max(\text{var}, \epsilon)

    With ``full``, the constant :math:`\frac12 \log 2\pi` is added. The bound does not stop the
    gradient to ``var``.

    Args:
        input: the means.
        target: the observations, which broadcast with ``input``.
        var: the variances: one number, or an array of the shape of ``input``, of that shape without
            its last axis, or with a 1 in place of one axis. Negative entries of an array cannot be
            seen while tracing; they count as ``eps``.
        full: add the constant.
        eps: the least variance.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid or ``var`` is a negative number.
        DTypeError: no array is of floating point numbers, or one is complex.
        ShapeError: the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.gaussian_nll_loss(jnp.zeros(3), jnp.ones(3), 1.0).item()
        0.5

    References:
        Nix and Weigend, "Estimating the mean and variance of the target probability distribution",
        1994; torch.nn.functional.gaussian_nll_loss
    """
    input, target, var = in_full(input, target, var)
    reduction = resolve_reduction(None, None, reduction)
    input = as_array("input", input)
    if isinstance(var, (int, float)):
        if var < 0:
            raise ArgumentError(f"var must not be negative, but got {var}")
        var = jnp.full(input.shape, var, input.dtype)
    var = _variance(var, input.shape)
    (x, y, v), dtype = common(input=input, target=target, var=var)
    x, y, v = broadcast(input=x, target=y, var=v)
    # The bounded value with the derivative of the unbounded one.
    v = jax.lax.stop_gradient(jnp.maximum(v, eps)) + (v - jax.lax.stop_gradient(v))
    loss = 0.5 * (jnp.log(v) + jnp.square(x - y) / v)
    if full:
        loss = loss + 0.5 * math.log(2.0 * math.pi)
    return reduced(loss, reduction, dtype)


def kl_div(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> jax.Array:
    r"""Kullback-Leibler divergence of a distribution, given by its logarithm, from a target.

    .. math:: \ell = y \, (\log y - x)

    Args:
        input: log-probabilities.
        target: probabilities, or log-probabilities with ``log_target``; the two are broadcast.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'sum'``, ``'batchmean'``, which divides the sum by the size of axis
            0 and is the divergence as defined, or ``'mean'``, which divides by the number of
            elements and warns, as in PyTorch.
        log_target: whether ``target`` holds logarithms.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: an array is not of real floating point numbers.
        ShapeError: the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> p = jnp.full((2, 4), 0.25)
        >>> F.kl_div(jnp.log(p), p, reduction="batchmean").item()
        0.0

    References:
        Kullback and Leibler, "On information and sufficiency", 1951; torch.nn.functional.kl_div
    """
    input, target = in_full(input, target)
    legacy = size_average is not None or reduce is not None
    reduction = resolve_reduction(size_average, reduce, reduction, extra=("batchmean",))
    if reduction == "mean" and not legacy:
        warnings.warn(
            "kl_div with reduction='mean' divides by the number of elements, which is not the "
            "divergence; write reduction='batchmean' for that",
            UserWarning,
            stacklevel=3,
        )
    for name, x in (("input", input), ("target", target)):
        real(name, x)
    (x, y), dtype = common(input=input, target=target)
    rows = x.shape[0] if x.ndim else 1
    x, y = broadcast(input=x, target=y)
    loss = jnp.exp(y) * (y - x) if log_target else jax.scipy.special.xlogy(y, y) - y * x
    if reduction == "batchmean":
        return (loss.sum() / rows).astype(dtype)
    return reduced(loss, reduction, dtype)
