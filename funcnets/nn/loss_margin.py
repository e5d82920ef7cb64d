"""Losses that ask for a margin, as layers: between classes, between labels, between two scores."""

from __future__ import annotations

import jax

from funcnets import functional as F
from funcnets._args import choice, describe
from funcnets.errors import ShapeError
from funcnets.functional._numeric import number
from funcnets.nn.loss import Loss, WeightedLoss

__all__ = [
    "HingeEmbeddingLoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "SoftMarginLoss",
]


class HingeEmbeddingLoss(Loss):
    r"""Small distances for similar pairs, distances beyond a margin for the others.

    .. math::
        \ell = \begin{cases} x & y = 1 \\ \max(0, \text{margin} - x) & y = -1 \end{cases}

    Args:
        margin: the distance that dissimilar pairs should have.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: distances, any.
        - target: 1 or -1, as the input or broadcasting with it.
        - output: a number; with ``reduction='none'`` the common shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.HingeEmbeddingLoss()(jnp.array([0.5, 0.5]), jnp.array([1, -1])).item()
        0.5

    References:
        torch.nn.HingeEmbeddingLoss
    """

    _function = staticmethod(F.hinge_embedding_loss)
    _options = ("margin",)

    def __init__(
        self,
        margin: float = 1.0,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = number("margin", margin)


class MarginRankingLoss(Loss):
    r"""The first score above the second by a margin where the target is 1, below where it is -1.

    .. math:: \ell = \max(0, -y \, (x_1 - x_2) + \text{margin})

    Args:
        margin: by how much the scores should differ.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input1, input2, target: any, of one rank, broadcast. The target is 1 or -1.
        - output: a number; with ``reduction='none'`` the common shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.MarginRankingLoss()(jnp.array([1.0]), jnp.array([3.0]), jnp.array([1])).item()
        2.0

    References:
        torch.nn.MarginRankingLoss
    """

    _function = staticmethod(F.margin_ranking_loss)
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


class MultiMarginLoss(WeightedLoss):
    r"""The score of the target class above every other by a margin.

    .. math:: \ell = \frac{w_y}{C} \sum_{c \ne y} \max(0, \text{margin} - x_y + x_c)^p

    Args:
        p: 1 or 2.
        margin: by how much the target's score should be above.
        weight: one weight a class, :math:`(C)`.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: scores, :math:`(N, C)` or :math:`(C)`.
        - target: integers in :math:`[0, C)`, :math:`(N)` or :math:`()`. Others give NaN.
        - output: a number; with ``reduction='none'`` as the target.

    Attributes:
        weight: a buffer, or None.

    Raises:
        ArgumentError: ``p`` is neither 1 nor 2.
        ShapeError: ``weight`` has not one axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.MultiMarginLoss()(jnp.array([[0.0, 0.5]]), jnp.array([1])).item()
        0.25

    References:
        torch.nn.MultiMarginLoss
    """

    _function = staticmethod(F.multi_margin_loss)
    _options = ("p", "margin", "weight")

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: jax.Array | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.p = choice("p", p, (1, 2))
        self.margin = number("margin", margin)
        if weight is not None and weight.ndim != 1:
            raise ShapeError(f"weight must have shape (C,), but got {describe(weight)}")


class MultiLabelMarginLoss(Loss):
    r"""The scores of all labels of a sample above those of all other classes by 1.

    .. math:: \ell = \frac1C \sum_{y \in Y} \sum_{c \notin Y} \max(0, 1 - x_y + x_c)

    Args:
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: scores, :math:`(N, C)` or :math:`(C)`.
        - target: as the input: class indices up to the first negative number.
        - output: a number; with ``reduction='none'`` :math:`(N)` or :math:`()`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> x, y = jnp.array([0.0, 1.0, 0.0, 0.0]), jnp.array([1, -1, 0, 0])
        >>> nn.MultiLabelMarginLoss()(x, y).item()
        0.0

    References:
        torch.nn.MultiLabelMarginLoss
    """

    _function = staticmethod(F.multilabel_margin_loss)


class SoftMarginLoss(Loss):
    r"""Logistic loss of scores whose sign should be that of the target.

    .. math:: \ell = \log(1 + e^{-y x})

    Args:
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.

    Shape:
        - input: scores, any.
        - target: 1 or -1, as the input or broadcasting with it.
        - output: a number; with ``reduction='none'`` the common shape.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.SoftMarginLoss()(jnp.array([-1000.0]), jnp.array([1])).item()
        1000.0

    References:
        torch.nn.SoftMarginLoss
    """

    _function = staticmethod(F.soft_margin_loss)


class MultiLabelSoftMarginLoss(WeightedLoss):
    r"""Binary cross entropy with logits, averaged over the labels of each sample.

    .. math::
        \ell = -\frac1C \sum_c w_c \, (y_c \log \sigma(x_c) + (1 - y_c) \log(1 - \sigma(x_c)))

    Args:
        weight: factors that broadcast to the input, :math:`(C)` for one a label.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``'none'``, ``'mean'`` or ``'sum'`` over the samples.

    Shape:
        - input: logits, :math:`(*, C)`.
        - target: 0 or 1, or probabilities, as the input or broadcasting to it.
        - output: a number; with ``reduction='none'`` :math:`(*)`.

    Attributes:
        weight: a buffer, or None.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> criterion = nn.MultiLabelSoftMarginLoss(reduction="none")
        >>> criterion(jnp.zeros((3, 4)), jnp.ones((3, 4))).shape
        (3,)

    References:
        torch.nn.MultiLabelSoftMarginLoss
    """

    _function = staticmethod(F.multilabel_soft_margin_loss)
