"""Gradient clipping. Gradients are values here: the functions take them and return new ones.

    loss, grads = fn.value_and_grad(loss_fn)(model)
    grads, norm = nn.utils.clip_grad_norm_(grads, max_norm=1.0)
    optimizer.step(grads)

They are pure, so they work in and out of ``fn.jit`` and ``jax.jit``. The names keep PyTorch's trailing
underscore although nothing is changed in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets._args import describe
from funcnets.core.cell import Cell, Stateful
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.functional._numeric import widen

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
]


def _arrays(name: str, tree: Any, foreach: bool | None) -> list[jax.Array]:
    """The arrays of a tree of gradients."""
    if foreach:
        raise UnsupportedError(
            f"{name}(foreach=True) selects one of torch's kernels; XLA fuses the computation: leave it out"
        )
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, (Cell, Stateful, Iterator)))
    for leaf in leaves:
        if isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        if isinstance(leaf, (jax.Array, np.ndarray)):
            came = describe(leaf)
        else:
            came = f"a {type(leaf).__name__}"
        raise DTypeError(
            f"{name} takes gradients, which fn.grad and fn.value_and_grad return, and not parameters: a nested dict, "
            f"list or tuple of floating point arrays; but it holds {came}"
        )
    return leaves


def _norm(x: jax.Array, order: float) -> jax.Array:
    """The norm of a vector, in at least single precision."""
    sizes = widen(jnp.abs(x).ravel())
    if np.isinf(order):
        return jnp.max(sizes, initial=0.0) if order > 0 else jnp.min(sizes, initial=jnp.inf)
    if order == 0:
        return jnp.count_nonzero(sizes).astype(sizes.dtype)
    if order == 2:
        return jnp.sqrt(jnp.sum(jnp.square(sizes)))
    if order == 1:
        return jnp.sum(sizes)
    return jnp.sum(sizes**order) ** (1 / order)


def get_total_norm(
    tensors: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> jax.Array:
    r"""The norm of all arrays of a tree, as of one long vector.

    .. math::
        \Bigl( \sum_i |x_i|^p \Bigr)^{1/p}

    Args:
        tensors: an array, or a nested dict, list or tuple of arrays, such as gradients.
        norm_type: :math:`p`; ``float('inf')`` or ``'inf'`` for the largest element. As in PyTorch, 0
            counts the arrays that are not all zero.
        error_if_nonfinite: whether to raise if the norm is infinite or NaN; not inside of ``jit``, where
            it is not known.
        foreach: for PyTorch's signature; True is refused.

    Returns:
        A number; float32, or float64 if some array is. The norm of half precision gradients
        is not rounded to their precision, in which it would often be infinite.

    Raises:
        DTypeError: something else than floating point arrays.
        ArgumentError: the norm is not finite, with ``error_if_nonfinite``.
        UnsupportedError: ``error_if_nonfinite`` under a JAX transformation, or ``foreach``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> float(nn.utils.get_total_norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}))
        5.0

    References:
        torch.nn.utils.get_total_norm
    """
    leaves = _arrays("get_total_norm", tensors, foreach)
    order = float(norm_type)
    if not leaves:
        return jnp.zeros(())
    norms = [_norm(leaf, order) for leaf in leaves]
    widest = jnp.dtype(max((n.dtype for n in norms), key=lambda dtype: dtype.itemsize))
    total = _norm(jnp.stack([norm.astype(widest) for norm in norms]), order)
    if error_if_nonfinite:
        _check_finite(total, order)
    return total


def _check_finite(total: jax.Array, order: float) -> None:
    if isinstance(total, Tracer):
        raise UnsupportedError(
            "error_if_nonfinite=True needs the norm's value, which is not known while a function is traced: return "
            "the norm from the compiled function and check it outside"
        )
    if not jnp.isfinite(total):
        raise _NonFiniteError(
            f"The total norm of order {order} for gradients is non-finite, so it cannot be clipped. To disable this "
            "error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )


class _NonFiniteError(ArgumentError, RuntimeError):
    """A norm is infinite or NaN."""


def clip_grads_with_norm_(
    grads: Any, max_norm: float, total_norm: Any, foreach: bool | None = None
) -> Any:
    r"""Scale gradients down, given their norm.

    .. math::
        g \cdot \min\Bigl(1, \frac{\text{max\_norm}}{\text{total\_norm} + 10^{-6}}\Bigr)

    Args:
        grads: a nested dict, list or tuple of arrays.
        max_norm: the norm that is allowed.
        total_norm: a number, as :func:`get_total_norm` returns it.
        foreach: for PyTorch's signature; True is refused.

    Returns:
        The scaled gradients, in the same structure and dtypes.

    Raises:
        DTypeError: something else than floating point arrays.
        ShapeError: ``total_norm`` is not a single number.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> grads = nn.utils.clip_grads_with_norm_({"a": jnp.array([3.0, 4.0])}, 2.5, 5.0)
        >>> [round(float(g), 3) for g in grads["a"]]
        [1.5, 2.0]

    References:
        torch.nn.utils.clip_grads_with_norm_
    """
    _arrays("clip_grads_with_norm_", grads, foreach)
    total = jnp.asarray(total_norm)
    if total.shape != ():
        raise ShapeError(f"total_norm must be a single number, but got {describe(total)}")
    if not jnp.issubdtype(total.dtype, jnp.floating):
        total = total.astype(jnp.float32)
    factor = jnp.minimum(float(max_norm) / (total + 1e-6), 1.0)

    def scale(gradient: Any) -> jax.Array:
        gradient = jnp.asarray(gradient)
        wide = widen(gradient)
        return (wide * factor.astype(wide.dtype)).astype(gradient.dtype)

    return jax.tree.map(scale, grads)


def clip_grad_norm_(
    grads: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> tuple[Any, jax.Array]:
    """Scale gradients down such that the norm of all of them is at most ``max_norm``.

    Args:
        grads: the gradients, as ``fn.grad`` and ``fn.value_and_grad`` return them: a nested dict, list
            or tuple of arrays. Not parameters, which have no gradients here.
        max_norm: the norm that is allowed.
        norm_type: the order of the norm, see :func:`get_total_norm`.
        error_if_nonfinite: whether to raise if the norm is infinite or NaN; not inside of ``jit``.
        foreach: for PyTorch's signature; True is refused.

    Returns:
        ``(grads, total_norm)``: the new gradients, and their norm before that. PyTorch returns the norm
        only, and changes the gradients.

    Raises:
        DTypeError: something else than floating point arrays.
        ArgumentError: the norm is not finite, with ``error_if_nonfinite``.
        UnsupportedError: ``error_if_nonfinite`` under a JAX transformation, or ``foreach``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn, optim
        >>> model = nn.Linear(3, 1)
        >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
        >>> loss, grads = fn.value_and_grad(lambda m: (m(jnp.ones((2, 3))) ** 2).sum())(model)
        >>> grads, norm = nn.utils.clip_grad_norm_(grads, max_norm=1.0)
        >>> optimizer.step(grads)

    References:
        torch.nn.utils.clip_grad_norm_; optax.clip_by_global_norm
    """
    _arrays("clip_grad_norm_", grads, foreach)
    total = get_total_norm(grads, norm_type, error_if_nonfinite)
    return clip_grads_with_norm_(grads, max_norm, total), total


def clip_grad_norm(
    grads: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> tuple[Any, jax.Array]:
    """The deprecated name of :func:`clip_grad_norm_`.

    References:
        torch.nn.utils.clip_grad_norm
    """
    warnings.warn(
        "`torch.nn.utils.clip_grad_norm` is now deprecated in favor of "
        "`torch.nn.utils.clip_grad_norm_`.",
        FutureWarning,
        stacklevel=2,
    )
    return clip_grad_norm_(grads, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(grads: Any, clip_value: float, foreach: bool | None = None) -> Any:
    """Limit every element of the gradients to ``[-clip_value, clip_value]``.

    Args:
        grads: a nested dict, list or tuple of arrays.
        clip_value: the largest size that is allowed.
        foreach: for PyTorch's signature; True is refused.

    Returns:
        The new gradients. PyTorch changes them in place.

    Raises:
        DTypeError: something else than real floating point arrays.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.utils.clip_grad_value_([jnp.array([-3.0, 0.5])], 1.0)[0].tolist()
        [-1.0, 0.5]

    References:
        torch.nn.utils.clip_grad_value_; optax.clip
    """
    for leaf in _arrays("clip_grad_value_", grads, foreach):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise DTypeError(f"clip_grad_value_ takes real gradients, but got {describe(leaf)}")
    limit = float(clip_value)

    def clip(gradient: Any) -> jax.Array:
        # As torch, which takes the minimum last: a negative limit gives itself.
        return jnp.minimum(jnp.maximum(jnp.asarray(gradient), -limit), limit)

    return jax.tree.map(clip, grads)
