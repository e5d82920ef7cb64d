"""Classification losses: cross entropy over classes, and binary cross entropy.

Regression losses are in ``loss_regression``, those with a margin in ``loss_margin`` and
``loss_embedding``. All of them compute and sum half precision in float32 and return it rounded.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from funcnets._args import describe, integer
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._loss import common, expand, reduced, resolve_reduction, same_dtype
from funcnets.functional._numeric import as_array, real, widen

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "nll_loss",
]


def class_axis(input: jax.Array) -> int:
    """The axis of the classes: 1, or 0 of a single sample."""
    if input.ndim == 0:
        raise ShapeError(
            f"input must have shape (C,), (N, C) or (N, C, d1, ...), but got {describe(input)}"
        )
    return 0 if input.ndim == 1 else 1


def class_weights(weight: Any, input: jax.Array, classes: int) -> jax.Array | None:
    """One weight a class in the dtype the loss is computed in, or None.

    Any floating point dtype will do: a criterion is seldom converted along with its model.
    """
    if weight is None:
        return None
    weight = real("weight", weight)
    if weight.shape != (classes,):
        raise ShapeError(
            f"weight must have one element for each of the {classes} classes, shape ({classes},), "
            f"but got {describe(weight)}"
        )
    return widen(weight).astype(widen(input).dtype)


def class_indices(target: Any, input: jax.Array, axis: int) -> jax.Array:
    """``target`` if it is an index for every class vector of ``input``."""
    expected = input.shape[:axis] + input.shape[axis + 1 :]
    target = as_array("target", target)
    if jnp.issubdtype(target.dtype, jnp.floating):
        raise DTypeError(
            f"target must hold integers, of shape {expected}, to be class indices, or have the "
            f"shape of input, {input.shape}, to be class probabilities, but got {describe(target)}"
        )
    integer("target", target)
    if input.ndim == 1 and target.shape == (1,):
        target = target.reshape(())
    if target.shape != expected:
        raise ShapeError(
            f"target must have the shape of input without its class axis, {expected}, "
            f"but got {describe(target)} for input {describe(input)}"
        )
    if input.shape[axis] == 0 and target.size:
        raise ShapeError(
            f"input must have at least one class along axis {axis}, but got {describe(input)}"
        )
    # Narrow and unsigned integers cannot hold every ignore_index.
    return target if target.dtype in (jnp.int32, jnp.int64) else target.astype(jnp.int32)


def _nll(
    log_prob: jax.Array,
    target: jax.Array,
    weight: jax.Array | None,
    axis: int,
    ignore_index: int,
    label_smoothing: float = 0.0,
    less: tuple[jax.Array, ...] = (),
) -> tuple[jax.Array, jax.Array]:
    """The loss of every position and its weight in the mean, both 0 where it is ignored.

    ``less`` are arrays of one number for each position, still to be subtracted from ``log_prob``.
    """
    classes = log_prob.shape[axis]
    keep = target != ignore_index
    # A negative index would count from the end; past the end, a gather fills in NaN.
    index = jnp.where(keep, jnp.where(target < 0, classes, target), 0)
    picked = jnp.take_along_axis(
        log_prob, jnp.expand_dims(index, axis), axis, mode="fill", fill_value=jnp.nan
    ).squeeze(axis)
    picked = functools.reduce(jnp.subtract, less, picked)
    if weight is None:
        share = keep.astype(log_prob.dtype)
        loss = -picked
    else:
        picked_weight = weight.at[index].get(mode="fill", fill_value=jnp.nan)
        share = jnp.where(keep, picked_weight, jnp.zeros_like(picked_weight))
        loss = -picked * picked_weight
    if label_smoothing > 0.0:
        if weight is not None:
            log_prob = log_prob * along(weight, log_prob.ndim, axis)
        uniform = -log_prob.sum(axis) / classes
        loss = (1.0 - label_smoothing) * loss + label_smoothing * uniform
    return jnp.where(keep, loss, jnp.zeros_like(loss)), share


def along(vector: jax.Array, ndim: int, axis: int) -> jax.Array:
    """``vector`` with its only axis at ``axis`` of ``ndim``."""
    return vector.reshape([-1 if i == axis else 1 for i in range(ndim)])


def _soft(
    input: jax.Array, target: jax.Array, weight: Any, axis: int, label_smoothing: float
) -> tuple[jax.Array, Any]:
    """The loss of every position against class probabilities, and the dtype of the result."""
    classes = input.shape[axis]
    weight = class_weights(weight, input, classes)
    (input, target), dtype = common(input=input, target=target)
    if label_smoothing > 0.0:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    loss = -target * jax.nn.log_softmax(input, axis)
    if weight is not None:
        loss = loss * along(weight, loss.ndim, axis).astype(loss.dtype)
    return loss.sum(axis), dtype


def cross_entropy_terms(
    input: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
) -> tuple[jax.Array, jax.Array, Any]:
    """The loss of every position, its weight in the mean, and the dtype of the result."""
    input, target = real("input", input), as_array("target", target)
    axis = class_axis(input)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"label_smoothing must be between 0 and 1, but got {label_smoothing}")
    if input.shape != target.shape:
        weight = class_weights(weight, input, input.shape[axis])
        target = class_indices(target, input, axis)
        logits, less = widen(input), ()
        if label_smoothing > 0.0 or logits.shape[axis] == 0:
            logits = jax.nn.log_softmax(logits, axis)
        else:  # as log_softmax computes it, without writing out the classes that are not asked for
            best = lax.stop_gradient(logits.max(axis, keepdims=True))
            less = best.squeeze(axis), jnp.log(jnp.exp(logits - best).sum(axis))
        loss, share = _nll(logits, target, weight, axis, ignore_index, label_smoothing, less)
        return loss, share, input.dtype
    if not jnp.issubdtype(target.dtype, jnp.floating):
        raise DTypeError(
            "target has the shape of input and so must hold class probabilities, floating point "
            f"numbers, but got {describe(target)}"
        )
    if ignore_index >= 0:
        raise ArgumentError(
            f"ignore_index works with class indices only, but got ignore_index={ignore_index} and "
            "class probabilities; give those positions a target of zeros"
        )
    loss, dtype = _soft(input, target, weight, axis, label_smoothing)
    return loss, jnp.ones_like(loss), dtype


def reduce_terms(loss: jax.Array, share: jax.Array, dtype: Any, reduction: str) -> jax.Array:
    """The reduction of losses whose mean is weighted."""
    if reduction == "mean":
        return (loss.sum() / share.sum()).astype(dtype)
    return reduced(loss, reduction, dtype)


def cross_entropy(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> jax.Array:
    r"""Cross entropy between logits and classes, given as indices or as probabilities.

    .. math::
        \ell = -\sum_c w_c \, q_c \log \frac{e^{x_c}}{\sum_k e^{x_k}}, \quad
        q_c = (1 - \epsilon) \, y_c + \frac{\epsilon}{C}

    where :math:`y` is the target, one-hot for an index, and :math:`\epsilon` the label smoothing.
    The mean over indices divides by the summed weights of the targets that are not ignored; the
    mean over probabilities divides by their number of positions.

    Args:
        input: logits of shape ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``.
        target: class indices, integers in ``[0, C)``, of the shape of ``input`` without its class
            axis; or class probabilities, floating point, of the shape of ``input``. An index
            outside the range that is not ``ignore_index`` gives NaN.
        weight: one weight a class, a floating point array of shape ``(C,)``.
        size_average: deprecated, see ``reduction``.
        ignore_index: the index that does not contribute. For indices only.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        label_smoothing: the share of the uniform distribution in the target, in [0, 1].

    Returns:
        A number, or with ``reduction='none'`` one for every position, in the dtype of ``input``.

    Raises:
        ArgumentError: ``reduction`` or ``label_smoothing`` is not valid, or ``ignore_index`` is
            given with probabilities.
        DTypeError: ``input`` is not a real floating point array or ``target`` is neither integer
            nor of probabilities.
        ShapeError: the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> logits = jnp.zeros((3, 4))
        >>> round(float(F.cross_entropy(logits, jnp.array([0, 1, 3]))), 4)
        1.3863
        >>> F.cross_entropy(logits, jnp.full((3, 4), 0.25), reduction="none").shape
        (3,)

    References:
        torch.nn.functional.cross_entropy
    """
    input, target, weight = in_full(input, target, weight)
    reduction = resolve_reduction(size_average, reduce, reduction)
    terms = cross_entropy_terms(input, target, weight, ignore_index, label_smoothing)
    return reduce_terms(*terms, reduction)


def nll_loss(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""Negative log likelihood: picks the log-probability of each target class.

    .. math:: \ell = -w_{y} \, x_{y}

    The mean divides by the summed weights of the targets that are not ignored.

    Args:
        input: log-probabilities of shape ``(C,)``, ``(N, C)`` or ``(N, C, d1, ...)``.
        target: class indices, integers in ``[0, C)``, of the shape of ``input`` without its class
            axis. An index outside the range that is not ``ignore_index`` gives NaN.
        weight: one weight a class, a floating point array of shape ``(C,)``.
        size_average: deprecated, see ``reduction``.
        ignore_index: the index that does not contribute.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` one for every position, in the dtype of ``input``.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: ``input`` is not a real floating point array or ``target`` is not of integers.
        ShapeError: the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> log_prob = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
        >>> round(float(F.nll_loss(log_prob, jnp.array([0, 0]))), 4)
        1.0397

    References:
        torch.nn.functional.nll_loss
    """
    input, weight = in_full(input, weight)
    reduction = resolve_reduction(size_average, reduce, reduction)
    input = real("input", input)
    axis = class_axis(input)
    weight = class_weights(weight, input, input.shape[axis])
    target = class_indices(target, input, axis)
    loss, share = _nll(widen(input), target, weight, axis, ignore_index)
    return reduce_terms(loss, share, input.dtype, reduction)


@jax.custom_jvp
def _binary_cross_entropy(p: jax.Array, y: jax.Array) -> jax.Array:
    # log(0) counts as -100, so that 0 and 1 have a finite loss.
    return (y - 1.0) * jnp.maximum(jnp.log1p(-p), -100.0) - y * jnp.maximum(jnp.log(p), -100.0)


@_binary_cross_entropy.defjvp
def _binary_cross_entropy_jvp(primals, tangents):
    (p, y), (p_dot, y_dot) = primals, tangents
    # The derivative of the clamped logarithms would be 0 or NaN where p is 0 or 1, and training
    # would stop there; PyTorch bounds the denominator instead, and so does this.
    slope = (p - y) / jnp.maximum((1.0 - p) * p, 1e-12)
    logit = jnp.maximum(jnp.log(p), -100.0) - jnp.maximum(jnp.log1p(-p), -100.0)
    return _binary_cross_entropy(p, y), slope * p_dot - logit * y_dot


def binary_cross_entropy(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""Cross entropy between probabilities of two outcomes.

    .. math:: \ell = -w \, (y \log x + (1 - y) \log(1 - x))

    Both logarithms are at least -100. :func:`binary_cross_entropy_with_logits` is more accurate.

    Args:
        input: probabilities, a floating point array. One outside [0, 1] gives NaN.
        target: the probabilities to reach, of the shape and dtype of ``input``.
        weight: a factor for each element, which broadcasts to the shape of ``input``.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array like ``input``.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: ``input`` is not a real floating point array or ``target`` has another dtype.
        ShapeError: ``target`` has another shape than ``input`` or ``weight`` does not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.binary_cross_entropy(jnp.array([0.0]), jnp.array([1.0])).item()
        100.0

    References:
        torch.nn.functional.binary_cross_entropy
    """
    input, target = in_full(input, target)
    reduction = resolve_reduction(size_average, reduce, reduction)
    input, target = real("input", input), as_array("target", target)
    same_dtype("target", target, "input", input)
    _same_shape(target, input)
    loss = _binary_cross_entropy(widen(input), widen(target))
    if weight is not None:
        loss = loss * expand("weight", as_array("weight", weight), loss.shape).astype(loss.dtype)
    return reduced(loss, reduction, input.dtype)


def _same_shape(target: jax.Array, input: jax.Array) -> None:
    if target.shape != input.shape:
        raise ShapeError(
            f"target must have the shape of input, {input.shape}, but got {describe(target)}"
        )


def binary_cross_entropy_with_logits(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: jax.Array | None = None,
) -> jax.Array:
    r"""Sigmoid and binary cross entropy in one, which neither overflows nor saturates.

    .. math:: \ell = -w \, (p \, y \log \sigma(x) + (1 - y) \log(1 - \sigma(x)))

    Args:
        input: logits, a floating point array.
        target: the probabilities to reach, floating point, of the shape of ``input``.
        weight: a factor for each element, which broadcasts to the shape of ``input``.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        pos_weight: the factor :math:`p` of the positive part, which broadcasts likewise.

    Returns:
        A number, or with ``reduction='none'`` an array of the shape of ``input``.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: ``input`` or ``target`` is not a real floating point array.
        ShapeError: ``target`` has another shape than ``input``, or a weight does not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> x, y = jnp.array([-1000.0, 1000.0]), jnp.array([1.0, 1.0])
        >>> F.binary_cross_entropy_with_logits(x, y, reduction="none").tolist()
        [1000.0, 0.0]

    References:
        torch.nn.functional.binary_cross_entropy_with_logits
    """
    input, target = in_full(input, target)
    reduction = resolve_reduction(size_average, reduce, reduction)
    input, target = real("input", input), real("target", target)
    _same_shape(target, input)
    (input, target), dtype = common(input=input, target=target)
    log_sigmoid = jax.nn.log_sigmoid(input)
    if pos_weight is not None:
        pos_weight = expand("pos_weight", as_array("pos_weight", pos_weight), input.shape)
        log_sigmoid = log_sigmoid * ((pos_weight.astype(input.dtype) - 1.0) * target + 1.0)
    loss = (1.0 - target) * input - log_sigmoid
    if weight is not None:
        loss = loss * expand("weight", as_array("weight", weight), loss.shape).astype(loss.dtype)
    return reduced(loss, reduction, dtype)
