"""Layers that merge axes or split one."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from funcnets import functional as F
from funcnets._args import as_int, describe
from funcnets.core.module import Module
from funcnets.errors import ArgumentError

__all__ = ["Flatten", "Unflatten"]


class Flatten(Module):
    r"""Merge a range of axes into one; by default all but the batch.

    Args:
        start_dim: first axis to merge; negative counts from the end.
        end_dim: last axis to merge, included; negative counts from the end.

    Shape:
        - Input: :math:`(*, S_\text{start}, \ldots, S_\text{end}, *)`.
        - Output: :math:`(*, \prod_i S_i, *)`.

    Raises:
        ArgumentError: an axis that is not an integer, or (on the call) axes in the wrong order.
        ShapeError: (on the call) an axis that the input does not have.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Flatten()(jnp.ones((32, 1, 5, 5))).shape
        (32, 25)

    References:
        torch.nn.Flatten
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = as_int("start_dim", start_dim)
        self.end_dim = as_int("end_dim", end_dim)

    def forward(self, input: jax.Array) -> jax.Array:
        return F.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    r"""Split an axis into several.

    Args:
        dim: the axis to split; negative counts from the end.
        unflattened_size: tuple or list of the sizes that take its place; one may be -1.

    Shape:
        - Input: :math:`(*, S_\text{dim}, *)`.
        - Output: :math:`(*, U_1, \ldots, U_n, *)` with :math:`\prod_i U_i = S_\text{dim}`.

    Raises:
        ArgumentError: not an integer, or not a tuple or list of integers; (on the call) negative sizes.
        ShapeError: (on the call) an axis that the input does not have, or of another size.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> nn.Unflatten(1, (2, 5, 5))(jnp.ones((32, 50))).shape
        (32, 2, 5, 5)

    References:
        torch.nn.Unflatten
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, (tuple, list)):
            raise ArgumentError(
                f"unflattened_size must be a tuple of integers, but got {describe(unflattened_size)}"
            )
        for size in unflattened_size:
            as_int("unflattened_size", size)
        self.dim = as_int("dim", dim)
        self.unflattened_size = unflattened_size

    def forward(self, input: jax.Array) -> jax.Array:
        return F.unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
