"""Connectionist temporal classification: the probability of a label sequence, over all alignments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import as_int, describe, integer, require_ndim
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._loss import reduced, resolve_reduction
from funcnets.functional._numeric import as_array, real, widen

__all__ = ["ctc_loss"]

#: The logarithm of zero: finite, so that no derivative is NaN, and below any that can arise.
_NEVER = -1e30


def _lengths(name: str, lengths: Any, n: int, most: int | None) -> Any:
    """``n`` lengths: a NumPy array if their values are known, a JAX array if they are not."""
    if isinstance(lengths, (tuple, list)):
        lengths = np.asarray([as_int(name, v) for v in lengths], np.int32)
    elif not isinstance(lengths, np.ndarray):
        lengths = as_array(name, lengths)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise DTypeError(f"{name} must hold integers, but got {describe(lengths)}")
    if lengths.size != n or lengths.ndim > 1:
        raise ShapeError(
            f"{name} must have one length for each of the {n} samples, but got {describe(lengths)}"
        )
    lengths = lengths.reshape(n).astype(np.int32)
    if isinstance(lengths, np.ndarray) and n:
        if lengths.min() < 0:
            raise ArgumentError(f"{name} must not be negative, but got {lengths.min()}")
        if most is not None and lengths.max() > most:
            raise ArgumentError(f"{name} must be at most {most}, but got {lengths.max()}")
    return lengths


def _rows(targets: jax.Array, lengths: Any, n: int) -> jax.Array:
    """Labels as (N, S), from that or from all label sequences one after another."""
    known = isinstance(lengths, np.ndarray)
    if targets.ndim == 2:
        if targets.shape[0] != n:
            raise ShapeError(f"targets must have {n} rows, but got {describe(targets)}")
        if known and n and lengths.max() > targets.shape[1]:
            raise ArgumentError(
                f"target_lengths must be at most {targets.shape[1]}, the length of the rows of "
                f"targets, but got {lengths.max()}"
            )
        return targets
    if known and n > 1 and lengths.sum() != targets.size:
        raise ShapeError(
            f"targets in one row must have as many labels as target_lengths sum to, {lengths.sum()}, "
            f"but got {describe(targets)}"
        )
    if n == 1:
        return _rows(targets[None], lengths, n)
    longest = int(lengths.max(initial=0)) if known else targets.size
    lengths = jnp.asarray(lengths)
    starts = jnp.cumsum(lengths) - lengths
    index = starts[:, None] + jnp.arange(longest, dtype=jnp.int32)[None, :]
    return targets.at[index].get(mode="fill", fill_value=0)


def _log_likelihood(
    log_prob: jax.Array, labels: jax.Array, steps: jax.Array, count: jax.Array, blank: int
) -> jax.Array:
    """log p(labels) of one sample: ``log_prob`` (T, C), ``labels`` (S,), of which ``count`` count."""
    time, classes = log_prob.shape
    position = jnp.arange(2 * labels.size + 1, dtype=jnp.int32)
    # What lies behind the labels must not matter, whatever it is.
    labels = jnp.where(position[: labels.size] < count, labels, blank)
    labels = jnp.where(labels < 0, classes, labels)  # a negative one would count from the end
    states = jnp.full(position.shape, blank, jnp.int32).at[1::2].set(labels)
    emitted = log_prob.at[:, states].get(mode="fill", fill_value=jnp.nan)  # (T, 2S + 1)
    emitted = jnp.where(emitted < _NEVER, _NEVER, emitted)
    skips = (states != blank) & (states != jnp.roll(states, 2)) & (position > 1)

    def step(alpha: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        t, emitted = now
        before = jnp.pad(alpha, (2, 0), constant_values=_NEVER)
        skipped = jnp.where(skips, before[:-2], _NEVER)
        arrived = jax.nn.logsumexp(jnp.stack([alpha, before[1:-1], skipped]), axis=0)
        return jnp.where(t < steps, arrived + emitted, alpha), None

    alpha = jnp.where(position < 2, emitted[0], _NEVER)
    alpha, _ = jax.lax.scan(step, alpha, (jnp.arange(1, time, dtype=jnp.int32), emitted[1:]))
    last = alpha.at[2 * count].get(mode="fill", fill_value=jnp.nan)
    label = jnp.where(count > 0, alpha[2 * count - 1], _NEVER)
    total = jnp.logaddexp(last, label)
    total = jnp.where(steps > 0, total, jnp.where(count > 0, _NEVER, 0.0))
    return jnp.where(total < 0.1 * _NEVER, -jnp.inf, total)


def ctc_loss(
    log_probs: jax.Array,
    targets: jax.Array,
    input_lengths: jax.Array | Sequence[int],
    target_lengths: jax.Array | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> jax.Array:
    r"""Negative log likelihood of label sequences, summed over all their alignments in time.

    .. math:: \ell = -\log \sum_{\pi \in B^{-1}(y)} \prod_t p_t(\pi_t)

    where :math:`B` merges repeated labels and then drops the blanks. The mean divides every loss by
    its number of labels first. A sequence that no alignment can produce has an infinite loss and the
    gradient 0.

    The gradient is that of the formula. PyTorch's assumes that ``log_probs`` comes out of a log
    softmax and differs by :math:`p_t`; behind a log softmax the two are the same.

    Args:
        log_probs: log-probabilities of shape ``(T, N, C)`` or ``(T, C)``.
        targets: labels, integers in ``[0, C)`` without ``blank``: of shape ``(N, S)``, or all
            sequences one after another, ``(sum(target_lengths),)``; ``(S,)`` for one sample. A label
            outside the range gives NaN.
        input_lengths: the steps that count, at most ``T``, of shape ``(N,)`` or ``()``.
        target_lengths: the labels that count, likewise. Lengths in a tuple or a NumPy array are
            checked; those in a JAX array cannot be. For targets in one row the known lengths also
            bound the work.
        blank: the index of the blank.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        zero_infinity: count infinite losses as 0.

    Returns:
        A number, or with ``reduction='none'`` an array of shape ``(N,)`` or ``()``.

    Raises:
        ArgumentError: ``blank``, ``reduction`` or a known length is not valid.
        DTypeError: ``log_probs`` is not a real floating point array or another array is not of
            integers.
        ShapeError: the shapes do not fit, or there is no step.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> log_probs = jnp.log(jnp.full((5, 2, 4), 0.25))
        >>> F.ctc_loss(log_probs, jnp.array([[1, 2, 2], [3, 1, 0]]), (5, 5), (3, 2)).shape
        ()

    References:
        Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data
        with recurrent neural networks", 2006; torch.nn.functional.ctc_loss
    """
    log_probs = in_full(log_probs)
    reduction = resolve_reduction(None, None, reduction)
    log_probs, targets = real("log_probs", log_probs), as_array("targets", targets)
    require_ndim("log_probs", log_probs, [2, 3], "of shape (T, C) or (T, N, C)")
    require_ndim("targets", integer("targets", targets), [1, 2], "of shape (N, S) or in one row")
    wide = widen(log_probs)
    wide = wide if wide.ndim == 3 else wide[:, None]
    time, n, classes = wide.shape
    if time == 0 or classes == 0:
        raise ShapeError(f"log_probs must not be empty, but got {describe(log_probs)}")
    if not 0 <= as_int("blank", blank) < classes:
        raise ArgumentError(f"blank must be between 0 and {classes - 1}, but got {blank}")
    steps = _lengths("input_lengths", input_lengths, n, time)
    counts = _lengths("target_lengths", target_lengths, n, None)
    labels = _rows(targets, counts, n).astype(jnp.int32)
    likelihood = jax.vmap(_log_likelihood, in_axes=(1, 0, 0, 0, None))
    loss = -likelihood(wide, labels, jnp.asarray(steps), jnp.asarray(counts), blank)
    if zero_infinity:
        loss = jnp.where(jnp.isposinf(loss), jnp.zeros_like(loss), loss)
    if reduction == "mean":
        loss = loss / jnp.maximum(jnp.asarray(counts), 1).astype(loss.dtype)
    return reduced(loss.reshape(log_probs.shape[1:-1]), reduction, log_probs.dtype)
