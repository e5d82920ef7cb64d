"""Metrics that count by class: the confusion matrix, precision, recall and F1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import choice, describe, positive
from funcnets.errors import ArgumentError
from funcnets.train.metrics.base import Metric, quotient, weighted
from funcnets.train.metrics.labels import check_threshold, class_indices, predicted_class

__all__ = ["F1", "ConfusionMatrix", "Precision", "Recall"]


@dataclass(frozen=True)
class ConfusionMatrix(Metric):
    r"""How often each class was taken for each: rows are the targets, columns the predictions.

    Args:
        num_classes: :math:`C`.
        normalize: divide by the sum of the row (``"true"``), of the column (``"pred"``), of everything
            (``"all"``), or not at all (None). 0 / 0 is 0.
        threshold: for outputs with one score a sample, as in :class:`Accuracy`.
        axis: where the scores of the classes stand.
        ignore_index: samples with this target do not count.

    Shape:
        - output: as for :class:`Accuracy`; samples with a NaN among their scores make the matrix NaN
        - target: classes :math:`(N, d_1, ...)`, integers or booleans; a class out of range, or a predicted
          one, makes the matrix NaN
        - weight: the shape of the target, or of its first axes
        - result: :math:`(C, C)`, in JAX's default float

    Raises:
        ArgumentError: ``num_classes`` is below 2, or ``normalize`` unknown.
        ShapeError: the output does not fit the target or the number of classes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> matrix = metrics.ConfusionMatrix(2)
        >>> state = matrix.update(matrix.init(), jnp.array([0, 1, 1]), jnp.array([0, 0, 1]))
        >>> matrix.compute(state).tolist()
        [[1.0, 1.0], [0.0, 1.0]]

    References:
        sklearn.metrics.confusion_matrix; torchmetrics.ConfusionMatrix
    """

    num_classes: int
    normalize: str | None = None
    threshold: float | None = None
    axis: int = 1
    ignore_index: int = -100

    def __post_init__(self) -> None:
        positive("num_classes", self.num_classes, minimum=2)
        choice("normalize", self.normalize, (None, "true", "pred", "all"))
        check_threshold(self.threshold)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"counts": (self.num_classes, self.num_classes)}

    def statistics(self, output: Any, target: Any = None, weight: Any = None) -> dict[str, Any]:
        target, predicted, weights = _samples(self, output, target, weight, self.num_classes)
        counts = jnp.zeros((self.num_classes, self.num_classes), weights.dtype)
        return {"counts": _marked(counts.at[target, predicted].add(weights), weights)}

    def result(self, totals: dict[str, jax.Array]) -> jax.Array:
        counts = totals["counts"]
        if self.normalize is None:
            return counts
        axes = {"true": 1, "pred": 0, "all": (0, 1)}[self.normalize]
        return quotient(counts, jnp.broadcast_to(counts.sum(axes, keepdims=True), counts.shape), 0)


def _samples(
    metric: Any, output: Any, target: Any, weight: Any, classes: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Targets, predictions and weights of the samples; the weight is NaN where a class is impossible."""
    target = class_indices(target)
    predicted = predicted_class(output, target, metric.threshold, metric.axis, classes)
    weights = jnp.where(target == metric.ignore_index, 0, weighted(weight, target.shape))
    possible = (target >= 0) & (target < classes) & (predicted >= 0) & (predicted < classes)
    weights = jnp.where(possible | (weights == 0), weights, jnp.nan)
    # A negative index would count from the end.
    target = jnp.where(possible, target, 0).astype(jnp.int32)
    return target, jnp.where(possible, predicted, 0).astype(jnp.int32), weights


def _marked(counts: jax.Array, weights: jax.Array) -> jax.Array:
    """NaN everywhere if one sample could not be counted."""
    return jnp.where(jnp.isnan(weights).any(), jnp.nan, counts)


_AVERAGES = ("binary", "micro", "macro", "weighted", None)


@dataclass(frozen=True)
class _ByClass(Metric):
    """Right predictions, all predictions and all targets of each class, and a quotient of those."""

    num_classes: int | None = None
    average: str | None = "binary"
    zero_division: float = 0.0
    threshold: float | None = None
    axis: int = 1
    ignore_index: int = -100

    def __post_init__(self) -> None:
        choice("average", self.average, _AVERAGES)
        check_threshold(self.threshold)
        if self.average != "binary":
            if self.num_classes is None:
                raise ArgumentError(
                    f"average={self.average!r} needs num_classes, the number of classes there can be"
                )
            positive("num_classes", self.num_classes, minimum=2)
        elif self.num_classes not in (None, 2):
            raise ArgumentError(
                f"average='binary' is of two classes, but num_classes is {describe(self.num_classes)}: "
                "choose average='macro', 'micro', 'weighted' or None"
            )

    @property
    def _classes(self) -> int:
        return self.num_classes or 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("right", "predicted", "actual"), (self._classes,))

    def statistics(self, output: Any, target: Any = None, weight: Any = None) -> dict[str, Any]:
        target, predicted, weights = _samples(self, output, target, weight, self._classes)
        zeros = jnp.zeros(self._classes, weights.dtype)
        right = jnp.where(target == predicted, weights, 0)
        rows = {"right": (target, right), "predicted": (predicted, weights)}
        return {
            name: _marked(zeros.at[index].add(amount), weights)
            for name, (index, amount) in (rows | {"actual": (target, weights)}).items()
        }

    def fraction(self, totals: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Numerator and denominator."""
        raise NotImplementedError

    def result(self, totals: dict[str, jax.Array]) -> jax.Array:
        if self.average == "binary":
            totals = {name: total[1] for name, total in totals.items()}
        elif self.average == "micro":
            totals = {name: total.sum() for name, total in totals.items()}
        each = quotient(*self.fraction(totals), self.zero_division)
        if self.average == "macro":
            # A class that neither occurs nor is predicted has no score to be averaged.
            share = (totals["predicted"] + totals["actual"] != 0).astype(each.dtype)
        elif self.average == "weighted":
            share = totals["actual"]
        else:
            return each
        return quotient(
            jnp.where(share == 0, 0, each * share).sum(), share.sum(), self.zero_division
        )


@dataclass(frozen=True)
class Precision(_ByClass):
    r"""How many of the predictions of a class are right.

    .. math:: \text{precision} = \frac{\text{right}}{\text{predicted}}

    Args:
        num_classes: how many classes there are; needed unless ``average`` is ``"binary"``.
        average: ``"binary"``: of class 1 of two. ``"micro"``: over all samples together, whatever their
            class. ``"macro"``: the mean over the classes that occur or are predicted. ``"weighted"``: the
            mean weighted by how often a class occurs. None: one value a class.
        zero_division: what 0 / 0 is.
        threshold: for outputs with one score a sample, as in :class:`Accuracy`.
        axis: where the scores of the classes stand.
        ignore_index: samples with this target do not count.

    Shape:
        - output: as for :class:`Accuracy`; a sample with a NaN among its scores makes the result NaN
        - target: classes :math:`(N, d_1, ...)`, integers or booleans; a class out of range, or a predicted
          one, makes the result NaN
        - weight: the shape of the target, or of its first axes
        - result: a scalar, or :math:`(C)` with ``average=None``

    Raises:
        ArgumentError: ``average`` is unknown or needs ``num_classes``; one score a sample and no
            ``threshold``.
        ShapeError: the output does not fit the target or the number of classes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> predicted, target = jnp.array([1, 1, 0, 0]), jnp.array([1, 0, 0, 1])
        >>> precision = metrics.Precision()
        >>> float(precision.compute(precision.update(precision.init(), predicted, target)))
        0.5
        >>> precision = metrics.Precision(2, average="macro")
        >>> float(precision.compute(precision.update(precision.init(), predicted, target)))
        0.5

    References:
        sklearn.metrics.precision_score; torchmetrics.Precision
    """

    def fraction(self, totals: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return totals["right"], totals["predicted"]


@dataclass(frozen=True)
class Recall(_ByClass):
    r"""How many of the samples of a class are found; arguments and shapes as :class:`Precision`.

    .. math:: \text{recall} = \frac{\text{right}}{\text{actual}}

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> recall = metrics.Recall()
        >>> predicted, target = jnp.array([1, 0, 0, 0]), jnp.array([1, 1, 1, 1])
        >>> float(recall.compute(recall.update(recall.init(), predicted, target)))
        0.25

    References:
        sklearn.metrics.recall_score; torchmetrics.Recall
    """

    def fraction(self, totals: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return totals["right"], totals["actual"]


@dataclass(frozen=True)
class F1(_ByClass):
    r"""The harmonic mean of precision and recall; arguments and shapes as :class:`Precision`.

    .. math:: F_1 = \frac{2 \cdot \text{right}}{\text{predicted} + \text{actual}}

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> f1 = metrics.F1()
        >>> predicted, target = jnp.array([1, 0, 0, 0]), jnp.array([1, 1, 1, 1])
        >>> round(float(f1.compute(f1.update(f1.init(), predicted, target))), 4)
        0.4

    References:
        sklearn.metrics.f1_score; torchmetrics.F1Score
    """

    def fraction(self, totals: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return 2 * totals["right"], totals["predicted"] + totals["actual"]
