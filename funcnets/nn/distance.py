"""Distances and similarities between vectors, as layers."""

from __future__ import annotations

import jax

from funcnets import functional as F
from funcnets._args import as_int
from funcnets.core.module import Module
from funcnets.errors import ArgumentError
from funcnets.functional._numeric import number

__all__ = ["CosineSimilarity", "PairwiseDistance"]


class PairwiseDistance(Module):
    r"""Distances between vectors that correspond to one another, along the last axis.

    .. math:: d = \lVert x_1 - x_2 + \epsilon \rVert_p

    Args:
        p: which norm; any number, infinities included.
        eps: added to each difference.
        keepdim: keep the last axis, with size 1.

    Shape:
        - x1, x2: :math:`(*, D)`, broadcast.
        - output: :math:`(*)`, or :math:`(*, 1)` with ``keepdim``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.PairwiseDistance()(jnp.zeros((3, 4)), jnp.ones((3, 4))).shape
        (3,)

    References:
        torch.nn.PairwiseDistance
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = number("p", p)
        self.eps = number("eps", eps)
        self.keepdim = keepdim

    def forward(self, x1: jax.Array, x2: jax.Array) -> jax.Array:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineSimilarity(Module):
    r"""Cosine of the angle between vectors.

    .. math:: s = \frac{x_1}{\max(\lVert x_1 \rVert_2, \epsilon)} \cdot
        \frac{x_2}{\max(\lVert x_2 \rVert_2, \epsilon)}

    Args:
        dim: the axis along which the vectors lie.
        eps: the least norm to divide by, not negative.

    Shape:
        - x1, x2: :math:`(*, D, *)` with :math:`D` along ``dim``, broadcast.
        - output: the common shape without axis ``dim``.

    Raises:
        ArgumentError: ``eps`` is negative.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.CosineSimilarity()(jnp.ones((3, 4)), jnp.ones((3, 4))).shape
        (3,)

    References:
        torch.nn.CosineSimilarity
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = as_int("dim", dim)
        self.eps = number("eps", eps)
        if not self.eps >= 0:
            raise ArgumentError(f"eps must not be negative, but got {eps}")

    def forward(self, x1: jax.Array, x2: jax.Array) -> jax.Array:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)
