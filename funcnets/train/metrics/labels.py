"""What the metrics of classification share: which class a target names, and which an output predicts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_array, as_int, describe, floating, require_array
from funcnets.errors import ArgumentError, DTypeError, ShapeError

__all__ = []


def check_threshold(threshold: Any) -> None:
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.floating))
    ):
        raise ArgumentError(f"threshold must be a number or None, but got {describe(threshold)}")


def class_indices(target: Any) -> jax.Array:
    """The target as signed integers."""
    if target is None:
        raise ArgumentError(
            "this metric compares the output with a target: update(state, output, target)"
        )
    target = as_array("target", target)
    if not (jnp.issubdtype(target.dtype, jnp.integer) or target.dtype == jnp.bool_):
        raise DTypeError(
            f"target must hold class indices (integers or booleans), but is {describe(target)}; "
            "probabilities or one-hot rows become indices with target.argmax(axis)"
        )
    return _signed(target)


def _signed(classes: jax.Array) -> jax.Array:
    """Wide enough for every ``ignore_index``, which narrow and unsigned integers are not."""
    return classes if classes.dtype == jnp.int64 else classes.astype(jnp.int32)


def is_scores(output: Any, target: jax.Array) -> bool:
    """Whether the output has a score for every class, rather than one number a sample."""
    require_array("output", output)
    return output.ndim == target.ndim + 1


def real_scores(output: Any) -> jax.Array:
    scores = floating("output", output)
    if jnp.issubdtype(scores.dtype, jnp.complexfloating):
        raise DTypeError(f"output must hold real scores, but is {describe(output)}")
    return scores


def class_axis_last(scores: jax.Array, target: jax.Array, axis: int) -> jax.Array:
    """``(N, C, d1, ...)`` as ``(N, d1, ..., C)``, with the class axis found as in ``cross_entropy``."""
    axis = as_int("axis", axis)
    # Without a batch the classes are the only axis.
    place = 0 if scores.ndim == 1 and axis == 1 else axis
    if not -scores.ndim <= place < scores.ndim:
        raise ShapeError(f"the class axis {axis} does not exist: output is {describe(scores)}")
    moved = jnp.moveaxis(scores, place, -1)
    if moved.shape[:-1] != target.shape:
        raise ShapeError(
            f"output {describe(scores)} with the classes along axis {place} needs a target of shape "
            f"{moved.shape[:-1]}, but got {describe(target)}; if the classes stand elsewhere, say so with axis="
        )
    if moved.shape[-1] < 2:
        raise ShapeError(
            f"output {describe(scores)} has one class along axis {place}: for one score a sample, "
            f"squeeze that axis and give a threshold"
        )
    return moved


def one_class_each(
    output: Any, target: jax.Array, threshold: float | None
) -> tuple[jax.Array, int | None]:
    """The predicted class of each sample, and the number of classes if the output tells it."""
    output = as_array("output", output)
    if output.shape != target.shape:
        raise ShapeError(
            f"output {describe(output)} does not fit target {describe(target)}: give a score for every class, "
            "one score a sample, or predicted classes"
        )
    if jnp.issubdtype(output.dtype, jnp.floating):
        if threshold is None:
            raise ArgumentError(
                f"output {describe(output)} has one score a sample: say above which it means class 1, "
                "threshold=0.0 for logits or threshold=0.5 for probabilities"
            )
        output = output > threshold
    elif not (jnp.issubdtype(output.dtype, jnp.integer) or output.dtype == jnp.bool_):
        raise DTypeError(f"output must hold scores or classes, but is {describe(output)}")
    return output.astype(target.dtype), 2 if output.dtype == jnp.bool_ else None


def predicted_class(
    output: Any, target: jax.Array, threshold: float | None, axis: int, classes: int
) -> jax.Array:
    """The predicted class of each sample, -1 where its scores hold a NaN."""
    if not is_scores(output, target):
        return one_class_each(output, target, threshold)[0]
    scores = class_axis_last(real_scores(output), target, axis)
    if scores.shape[-1] != classes:
        raise ShapeError(
            f"this metric is of {classes} classes, but output {describe(output)} has scores of {scores.shape[-1]}"
        )
    best = jnp.argmax(scores, axis=-1).astype(target.dtype)
    return jnp.where(jnp.isnan(scores).any(axis=-1), -1, best)
