"""Metrics that are a mean over samples: of given values, of what is right, of a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe, positive
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional.loss import cross_entropy
from funcnets.train.metrics.base import Metric, quotient, total_of, weighted
from funcnets.train.metrics.labels import (
    check_threshold,
    class_axis_last,
    class_indices,
    is_scores,
    one_class_each,
    real_scores,
)

__all__ = ["Accuracy", "Mean", "Perplexity", "TopK"]


class _Share(Metric):
    """A weighted mean over samples: two totals."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"sum": (), "count": ()}

    def result(self, totals: dict[str, jax.Array]) -> jax.Array:
        return quotient(totals["sum"], totals["count"], jnp.nan)


@dataclass(frozen=True)
class Mean(_Share):
    r"""The weighted mean of everything that comes.

    .. math:: \frac{\sum_i w_i v_i}{\sum_i w_i}

    Args:
        function: ``(output, target) -> values`` makes any function of a batch a metric. The values are an
            array with one number or more for each sample, or one scalar that is the batch's own mean:
            that counts for as many samples as the first axis of the output has. Without a function the
            output itself is averaged, and a scalar counts as one value: give the size of the batch as
            its weight where batches differ in size.

    Shape:
        - output: anything without a function, otherwise what the function takes
        - weight: the shape of the values, or of their first axes
        - result: a scalar; NaN before the first value

    Raises:
        ArgumentError: a target came, and there is no function to compare with.
        ShapeError: the weight does not fit the values.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> loss = metrics.Mean()
        >>> state = loss.update(loss.init(), jnp.float32(2.0), weight=jnp.float32(64))
        >>> state = loss.update(state, jnp.float32(1.0), weight=jnp.float32(64))
        >>> float(loss.compute(state))
        1.5
        >>> error = metrics.Mean(lambda output, target: jnp.abs(output - target))
        >>> float(error.compute(error.update(error.init(), jnp.ones(4), jnp.zeros(4))))
        1.0

    References:
        torchmetrics.MeanMetric
    """

    function: Callable[[Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        if self.function is not None and not callable(self.function):
            raise ArgumentError(
                f"function must be a function (output, target) -> values, but got {describe(self.function)}"
            )

    def statistics(self, output: Any, target: Any = None, weight: Any = None) -> dict[str, Any]:
        if self.function is None:
            if target is not None:
                raise ArgumentError(
                    "Mean() averages what it is given and got a target, too: say how to compare the two, "
                    "as in Mean(lambda output, target: jnp.abs(output - target))"
                )
            values, samples = jnp.asarray(output), 1
        else:
            values = jnp.asarray(self.function(output, target))
            samples = _batch_size(output) if values.ndim == 0 else 1
        if jnp.issubdtype(values.dtype, jnp.complexfloating):
            raise DTypeError(f"Mean takes real values, but got {describe(values)}")
        weights = weighted(weight, values.shape) * samples
        return {"sum": total_of(values, weights), "count": jnp.sum(weights)}


def _batch_size(output: Any) -> int:
    for leaf in jax.tree.leaves(output):
        if jnp.ndim(leaf):
            return jnp.shape(leaf)[0]
    return 1


@dataclass(frozen=True)
class Accuracy(_Share):
    r"""The share of samples whose class is predicted right.

    .. math:: \frac{\sum_i w_i [\hat y_i = y_i]}{\sum_i w_i}

    Args:
        threshold: for outputs with one score a sample: the class is 1 above it. 0.0 for logits
            (``BCEWithLogitsLoss``), 0.5 for probabilities (``BCELoss``).
        axis: where the scores of the classes stand.
        ignore_index: samples with this target do not count.

    Shape:
        - output: scores :math:`(N, C, d_1, ...)` with the classes at ``axis``; or one score a sample, or
          predicted classes (integers), of the shape of the target. Of equal scores the first is the
          prediction; a sample with a NaN among its scores is wrong.
        - target: classes :math:`(N, d_1, ...)`, integers or booleans. A class out of range makes the
          result NaN, as it does in ``cross_entropy``.
        - weight: the shape of the target, or of its first axes
        - result: a scalar; NaN before the first sample

    Raises:
        ShapeError: the output does not fit the target.
        DTypeError: the target is not a class index.
        ArgumentError: one score a sample, and no ``threshold``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> accuracy = metrics.Accuracy()
        >>> scores = jnp.array([[0.2, 0.8], [0.7, 0.3], [0.1, 0.9], [0.6, 0.4]])
        >>> state = accuracy.update(accuracy.init(), scores, jnp.array([1, 0, 0, 0]))
        >>> float(accuracy.compute(state))
        0.75

    References:
        sklearn.metrics.accuracy_score; torchmetrics.Accuracy
    """

    threshold: float | None = None
    axis: int = 1
    ignore_index: int = -100

    def __post_init__(self) -> None:
        check_threshold(self.threshold)

    def statistics(self, output: Any, target: Any = None, weight: Any = None) -> dict[str, Any]:
        target = class_indices(target)
        if is_scores(output, target):
            return _hits(output, target, weight, 1, self.axis, self.ignore_index)
        predicted, classes = one_class_each(output, target, self.threshold)
        weights = jnp.where(target == self.ignore_index, 0, weighted(weight, target.shape))
        right = (predicted == target).astype(weights.dtype)
        possible = target >= 0 if classes is None else (target >= 0) & (target < classes)
        return _share(right, possible, weights)


@dataclass(frozen=True)
class TopK(_Share):
    r"""The share of samples whose class is among the ``k`` highest scores.

    Args:
        k: how many guesses a sample has.
        axis: where the scores of the classes stand.
        ignore_index: samples with this target do not count.

    Shape:
        - output: scores :math:`(N, C, d_1, ...)` with :math:`C \ge k` classes at ``axis``. Of equal scores the
          first come first, as with ``jax.lax.top_k``; NaN counts as higher than any score, and a class
          whose own score is NaN is never among the highest.
        - target: classes :math:`(N, d_1, ...)`, integers. A class out of range makes the result NaN.
        - weight: the shape of the target, or of its first axes
        - result: a scalar; NaN before the first sample

    Raises:
        ArgumentError: ``k`` is not a positive integer.
        ShapeError: the output does not fit the target, or has fewer than ``k`` classes.
        DTypeError: the target is not a class index.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> top2 = metrics.TopK(2)
        >>> scores = jnp.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
        >>> float(top2.compute(top2.update(top2.init(), scores, jnp.array([1, 2]))))
        0.5

    References:
        sklearn.metrics.top_k_accuracy_score; torchmetrics.Accuracy(top_k=...)
    """

    k: int = 5
    axis: int = 1
    ignore_index: int = -100

    def __post_init__(self) -> None:
        positive("k", self.k)

    def statistics(self, output: Any, target: Any = None, weight: Any = None) -> dict[str, Any]:
        target = class_indices(target)
        if not is_scores(output, target):
            raise ShapeError(
                f"TopK needs a score for every class: an output with one axis more than the target, but got "
                f"output {describe(output)} and target {describe(target)}"
            )
        return _hits(output, target, weight, self.k, self.axis, self.ignore_index)


def _hits(
    output: Any, target: jax.Array, weight: Any, k: int, axis: int, ignore_index: int
) -> dict[str, Any]:
    """Whether fewer than ``k`` classes come before the right one."""
    scores = class_axis_last(real_scores(output), target, axis)  # (N, d1, ..., C)
    classes = scores.shape[-1]
    if k > classes:
        raise ShapeError(f"TopK({k}) needs {k} classes or more, but output is {describe(output)}")
    weights = jnp.where(target == ignore_index, 0, weighted(weight, target.shape))
    possible = (target >= 0) & (target < classes)
    own = jnp.where(possible, target, 0)[..., None]
    score = jnp.take_along_axis(scores, own, axis=-1)
    # Written so that a NaN, which compares as false, stands before every number.
    index = jax.lax.broadcasted_iota(own.dtype, scores.shape, scores.ndim - 1)
    before = ~(scores <= score) | ((scores == score) & (index < own))
    right = jnp.sum(before, axis=-1) < k
    return _share(right.astype(weights.dtype), possible, weights)


def _share(right: jax.Array, possible: jax.Array, weights: jax.Array) -> dict[str, Any]:
    marked = jnp.where(possible, right, jnp.nan)
    return {"sum": total_of(marked, weights), "count": jnp.sum(weights)}


@dataclass(frozen=True)
class Perplexity(_Share):
    r"""The exponential of the mean cross entropy: how many words the model hesitates between.

    .. math:: \exp\Bigl(-\frac{\sum_i w_i \log p_i(y_i)}{\sum_i w_i}\Bigr)

    Args:
        axis: where the logits of the classes stand.
        ignore_index: samples (padding) with this target do not count.

    Shape:
        - output: logits :math:`(N, C, d_1, ...)` with the classes at ``axis``; ``axis=-1`` for
          :math:`(N, T, C)`, as language models give them
        - target: classes :math:`(N, d_1, ...)`, integers. A class out of range makes the result NaN.
        - weight: the shape of the target, or of its first axes
        - result: a scalar; NaN before the first sample

    Raises:
        ShapeError: the output does not fit the target.
        DTypeError: the target is not a class index.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> perplexity = metrics.Perplexity(axis=-1)
        >>> logits, tokens = jnp.zeros((2, 7, 16)), jnp.zeros((2, 7), jnp.int32)
        >>> round(float(perplexity.compute(perplexity.update(perplexity.init(), logits, tokens))), 4)
        16.0

    References:
        Jelinek, Mercer, Bahl, Baker. "Perplexity - a measure of the difficulty of speech recognition
        tasks." 1977; torchmetrics.text.Perplexity
    """

    axis: int = 1
    ignore_index: int = -100

    def statistics(self, output: Any, target: Any = None, weight: Any = None) -> dict[str, Any]:
        target = class_indices(target)
        if not is_scores(output, target):
            raise ShapeError(
                "Perplexity needs a logit for every class: an output with one axis more than the target, but got "
                f"output {describe(output)} and target {describe(target)}"
            )
        logits = class_axis_last(real_scores(output), target, self.axis)
        weights = jnp.where(target == self.ignore_index, 0, weighted(weight, target.shape))
        loss = cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            target.reshape(-1),
            ignore_index=self.ignore_index,
            reduction="none",
        )
        return {"sum": total_of(loss.reshape(target.shape), weights), "count": jnp.sum(weights)}

    def result(self, totals: dict[str, jax.Array]) -> jax.Array:
        return jnp.exp(super().result(totals))
