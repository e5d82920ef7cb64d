"""Losses that ask for a margin: between classes, between labels, between two scores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe, integer
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._loss import (
    at_least_zero,
    broadcast,
    common,
    expand,
    reduced,
    resolve_reduction,
    signs,
)
from funcnets.functional._numeric import as_array, real, real_or_integer, widen

__all__ = [
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
]


def hinge_embedding_loss(
    input: jax.Array,
    target: jax.Array,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""Small distances for similar pairs, distances beyond a margin for the others.

    .. math::
        \ell = \begin{cases} x & y = 1 \\ \max(0, \text{margin} - x) & y = -1 \end{cases}

    Args:
        input: distances, a floating point array.
        target: 1 for similar and -1 for dissimilar; the two are broadcast. Any other value adds
            both cases.
        margin: the distance that dissimilar pairs should have.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape, in the dtype of
        ``input``.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: ``input`` is not a real floating point array, or ``target`` is not of numbers.
        ShapeError: the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.hinge_embedding_loss(jnp.array([0.5, 0.5]), jnp.array([1, -1])).item()
        0.5

    References:
        torch.nn.functional.hinge_embedding_loss
    """
    input = in_full(input)
    reduction = resolve_reduction(size_average, reduce, reduction)
    input = real("input", input)
    x, y = broadcast(input=widen(input), target=signs(target, jnp.float32))
    far = jnp.where(y != 1, at_least_zero(margin - x), jnp.zeros_like(x))
    near = jnp.where(y != -1, x, jnp.zeros_like(x))
    return reduced(far + near, reduction, input.dtype)


def margin_ranking_loss(
    input1: jax.Array,
    input2: jax.Array,
    target: jax.Array,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""The first score above the second by a margin where the target is 1, below where it is -1.

    .. math:: \ell = \max(0, -y \, (x_1 - x_2) + \text{margin})

    Args:
        input1: scores.
        input2: scores.
        target: 1 or -1; all three have one rank and are broadcast.
        margin: by how much the scores should differ.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: no score is of floating point numbers, or an array is complex or boolean.
        ShapeError: the ranks differ or the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.margin_ranking_loss(jnp.array([1.0]), jnp.array([3.0]), jnp.array([1])).item()
        2.0

    References:
        torch.nn.functional.margin_ranking_loss
    """
    input1, input2 = in_full(input1, input2)
    reduction = resolve_reduction(size_average, reduce, reduction)
    (x1, x2), dtype = common(input1=input1, input2=input2)
    y = signs(target, x1.dtype)
    if not x1.ndim == x2.ndim == y.ndim:
        raise ShapeError(
            f"input1, input2 and target must have one rank, but got input1 {describe(x1)}, "
            f"input2 {describe(x2)} and target {describe(y)}"
        )
    x1, x2, y = broadcast(input1=x1, input2=x2, target=y)
    return reduced(at_least_zero(-y * (x1 - x2) + margin), reduction, dtype)


def _samples(input: jax.Array) -> jax.Array:
    """``input`` as (N, C); a single sample and a single number are one row."""
    if input.ndim > 2:
        raise ShapeError(f"input must have shape (N, C) or (C,), but got {describe(input)}")
    return input if input.ndim == 2 else input.reshape(1, -1)


def multi_margin_loss(
    input: jax.Array,
    target: jax.Array,
    p: int = 1,
    margin: float = 1.0,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""The score of the target class above every other by a margin.

    .. math:: \ell = \frac{w_y}{C} \sum_{c \ne y} \max(0, \text{margin} - x_y + x_c)^p

    Args:
        input: scores of shape ``(N, C)`` or ``(C,)``, floating point.
        target: class indices in ``[0, C)`` of shape ``(N,)`` or ``()``. An index outside the range
            gives NaN.
        p: 1 or 2.
        margin: by how much the target's score should be above.
        weight: one weight a class, a floating point array of shape ``(C,)``.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of the shape of ``target``.

    Raises:
        ArgumentError: ``p`` is neither 1 nor 2, or ``reduction`` is not valid.
        DTypeError: ``input`` is not a real floating point array or ``target`` not of integers.
        ShapeError: the shapes do not fit.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.multi_margin_loss(jnp.array([[0.0, 0.5]]), jnp.array([1])).item()
        0.25

    References:
        torch.nn.functional.multi_margin_loss
    """
    input, weight = in_full(input, weight)
    reduction = resolve_reduction(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ArgumentError(f"p must be 1 or 2, but got {p}")
    input, target = real("input", input), integer("target", as_array("target", target))
    x = _samples(widen(input))
    if target.size != x.shape[0] or target.ndim > 1 or (input.ndim == 2 and target.ndim == 0):
        raise ShapeError(
            f"target must have one index for each sample of input, shape ({x.shape[0]},), "
            f"but got {describe(target)} for input {describe(input)}"
        )
    classes = x.shape[1]
    if weight is not None:
        weight = widen(real("weight", weight)).astype(x.dtype)
        if weight.shape != (classes,):
            raise ShapeError(f"weight must have shape ({classes},), but got {describe(weight)}")

    def one(x: jax.Array, label: jax.Array) -> jax.Array:
        label = jnp.where(label < 0, classes, label)  # a negative one would count from the end
        own = x.at[label].get(mode="fill", fill_value=jnp.nan)
        short = margin - own + x
        # "Not at most 0" keeps the NaN that tells of an index out of range.
        counts = (jnp.arange(classes) != label) & ~(short <= 0)
        loss = jnp.where(counts, short, jnp.zeros_like(short)) ** p
        if weight is not None:
            loss = loss * weight.at[label].get(mode="fill", fill_value=jnp.nan)
        return loss.sum() / classes

    loss = jax.vmap(one)(x, target.reshape(-1).astype(int))
    return reduced(loss.reshape(target.shape), reduction, input.dtype)


def multilabel_margin_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""The scores of all labels of a sample above those of all other classes by 1.

    .. math:: \ell = \frac1C \sum_{y \in Y} \sum_{c \notin Y} \max(0, 1 - x_y + x_c)

    Args:
        input: scores of shape ``(N, C)`` or ``(C,)``, floating point.
        target: the labels of each sample in the shape of ``input``: class indices in ``[0, C)``, up
            to the first negative number, after which nothing counts. An index of at least ``C``
            gives NaN.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of shape ``(N,)`` or ``()``.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: ``input`` is not a real floating point array or ``target`` not of integers.
        ShapeError: the shapes differ, or are not of 1 or 2 axes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.multilabel_margin_loss(jnp.array([0.0, 1.0, 0.0, 0.0]), jnp.array([1, -1, 0, 0])).item()
        0.0

    References:
        torch.nn.functional.multilabel_margin_loss
    """
    input = in_full(input)
    reduction = resolve_reduction(size_average, reduce, reduction)
    input, target = real("input", input), integer("target", as_array("target", target))
    rows = _samples(widen(input))
    if target.shape != input.shape:
        raise ShapeError(
            f"target must have the shape of input, {input.shape}, but got {describe(target)}"
        )

    def one(x: jax.Array, labels: jax.Array) -> jax.Array:
        listed = jnp.cumsum(labels < 0) == 0
        index = jnp.where(listed, labels, 0)
        own = x.at[index].get(mode="fill", fill_value=jnp.nan)
        is_label = jnp.zeros(x.shape, bool).at[index].max(listed, mode="drop")
        short = 1.0 - own[:, None] + x[None, :]  # (labels, classes)
        counts = listed[:, None] & ~is_label[None, :] & ~(short <= 0)
        return jnp.where(counts, short, jnp.zeros_like(short)).sum() / x.shape[0]

    loss = jax.vmap(one)(rows, target.reshape(rows.shape))
    return reduced(loss.reshape(input.shape[:-1]), reduction, input.dtype)


def soft_margin_loss(
    input: jax.Array,
    target: jax.Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""Logistic loss of scores whose sign should be that of the target.

    .. math:: \ell = \log(1 + e^{-y x})

    Args:
        input: scores, a floating point array.
        target: 1 or -1; the two are broadcast.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of the common shape, in the dtype of
        ``input``. It is finite where PyTorch's exponential overflows.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: ``input`` is not a real floating point array, or ``target`` is not of numbers.
        ShapeError: the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.soft_margin_loss(jnp.array([-1000.0]), jnp.array([1])).item()
        1000.0

    References:
        torch.nn.functional.soft_margin_loss
    """
    input = in_full(input)
    reduction = resolve_reduction(size_average, reduce, reduction)
    input = real("input", input)
    x, y = broadcast(input=widen(input), target=signs(target, widen(input).dtype))
    return reduced(jax.nn.softplus(-y * x), reduction, input.dtype)


def multilabel_soft_margin_loss(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""Binary cross entropy with logits, averaged over the labels of each sample.

    .. math::
        \ell = -\frac1C \sum_c w_c \, (y_c \log \sigma(x_c) + (1 - y_c) \log(1 - \sigma(x_c)))

    Args:
        input: logits of shape ``(*, C)``.
        target: 0 or 1, or probabilities, which broadcast to the shape of ``input``.
        weight: factors that broadcast to the shape of ``input``.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'`` over the samples.

    Returns:
        A number, or with ``reduction='none'`` an array of shape ``(*,)``.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: neither array is of floating point numbers, or one is complex or boolean.
        ShapeError: ``input`` has no axes, or another array does not broadcast to it.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> x, y = jnp.zeros((3, 4)), jnp.ones((3, 4))
        >>> F.multilabel_soft_margin_loss(x, y, reduction="none").shape
        (3,)

    References:
        torch.nn.functional.multilabel_soft_margin_loss
    """
    input = in_full(input)
    reduction = resolve_reduction(size_average, reduce, reduction)
    (x, y), dtype = common(input=input, target=real_or_integer("target", target))
    if x.ndim == 0:
        raise ShapeError(f"input must have shape (*, C), but got {describe(x)}")
    y = expand("target", y, x.shape)
    loss = -(y * jax.nn.log_sigmoid(x) + (1.0 - y) * jax.nn.log_sigmoid(-x))
    if weight is not None:
        loss = loss * _factors(weight, loss)
    return reduced(loss.sum(-1) / x.shape[-1], reduction, dtype)


def _factors(weight: Any, loss: jax.Array) -> jax.Array:
    return expand("weight", as_array("weight", weight), loss.shape).astype(loss.dtype)
