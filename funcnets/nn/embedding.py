"""Tables of learned vectors, looked up singly or in bags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp

from funcnets import functional as F
from funcnets._args import choice, describe, positive
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.errors import ShapeError
from funcnets.functional.embedding import refuse_sparse, resolve_padding_idx
from funcnets.init import Initializer, normal

__all__ = ["Embedding", "EmbeddingBag"]


@dataclass(frozen=True)
class NormalWithZeroRow(Initializer):
    """Standard normal, save for one row of zeros."""

    row: int

    def __call__(self, key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return normal()(key, shape, dtype).at[self.row].set(0)


class _Table(Module):
    """What both layers have: the table, its options and its initialisation."""

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None
    weight: Any

    def _build(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        _weight: Any,
        device: Any,
        dtype: Any,
    ) -> None:
        refuse_sparse(sparse)
        self.num_embeddings = positive("num_embeddings", num_embeddings, minimum=0)
        self.embedding_dim = positive("embedding_dim", embedding_dim, minimum=0)
        self.padding_idx = resolve_padding_idx(padding_idx, num_embeddings)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        shape = (num_embeddings, embedding_dim)
        if _weight is None:
            self.weight = Parameter(shape, device=device, dtype=dtype)
            self.reset_parameters()
            return
        if tuple(_weight.shape) != shape:
            raise ShapeError(f"expected _weight of shape {shape}, but got {describe(_weight)}")
        self.weight = Parameter(_weight, device=device)

    def reset_parameters(self) -> None:
        """Draw the table anew."""
        row = self.padding_idx
        self.weight.reinitialise(normal() if row is None else NormalWithZeroRow(row))


class Embedding(_Table):
    r"""A table of vectors, one for each index.

    Args:
        num_embeddings: number of rows of the table.
        embedding_dim: size of a row.
        padding_idx: a row that starts at zero and gets no gradient; negative counts from the end.
        max_norm: rows with a larger norm are returned scaled down to it. PyTorch writes the scaled
            rows into the table on every call, which a parameter here does not allow; call
            :func:`funcnets.functional.embedding_renorm` after an optimizer's step for the same course.
        norm_type: the ``p`` of that norm.
        scale_grad_by_freq: divide the gradient of a row by how often the input has it.
        sparse: must be False; JAX has no sparse gradients.
        _weight: a table to start from, ``(num_embeddings, embedding_dim)``.
        _freeze: whether the table is not trained.
        device: where the table is placed.
        dtype: its dtype, float32 by default.

    Shape:
        - Input: :math:`(*)`, integers in ``[0, num_embeddings)``. They cannot be checked under ``jit``:
          any other index gives a row of NaN.
        - Output: :math:`(*, \text{embedding\_dim})`.

    Attributes:
        weight: :math:`(\text{num\_embeddings}, \text{embedding\_dim})`, from :math:`\mathcal{N}(0, 1)`.

    Raises:
        ArgumentError: a size that is not an integer, or a ``padding_idx`` out of range.
        ShapeError: ``_weight`` has another shape.
        UnsupportedError: ``sparse=True``.
        DTypeError: (on the call) the input is not an array of integers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> embedding = nn.Embedding(10, 3, padding_idx=0)
        >>> embedding(jnp.array([[1, 2], [4, 0]])).shape
        (2, 2, 3)

    References:
        torch.nn.Embedding
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        self._build(num_embeddings, embedding_dim, *options, _weight, device, dtype)
        self.weight.requires_grad = not _freeze

    def forward(self, input: jax.Array) -> jax.Array:
        return F.embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq is not False:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        return text

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:
        """An Embedding on a table that exists.

        Args:
            embeddings: ``(num_embeddings, embedding_dim)``.
            freeze: whether the table is not trained.
            padding_idx: see the class. The row is used as it is, not set to zero.
            max_norm: see the class.
            norm_type: see the class.
            scale_grad_by_freq: see the class.
            sparse: see the class.

        Returns:
            The layer.

        Raises:
            ShapeError: ``embeddings`` is not 2D.

        Examples:
            >>> import jax.numpy as jnp
            >>> from funcnets import nn
            >>> nn.Embedding.from_pretrained(jnp.ones((4, 3)))
            Embedding(4, 3)
        """
        return cls(
            *_table_shape(embeddings),
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            sparse=sparse,
            _weight=embeddings,
            _freeze=freeze,
        )


class EmbeddingBag(_Table):
    r"""A table of vectors, looked up in bags of indices, each of which is reduced to one vector.

    Args:
        num_embeddings: number of rows of the table.
        embedding_dim: size of a row.
        max_norm: see :class:`Embedding`.
        norm_type: see :class:`Embedding`.
        scale_grad_by_freq: see :class:`Embedding`; not with ``mode='max'``.
        mode: ``'sum'``, ``'mean'`` or ``'max'``.
        sparse: must be False; JAX has no sparse gradients.
        _weight: a table to start from, ``(num_embeddings, embedding_dim)``.
        include_last_offset: the offsets have one more element, the end of the last bag.
        padding_idx: a row that starts at zero and is left out of its bag; negative counts from the
            end.
        device: where the table is placed.
        dtype: its dtype, float32 by default.

    Shape:
        - Input: :math:`(B, N)`, or :math:`(N)` with offsets :math:`(B)`; integers in
          ``[0, num_embeddings)``. Any other index gives NaN for its bag.
        - Output: :math:`(B, \text{embedding\_dim})`; an empty bag gives zeros.

    Attributes:
        weight: :math:`(\text{num\_embeddings}, \text{embedding\_dim})`, from :math:`\mathcal{N}(0, 1)`.

    Raises:
        ArgumentError: a size that is not an integer, an unknown ``mode``, or a ``padding_idx`` out of
            range.
        ShapeError: ``_weight`` has another shape.
        UnsupportedError: ``sparse=True``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> bag = nn.EmbeddingBag(10, 3, mode="sum")
        >>> bag(jnp.array([1, 2, 4, 5, 4, 3]), jnp.array([0, 4])).shape
        (2, 3)

    References:
        torch.nn.EmbeddingBag
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.mode = choice("mode", mode, ("sum", "mean", "max"))
        self.include_last_offset = include_last_offset
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        self._build(num_embeddings, embedding_dim, *options, _weight, device, dtype)

    def forward(
        self,
        input: jax.Array,
        offsets: jax.Array | None = None,
        per_sample_weights: jax.Array | None = None,
    ) -> jax.Array:
        """Reduce bags of rows; the arguments are those of ``functional.embedding_bag``."""
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq is not False:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        text += f", mode={self.mode!r}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        return text

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Self:
        """An EmbeddingBag on a table that exists; see the class and :class:`Embedding`.

        Raises:
            ShapeError: ``embeddings`` is not 2D.

        Examples:
            >>> import jax.numpy as jnp
            >>> from funcnets import nn
            >>> nn.EmbeddingBag.from_pretrained(jnp.ones((4, 3)))
            EmbeddingBag(4, 3, mode='mean')
        """
        bag = cls(
            *_table_shape(embeddings),
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            mode=mode,
            sparse=sparse,
            _weight=embeddings,
            include_last_offset=include_last_offset,
            padding_idx=padding_idx,
        )
        bag.weight.requires_grad = not freeze
        return bag


def _table_shape(embeddings: Any) -> tuple[int, int]:
    if len(embeddings.shape) != 2:
        raise ShapeError(
            f"expected 2D embeddings (num_embeddings, embedding_dim), but got {describe(embeddings)}"
        )
    return tuple(embeddings.shape)
