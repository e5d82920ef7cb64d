"""Losses between embeddings, as layers: pairs by their cosine, triplets by their distances."""

from __future__ import annotations

from collections.abc import Callable

import jax

from funcnets import functional as F
from funcnets.errors import ArgumentError
from funcnets.functional._numeric import number
from funcnets.nn.distance import PairwiseDistance
from funcnets.nn.loss import Loss

__all__ = ["CosineEmbeddingLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss"]


class CosineEmbeddingLoss(Loss):
    r"""The same direction for similar pairs, a cosine below a margin for the others.

    .. math::
        \ell = \begin{cases}
            1 - \cos(x_1, x_2) & y = 1 \\
            \max(0, \cos(x_1, x_2) - \text{margin}) & y = -1
        \end{cases}

    Args:
        margin: the cosine that dissimilar pairs may have, from -1 to 1.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input1, input2: :math:`(N, D)` or :math:`(D)`, broadcast.
        - target: 1 or -1, :math:`(N)` or :math:`()`.
        - output: a number; with ``reduction='none'`` :math:`(N)` or :math:`()`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> x = jnp.ones((3, 4))
        >>> nn.CosineEmbeddingLoss()(x, -x, jnp.ones(3)).item()
        2.0

    References:
        torch.nn.CosineEmbeddingLoss
    """

    _function = staticmethod(F.cosine_embedding_loss)
    _options = ("margin",)

    def __init__(
        self,
        margin: float = 0.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = number("margin", margin)

    def forward(self, input1: jax.Array, input2: jax.Array, target: jax.Array) -> jax.Array:
        return self.compute(input1, input2, target)


def _positive(margin: float) -> float:
    if not number("margin", margin) > 0:
        raise ArgumentError(f"margin must be positive, but got {margin}")
    return margin


class TripletMarginLoss(Loss):
    r"""An anchor nearer to its positive than to its negative example by a margin.

    .. math:: \ell = \max(0, d(a, p) - d(a, n) + \text{margin}), \quad
        d(x, y) = \lVert x - y + \epsilon \rVert_p

    Args:
        margin: by how much the negative should be farther, positive.
        p: which norm.
        eps: added to each difference.
        swap: take the distance from the positive to the negative instead, where it is smaller than
            that from the anchor.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - anchor, positive, negative: :math:`(*, D)`, of one rank, broadcast.
        - output: a number; with ``reduction='none'`` :math:`(*)`.

    Raises:
        ArgumentError: ``margin`` is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> x = jnp.ones((3, 4))
        >>> nn.TripletMarginLoss()(x, x, x).item()
        1.0

    References:
        Balntas et al., "Learning local feature descriptors with triplets and shallow convolutional
        neural networks", 2016; torch.nn.TripletMarginLoss
    """

    _function = staticmethod(F.triplet_margin_loss)
    _options = ("margin", "p", "eps", "swap")

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = _positive(margin)
        self.p = number("p", p)
        self.eps = number("eps", eps)
        self.swap = swap

    def forward(self, anchor: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
        return self.compute(anchor, positive, negative)


class TripletMarginWithDistanceLoss(Loss):
    r"""The triplet loss with a distance of one's own, which may be a module with parameters.

    .. math:: \ell = \max(0, d(a, p) - d(a, n) + \text{margin})

    Args:
        distance_function: the distance :math:`d`, a module or a function of two arrays;
            :class:`PairwiseDistance` if it is None.
        margin: by how much the negative should be farther, positive.
        swap: take the distance from the positive to the negative instead, where it is smaller than
            that from the anchor.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - anchor, positive, negative: of one rank, whatever the distance takes.
        - output: a number; with ``reduction='none'`` the shape of the distances.

    Raises:
        ArgumentError: ``margin`` is not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> criterion = nn.TripletMarginWithDistanceLoss(
        ...     distance_function=lambda x, y: abs(x - y).max(-1)
        ... )
        >>> x = jnp.ones((3, 4))
        >>> criterion(x, x, 3 * x).item()
        0.0

    References:
        Balntas et al., "Learning local feature descriptors with triplets and shallow convolutional
        neural networks", 2016; torch.nn.TripletMarginWithDistanceLoss
    """

    _function = staticmethod(F.triplet_margin_with_distance_loss)
    _options = ("distance_function", "margin", "swap")

    def __init__(
        self,
        *,
        distance_function: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(None, None, reduction)
        self.distance_function = (
            PairwiseDistance() if distance_function is None else distance_function
        )
        self.margin = _positive(margin)
        self.swap = swap

    def forward(self, anchor: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
        return self.compute(anchor, positive, negative)
