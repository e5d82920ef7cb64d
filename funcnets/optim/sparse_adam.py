"""SparseAdam, which cannot exist here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from funcnets.errors import UnsupportedError
from funcnets.optim.optimizer import Optimizer

__all__ = ["SparseAdam"]


class SparseAdam(Optimizer):
    """Adam for sparse gradients: refused, because gradients of JAX are dense arrays.

    PyTorch's SparseAdam updates the rows that a sparse gradient names and takes nothing else; there is
    no such gradient here. :class:`Adam` is the optimizer for dense gradients. It also moves, by what
    it remembers, the rows that a batch did not touch. Where that matters, keep the rows apart: take the
    rows that the batch uses out of the table, differentiate with respect to these, and put the
    updated rows back (``table.at[rows].set(...)``).

    Args:
        params: as in PyTorch, and so are the others.
        lr: learning rate.
        betas: decay rates of the moments.
        eps: added to the denominator.
        maximize: go up the gradient instead of down.

    Raises:
        UnsupportedError: always.

    Examples:
        >>> from funcnets import nn, optim
        >>> table = nn.Embedding(10, 3)
        >>> optimizer = optim.Adam(table.parameters())  # in the place of SparseAdam

    References:
        torch.optim.SparseAdam
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        raise UnsupportedError(
            "SparseAdam takes sparse gradients, and gradients of JAX are dense arrays: use "
            f"optim.Adam(params, lr={lr}, betas={betas}, eps={eps}, maximize={maximize})"
        )
