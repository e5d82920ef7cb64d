"""Losses between embeddings: pairs by their cosine, triplets by their distances."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._autocast import in_full
from funcnets.functional._loss import (
    at_least_zero,
    broadcast,
    common,
    reduced,
    resolve_reduction,
    signs,
)
from funcnets.functional._numeric import as_array, number
from funcnets.functional.distance import pairwise_distance

__all__ = ["cosine_embedding_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss"]


def cosine_embedding_loss(
    input1: jax.Array,
    input2: jax.Array,
    target: jax.Array,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""The same direction for similar pairs, a cosine below a margin for the others.

    .. math::
        \ell = \begin{cases}
            1 - \cos(x_1, x_2) & y = 1 \\
            \max(0, \cos(x_1, x_2) - \text{margin}) & y = -1
        \end{cases}

    Args:
        input1: vectors of shape ``(N, D)``, or one of shape ``(D,)``.
        input2: vectors of the same rank; the two are broadcast.
        target: 1 for similar and -1 for dissimilar, of shape ``(N,)`` or ``()``. Any other value
            gives 0.
        margin: the cosine that dissimilar pairs may have, from -1 to 1.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of shape ``(N,)`` or ``()``.

    Raises:
        ArgumentError: ``reduction`` is not valid.
        DTypeError: no input is of floating point numbers, or an array is complex.
        ShapeError: the ranks do not fit or the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> x = jnp.ones((3, 4))
        >>> F.cosine_embedding_loss(x, -x, jnp.ones(3)).item()
        2.0

    References:
        torch.nn.functional.cosine_embedding_loss
    """
    input1, input2 = in_full(input1, input2)
    reduction = resolve_reduction(size_average, reduce, reduction)
    (x1, x2), dtype = common(input1=input1, input2=input2)
    y = signs(target, x1.dtype)
    if y.ndim > 1 or x1.ndim != y.ndim + 1 or x2.ndim != y.ndim + 1:
        raise ShapeError(
            "expected inputs of shape (N, D) and a target of shape (N,), or (D,) and (), but got "
            f"input1 {describe(x1)}, input2 {describe(x2)} and target {describe(y)}"
        )
    x1, x2 = broadcast(input1=x1, input2=x2)
    squares = (jnp.square(x1).sum(-1) + 1e-12) * (jnp.square(x2).sum(-1) + 1e-12)
    cosine, y = broadcast(input=(x1 * x2).sum(-1) / jnp.sqrt(squares), target=y)
    apart = jnp.where(y == -1, at_least_zero(cosine - margin), jnp.zeros_like(cosine))
    return reduced(jnp.where(y == 1, 1.0 - cosine, apart), reduction, dtype)


def _triplet_checks(
    anchor: jax.Array, positive: jax.Array, negative: jax.Array, margin: float
) -> None:
    if not number("margin", margin) > 0:
        raise ArgumentError(f"margin must be positive, but got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError(
            f"anchor, positive and negative must have one rank, but got anchor {describe(anchor)}, "
            f"positive {describe(positive)} and negative {describe(negative)}"
        )


def _triplet(
    distance: Callable[[jax.Array, jax.Array], jax.Array],
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    margin: float,
    swap: bool,
) -> jax.Array:
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = jnp.minimum(far, distance(positive, negative))
    near, far = broadcast(positive=near, negative=far)
    return at_least_zero(margin + near - far)


def triplet_margin_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> jax.Array:
    r"""An anchor nearer to its positive than to its negative example by a margin.

    .. math:: \ell = \max(0, d(a, p) - d(a, n) + \text{margin}), \quad
        d(x, y) = \lVert x - y + \epsilon \rVert_p

    Args:
        anchor: vectors of shape ``(*, D)``.
        positive: vectors; all three have one rank and are broadcast.
        negative: vectors.
        margin: by how much the negative should be farther, positive.
        p: which norm.
        eps: added to each difference.
        swap: take the distance from the positive to the negative instead, where it is smaller than
            that from the anchor.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of shape ``(*,)``.

    Raises:
        ArgumentError: ``margin`` is not positive or ``reduction`` is not valid.
        DTypeError: no array is of floating point numbers, or one is complex.
        ShapeError: the ranks differ or the shapes do not broadcast.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> x = jnp.ones((3, 4))
        >>> F.triplet_margin_loss(x, x, x).item()
        1.0

    References:
        Balntas et al., "Learning local feature descriptors with triplets and shallow convolutional
        neural networks", 2016; torch.nn.functional.triplet_margin_loss
    """
    anchor, positive, negative = in_full(anchor, positive, negative)
    reduction = resolve_reduction(size_average, reduce, reduction)
    (a, n, q), dtype = common(anchor=anchor, negative=negative, positive=positive)
    _triplet_checks(a, q, n, margin)

    def distance(x: jax.Array, y: jax.Array) -> jax.Array:
        return pairwise_distance(x, y, p, eps)

    return reduced(_triplet(distance, a, q, n, margin, swap), reduction, dtype)


def triplet_margin_with_distance_loss(
    anchor: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    *,
    distance_function: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> jax.Array:
    r"""The triplet loss with a distance of one's own.

    .. math:: \ell = \max(0, d(a, p) - d(a, n) + \text{margin})

    Args:
        anchor: any array that the distance takes.
        positive: an array of the same rank.
        negative: an array of the same rank.
        distance_function: the distance :math:`d`, a function of two arrays;
            :func:`pairwise_distance` if it is None.
        margin: by how much the negative should be farther, positive.
        swap: take the distance from the positive to the negative instead, where it is smaller than
            that from the anchor.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Returns:
        A number, or with ``reduction='none'`` an array of the shape of the distances.

    Raises:
        ArgumentError: ``margin`` is not positive or ``reduction`` is not valid.
        ShapeError: the ranks differ.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> x = jnp.ones((3, 4))
        >>> largest = lambda x, y: abs(x - y).max(-1)
        >>> F.triplet_margin_with_distance_loss(x, x, 3 * x, distance_function=largest).item()
        0.0

    References:
        Balntas et al., "Learning local feature descriptors with triplets and shallow convolutional
        neural networks", 2016; torch.nn.functional.triplet_margin_with_distance_loss
    """
    anchor, positive, negative = in_full(anchor, positive, negative)
    reduction = resolve_reduction(None, None, reduction)
    anchor, positive = as_array("anchor", anchor), as_array("positive", positive)
    negative = as_array("negative", negative)
    _triplet_checks(anchor, positive, negative, margin)
    distance = pairwise_distance if distance_function is None else distance_function
    loss = _triplet(distance, anchor, positive, negative, margin, swap)
    return reduced(loss, reduction, loss.dtype)
