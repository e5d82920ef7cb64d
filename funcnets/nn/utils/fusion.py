"""Batch normalisation with fixed statistics, merged into the layer before it."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from funcnets.core.cell import Cell, Parameter
from funcnets.core.convert import as_array
from funcnets.core.module import Module
from funcnets.errors import ArgumentError

__all__ = [
    "fuse_conv_bn_eval",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_eval",
    "fuse_linear_bn_weights",
]

M = TypeVar("M", bound=Module)


def _check(layer: Any, norm: Any) -> None:
    if layer.training or norm.training:
        raise ArgumentError(
            "Fusion only for eval! Call eval() on both modules: in training the statistics change"
        )
    if norm.running_mean is None or norm.running_var is None:
        raise ArgumentError(
            "the batch normalisation has no running statistics (track_running_stats=False) to be merged"
        )


def _merged(
    weight: Any, bias: Any, mean: Any, var: Any, eps: float, gamma: Any, beta: Any, axis: int
) -> tuple[Parameter, Parameter]:
    """The weight and bias of one layer that does both."""
    trained = [not isinstance(p, Cell) or p.requires_grad for p in (weight, bias)]
    w, mean, var = (as_array(a, None) for a in (weight, mean, var))
    b, gamma, beta = (
        jnp.full_like(mean, fill) if a is None else as_array(a, None)
        for a, fill in ((bias, 0), (gamma, 1), (beta, 0))
    )
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.promote_types(w.dtype, mean.dtype)
    scale = gamma.astype(wide) * jax.lax.rsqrt(var.astype(wide) + eps)
    shape = [1] * w.ndim
    shape[axis] = -1
    new_w = w.astype(wide) * jnp.broadcast_to(scale.reshape(shape), w.shape)
    rows = (w.shape[axis],)
    new_b = (b.astype(wide) - mean.astype(wide)) * scale + beta.astype(wide)
    dtype = w.dtype if bias is None else b.dtype
    return (
        Parameter(new_w.astype(w.dtype), requires_grad=trained[0]),
        # As in PyTorch, a bias that was not there before is not trained.
        Parameter(
            jnp.broadcast_to(new_b, rows).astype(dtype),
            requires_grad=bias is not None and trained[1],
        ),
    )


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A convolution that does what ``conv`` and ``bn`` do one after the other.

    Args:
        conv: a convolution, in evaluation mode.
        bn: a batch normalisation with running statistics, in evaluation mode.
        transpose: whether ``conv`` is a transposed convolution.

    Returns:
        A new module.

    Raises:
        ArgumentError: one of the two is in training mode, or ``bn`` has no running statistics.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> conv, bn = nn.Conv2d(3, 4, 3).eval(), nn.BatchNorm2d(4).eval()
        >>> x = jnp.ones((1, 3, 5, 5))
        >>> bool(jnp.allclose(nn.utils.fuse_conv_bn_eval(conv, bn)(x), bn(conv(x)), atol=1e-5))
        True

    References:
        torch.nn.utils.fuse_conv_bn_eval
    """
    _check(conv, bn)
    fused: Any = copy.deepcopy(conv)
    norm: Any = bn
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
        norm.bias, transpose,
    )  # fmt: skip
    return fused


def fuse_conv_bn_weights(
    conv_w: Any,
    conv_b: Any,
    bn_rm: Any,
    bn_rv: Any,
    bn_eps: float,
    bn_w: Any,
    bn_b: Any,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """The weight and bias of a convolution that does a batch normalisation, too.

    Args:
        conv_w: the weight of the convolution.
        conv_b: its bias, or None.
        bn_rm: the running mean.
        bn_rv: the running variance.
        bn_eps: what is added to it.
        bn_w: the weight of the normalisation, or None.
        bn_b: its bias, or None.
        transpose: whether it is the weight of a transposed convolution.

    Returns:
        Two Parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> ones = jnp.ones(2)
        >>> weight, bias = nn.utils.fuse_conv_bn_weights(
        ...     jnp.ones((2, 3, 1)), None, ones, ones, 0.0, 2 * ones, ones
        ... )
        >>> weight.shape, bias.tolist()
        ((2, 3, 1), [-1.0, -1.0])

    References:
        torch.nn.utils.fuse_conv_bn_weights
    """
    return _merged(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, axis=int(transpose))


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """A linear layer that does what ``linear`` and ``bn`` do one after the other.

    Args:
        linear: a linear layer, in evaluation mode.
        bn: a batch normalisation with running statistics, of as many features or of a single one,
            in evaluation mode.

    Returns:
        A new module.

    Raises:
        ArgumentError: one of the two is in training mode, ``bn`` has no running statistics, or
            another number of features.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> linear, bn = nn.Linear(3, 4).eval(), nn.BatchNorm1d(4).eval()
        >>> x = jnp.ones((2, 3))
        >>> bool(jnp.allclose(nn.utils.fuse_linear_bn_eval(linear, bn)(x), bn(linear(x)), atol=1e-5))
        True

    References:
        torch.nn.utils.fuse_linear_bn_eval
    """
    _check(linear, bn)
    fused: Any = copy.deepcopy(linear)
    norm: Any = bn
    if norm.num_features not in (fused.out_features, 1):
        raise ArgumentError(
            "to fuse, bn.num_features must be linear.out_features or 1, but got "
            f"linear.out_features={fused.out_features} and bn.num_features={norm.num_features}"
        )
    fused.weight, fused.bias = fuse_linear_bn_weights(
        fused.weight, fused.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight,
        norm.bias,
    )  # fmt: skip
    return fused


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """The weight and bias of a linear layer that does a batch normalisation, too.

    Args:
        linear_w: the weight of the linear layer.
        linear_b: its bias, or None.
        bn_rm: the running mean.
        bn_rv: the running variance.
        bn_eps: what is added to it.
        bn_w: the weight of the normalisation, or None.
        bn_b: its bias, or None.

    Returns:
        Two Parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> ones = jnp.ones(2)
        >>> weight, bias = nn.utils.fuse_linear_bn_weights(
        ...     jnp.ones((2, 3)), ones, ones, ones, 0.0, 2 * ones, ones
        ... )
        >>> weight.tolist(), bias.tolist()
        ([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]], [1.0, 1.0])

    References:
        torch.nn.utils.fuse_linear_bn_weights
    """
    return _merged(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, axis=0)
