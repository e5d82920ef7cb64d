"""Activations that normalise along an axis: softmax and its kin."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from funcnets.functional._autocast import in_full
from funcnets.functional._numeric import axis_of, need_key, real, widen

__all__ = ["gumbel_softmax", "log_softmax", "softmax", "softmin"]


def _implicit_axis(name: str, ndim: int, stacklevel: int) -> int:
    axis = 0 if ndim in (0, 1, 3) else 1
    warnings.warn(
        f"{name} was called with dim=None, and PyTorch's deprecated rule chose dim={axis} for an "
        f"input of rank {ndim}; write dim={axis} or the axis that you mean",
        UserWarning,
        stacklevel=stacklevel + 2,
    )
    return axis


def _normalise(name: str, function, input, dim, stacklevel: int, dtype) -> jax.Array:
    if dtype is None:
        input = in_full(input)
    elif hasattr(input, "astype"):
        input = input.astype(dtype)
    input = real("input", input)
    if dim is None:
        dim = _implicit_axis(name, input.ndim, stacklevel)
    axis = axis_of("dim", dim, input)
    rows = input.reshape(1) if input.ndim == 0 else input
    if rows.shape[axis] == 0:  # nothing to take the maximum of
        return input
    return function(widen(rows), axis=axis).astype(input.dtype).reshape(input.shape)


def softmax(
    input: jax.Array, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> jax.Array:
    r"""Positive numbers that sum to one along an axis.

    .. math:: \operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}

    A slice that is ``-inf`` throughout gives NaN.

    Args:
        input: a floating point array. Half precision is summed in float32.
        dim: the axis. None takes axis 0 for rank 0, 1 and 3 and axis 1 otherwise, with a
            warning, as PyTorch does.
        _stacklevel: how many frames up the warning points.
        dtype: the dtype to convert ``input`` to first, and of the result.

    Returns:
        An array of the shape of ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array and ``dtype`` is not given.
        ShapeError: ``input`` has no axis ``dim``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.softmax(jnp.zeros((2, 4)), dim=1)[0].tolist()
        [0.25, 0.25, 0.25, 0.25]

    References:
        torch.nn.functional.softmax
    """
    return _normalise("softmax", jax.nn.softmax, input, dim, _stacklevel, dtype)


def softmin(
    input: jax.Array, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> jax.Array:
    r"""Softmax of the negated input: the smallest element gets the largest share.

    .. math:: \operatorname{softmin}(x)_i = \frac{e^{-x_i}}{\sum_j e^{-x_j}}

    Args:
        input: a floating point array. Half precision is summed in float32.
        dim: the axis; None chooses one as :func:`softmax` does.
        _stacklevel: how many frames up the warning points.
        dtype: the dtype to convert ``input`` to first, and of the result.

    Returns:
        An array of the shape of ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array and ``dtype`` is not given.
        ShapeError: ``input`` has no axis ``dim``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.softmin(jnp.zeros((2, 4)), dim=1)[0].tolist()
        [0.25, 0.25, 0.25, 0.25]

    References:
        torch.nn.functional.softmin
    """

    def negated(x: jax.Array, axis: int) -> jax.Array:
        return jax.nn.softmax(-x, axis=axis)

    return _normalise("softmin", negated, input, dim, _stacklevel, dtype)


def log_softmax(
    input: jax.Array, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> jax.Array:
    r"""Logarithm of the softmax, without its underflow.

    .. math:: \log \operatorname{softmax}(x)_i = x_i - \log \sum_j e^{x_j}

    Args:
        input: a floating point array. Half precision is summed in float32.
        dim: the axis; None chooses one as :func:`softmax` does.
        _stacklevel: how many frames up the warning points.
        dtype: the dtype to convert ``input`` to first, and of the result.

    Returns:
        An array of the shape of ``input``.

    Raises:
        DTypeError: ``input`` is not a real floating point array and ``dtype`` is not given.
        ShapeError: ``input`` has no axis ``dim``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.log_softmax(jnp.array([0.0, 1000.0]), dim=0).tolist()
        [-1000.0, 0.0]

    References:
        torch.nn.functional.log_softmax
    """
    return _normalise("log_softmax", jax.nn.log_softmax, input, dim, _stacklevel, dtype)


def gumbel_softmax(
    logits: jax.Array,
    tau: float | jax.Array = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""A differentiable sample from a categorical distribution.

    .. math::
        y = \operatorname{softmax}((\text{logits} + g) / \tau), \quad
        g \sim \text{Gumbel}(0, 1)

    Args:
        logits: unnormalised log-probabilities, a floating point array.
        tau: the temperature; the smaller it is the nearer the sample is to one-hot.
        hard: return a one-hot array, with the gradient of the soft one.
        eps: has no effect, in PyTorch too; a value other than the default warns.
        dim: the axis of the categories.
        rng: the key to draw with.

    Returns:
        An array like ``logits``, which sums to one along ``dim``.

    Raises:
        DTypeError: ``logits`` is not a real floating point array.
        RngError: ``rng`` is missing.
        ShapeError: ``logits`` has no axis ``dim``.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> sample = F.gumbel_softmax(jnp.zeros((2, 5)), hard=True, rng=jax.random.key(0))
        >>> sample.sum(axis=-1).tolist()
        [1.0, 1.0]

    References:
        Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax", 2016;
        Maddison, Mnih and Teh, "The concrete distribution", 2016;
        torch.nn.functional.gumbel_softmax
    """
    logits = in_full(logits)
    logits = real("logits", logits)
    if eps != 1e-10:
        warnings.warn("eps of gumbel_softmax has no effect; leave it out", stacklevel=3)
    axis = axis_of("dim", dim, logits)
    rng = need_key("gumbel_softmax", rng)
    noise = jax.random.gumbel(rng, logits.shape, widen(logits).dtype).astype(logits.dtype)
    soft = softmax((logits + noise) / jnp.asarray(tau, logits.dtype), axis)
    if not hard:
        return soft
    if logits.ndim == 0:
        one_hot = jnp.ones_like(soft)
    else:
        index = jnp.argmax(soft, axis=axis)
        one_hot = jax.nn.one_hot(index, soft.shape[axis], dtype=soft.dtype, axis=axis)
    # Straight through: the value of the one-hot array, the derivative of the soft one.
    return one_hot + (soft - jax.lax.stop_gradient(soft))
