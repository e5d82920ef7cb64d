"""Connectionist temporal classification, as a layer."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from funcnets import functional as F
from funcnets._args import positive
from funcnets.nn.loss import Loss

__all__ = ["CTCLoss"]


class CTCLoss(Loss):
    r"""Negative log likelihood of label sequences, summed over all their alignments in time.

    .. math:: \ell = -\log \sum_{\pi \in B^{-1}(y)} \prod_t p_t(\pi_t)

    where :math:`B` merges repeated labels and then drops the blanks. The mean divides every loss by
    its number of labels first. A sequence that no alignment can produce has an infinite loss and the
    gradient 0. :func:`funcnets.nn.functional.ctc_loss` tells how the gradient differs from PyTorch's
    when the input is not normalised.

    Args:
        blank: the index of the blank.
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        zero_infinity: count infinite losses as 0.

    Shape:
        - log_probs: log-probabilities, :math:`(T, N, C)` or :math:`(T, C)`.
        - targets: labels, integers in :math:`[0, C)`, :math:`(N, S)`, or all sequences one after
          another; :math:`(S)` for one sample.
        - input_lengths, target_lengths: integers, :math:`(N)` or :math:`()`, or a tuple.
        - output: a number; with ``reduction='none'`` :math:`(N)` or :math:`()`.

    Raises:
        ArgumentError: ``blank`` is negative or ``reduction`` is not valid.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> log_probs = nn.LogSoftmax(2)(jnp.zeros((5, 2, 4)))
        >>> nn.CTCLoss()(log_probs, jnp.array([[1, 2, 2], [3, 1, 0]]), (5, 5), (3, 2)).shape
        ()

    References:
        Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data
        with recurrent neural networks", 2006; torch.nn.CTCLoss
    """

    _function = staticmethod(F.ctc_loss)
    _options = ("blank", "zero_infinity")

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction=reduction)
        self.blank = positive("blank", blank, minimum=0)
        self.zero_infinity = zero_infinity

    def forward(
        self,
        log_probs: jax.Array,
        targets: jax.Array,
        input_lengths: jax.Array | Sequence[int],
        target_lengths: jax.Array | Sequence[int],
    ) -> jax.Array:
        return self.compute(log_probs, targets, input_lengths, target_lengths)
