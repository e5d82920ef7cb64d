r"""Normalisation over a batch, or over each channel of a sample, with or without running averages.

All functions are pure: the running averages of a layer are its own business, and what it needs for
them are :func:`batch_norm_stats`, :func:`instance_norm_stats` and :func:`running_average`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import describe
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._numeric import as_array, widen
from funcnets.functional.norm import check_channels, moments, normalise, standardise

__all__ = [
    "batch_norm",
    "batch_norm_stats",
    "instance_norm",
    "instance_norm_stats",
    "running_average",
]


def batch_norm(
    input: jax.Array,
    running_mean: jax.Array | None,
    running_var: jax.Array | None,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> jax.Array:
    r"""Normalise each channel, with the statistics of the batch or with given ones.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    Args:
        input: ``(N, C, *)``.
        running_mean: ``(C,)``; :math:`\mu` unless ``training``.
        running_var: ``(C,)``; :math:`\sigma^2` unless ``training``.
        weight: :math:`\gamma`, ``(C,)``, or None for 1.
        bias: :math:`\beta`, ``(C,)``, or None for 0.
        training: take the mean and the (biased) variance of ``input``.
        momentum: accepted for PyTorch's signature, where it updates the running statistics in
            place; here :func:`batch_norm_stats` and :func:`running_average` give the new ones.
        eps: added to the variance; positive in training.

    Returns:
        An array of the shape and dtype of ``input``.

    Raises:
        ShapeError: shapes that do not fit together; in training, a single value per channel.
        DTypeError: ``input`` is not floating point, or the parameters have another dtype.
        ArgumentError: running statistics are missing, or ``eps`` is too small.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.batch_norm(jnp.ones((4, 3, 8)), jnp.zeros(3), jnp.ones(3)).shape
        (4, 3, 8)

    References:
        Ioffe and Szegedy, 2015; torch.nn.functional.batch_norm
    """
    input = check_channels(
        input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if eps < 0 or (training and eps == 0):
        bound = "positive in training" if training else "non-negative"
        raise ArgumentError(f"eps must be {bound}, but got {eps}")
    if (running_mean is None) != (running_var is None):
        raise ArgumentError("running_mean and running_var must both be arrays or both be None")
    if training:
        return normalise_batch(input, weight, bias, eps)[0]
    if running_mean is None or running_var is None:
        raise ArgumentError(
            "running_mean and running_var must be arrays when training=False, but got None"
        )
    mean, var = _per_channel(running_mean, input), _per_channel(running_var, input)
    return standardise(input, mean, var, *_arrays(weight, bias), eps)


def batch_norm_stats(
    input: jax.Array, axis_name: str | tuple[str, ...] | None = None
) -> tuple[jax.Array, jax.Array, jax.Array | int]:
    """The statistics with which :func:`batch_norm` normalises in training.

    Args:
        input: ``(N, C, *)``.
        axis_name: name or names of mapped axes (``jax.shard_map``, ``jax.vmap(axis_name=...)``)
            whose members hold equal parts of one batch; the statistics are those of all of it.

    Returns:
        ``(mean, var, count)``: ``(C,)`` each, at least in float32, the variance being the biased
        one, and the number of values per channel. ``var * count / (count - 1)`` is the unbiased
        variance, of which PyTorch keeps the running average.

    Raises:
        ShapeError: a single value per channel.
        ArgumentError: ``axis_name`` is not mapped here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> mean, var, count = F.batch_norm_stats(jnp.ones((4, 3, 8)))
        >>> mean.shape, var.shape, count
        ((3,), (3,), 32)
    """
    input = check_channels(input)
    axes, count = _batch(input, axis_name)
    mean, var = moments(input, axes, axis_name)
    return mean.reshape(-1), var.reshape(-1), count


def normalise_batch(
    input: jax.Array, weight: jax.Array | None, bias: jax.Array | None, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array, int]:
    """What :func:`batch_norm` gives in training, and with it what :func:`batch_norm_stats` does.

    Together they have a gradient that is cheaper than that of the one by way of the other.
    """
    input = check_channels(input, weight=weight, bias=bias)
    axes, count = _batch(input)
    out, mean, var = normalise(input, *_arrays(weight, bias), axes, float(eps))
    return out, mean.reshape(-1), var.reshape(-1), count


def _batch(
    input: jax.Array, axis_name: str | tuple[str, ...] | None = None
) -> tuple[tuple[int, ...], Any]:
    """The axes over which a batch is normalised, and the number of values along them."""
    axes = (0, *range(2, input.ndim))
    count: jax.Array | int = math.prod(input.shape[axis] for axis in axes)
    if axis_name is not None:
        count = count * _axis_size(axis_name)
    if isinstance(count, int) and count == 1:
        raise ShapeError(
            f"batch statistics need more than one value per channel, but got input {describe(input)}; "
            "use a larger batch, or evaluation mode"
        )
    return axes, count


def running_average(
    running_mean: jax.Array,
    running_var: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    count: jax.Array | int,
    momentum: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    r"""Move running statistics towards those of a batch.

    .. math::
        \hat\mu \leftarrow (1 - m)\,\hat\mu + m\,\mu, \qquad
        \hat\sigma^2 \leftarrow (1 - m)\,\hat\sigma^2 + m\,\sigma^2\,\frac{n}{n - 1}

    Args:
        running_mean: :math:`\hat\mu`, ``(C,)``.
        running_var: :math:`\hat\sigma^2`, ``(C,)``.
        mean: :math:`\mu`, as :func:`batch_norm_stats` gives it.
        var: :math:`\sigma^2`, the biased variance, likewise.
        count: :math:`n`; 0 (an empty batch) changes nothing.
        momentum: :math:`m`; ``1 / k`` for the k-th batch makes a plain average.

    Returns:
        ``(running_mean, running_var)``, of the dtypes that they had. No gradient flows through.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> stats = F.batch_norm_stats(jnp.ones((4, 3)))
        >>> mean, var = F.running_average(jnp.zeros(3), jnp.ones(3), *stats, momentum=0.5)
        >>> mean.tolist(), var.tolist()
        ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    """
    if isinstance(count, int) and count == 0:
        return running_mean, running_var

    def move(running: jax.Array, value: jax.Array) -> jax.Array:
        wide = running.astype(value.dtype)
        weight = jnp.asarray(momentum, value.dtype)
        return lax.stop_gradient(wide * (1 - weight) + value * weight).astype(running.dtype)

    unbiased = var * jnp.asarray(count / (count - 1), var.dtype)
    return move(running_mean, mean), move(running_var, unbiased)


def instance_norm(
    input: jax.Array,
    running_mean: jax.Array | None = None,
    running_var: jax.Array | None = None,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> jax.Array:
    r"""Normalise each channel of each sample.

    .. math::
        y = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} \gamma + \beta

    Args:
        input: ``(N, C, *)``, with at least one axis behind the channels.
        running_mean: ``(C,)``; :math:`\mu` unless ``use_input_stats``.
        running_var: ``(C,)``; :math:`\sigma^2` unless ``use_input_stats``.
        weight: :math:`\gamma`, ``(C,)``, or None for 1.
        bias: :math:`\beta`, ``(C,)``, or None for 0.
        use_input_stats: take the mean and the (biased) variance of each channel of each sample.
        momentum: accepted for PyTorch's signature, where it updates the running statistics in
            place; here :func:`instance_norm_stats` and :func:`running_average` give the new ones.
        eps: added to the variance.

    Returns:
        An array of the shape and dtype of ``input``.

    Raises:
        ShapeError: shapes that do not fit together, or a single value per channel and sample.
        DTypeError: ``input`` is not floating point, or the parameters have another dtype.
        ArgumentError: running statistics are missing.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.instance_norm(jnp.ones((4, 3, 8))).shape
        (4, 3, 8)

    References:
        Ulyanov et al., 2016; torch.nn.functional.instance_norm
    """
    input = check_channels(
        input, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if (running_mean is None) != (running_var is None):
        raise ArgumentError("running_mean and running_var must both be arrays or both be None")
    if use_input_stats:
        _check_spatial(input)
        axes = tuple(range(2, input.ndim))
        return normalise(input, *_arrays(weight, bias), axes, float(eps))[0]
    if running_mean is None or running_var is None:
        raise ArgumentError(
            "running_mean and running_var must be arrays when use_input_stats=False, but got None"
        )
    mean, var = _per_channel(running_mean, input), _per_channel(running_var, input)
    return standardise(input, mean, var, *_arrays(weight, bias), eps)


def instance_norm_stats(input: jax.Array) -> tuple[jax.Array, jax.Array, int]:
    """The statistics of :func:`instance_norm`, averaged over the samples of the batch.

    Args:
        input: ``(N, C, *)``.

    Returns:
        ``(mean, var, count)`` as :func:`batch_norm_stats` does, with the number of values per
        channel and sample.

    Raises:
        ShapeError: a single value per channel and sample.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> mean, var, count = F.instance_norm_stats(jnp.ones((4, 3, 8)))
        >>> mean.shape, var.shape, count
        ((3,), (3,), 8)
    """
    input = check_channels(input)
    _check_spatial(input)
    mean, var = moments(input, tuple(range(2, input.ndim)))
    count = math.prod(input.shape[2:]) if input.shape[0] else 0
    mean, var = (x.reshape(input.shape[:2]).mean(0) for x in (mean, var))
    return mean, var, count


def _arrays(weight: Any, bias: Any) -> tuple[jax.Array | None, jax.Array | None]:
    weight = None if weight is None else as_array("weight", weight)
    return weight, None if bias is None else as_array("bias", bias)


def _per_channel(statistic: jax.Array, input: jax.Array) -> jax.Array:
    shape = (1, -1) + (1,) * (input.ndim - 2)
    return widen(as_array("running statistics", statistic)).reshape(shape)


def _check_spatial(input: jax.Array) -> None:
    if math.prod(input.shape[2:]) == 1:
        raise ShapeError(
            "instance statistics need more than one value per channel and sample, "
            f"but got input {describe(input)}"
        )


def _axis_size(axis_name: str | tuple[str, ...]) -> jax.Array | int:
    try:
        return lax.psum(1, axis_name)
    except NameError:
        raise ArgumentError(
            f"the axis {axis_name!r} is not mapped here; call this inside of jax.shard_map or "
            "jax.vmap(..., axis_name=...) with an axis of that name, or give no name"
        ) from None
