"""Looking rows up in a table, singly or in bags, and one-hot vectors.

Indices are values, so they cannot be checked while a function is traced. An index out of range,
negative ones included, gives a row of NaN and no gradient, which shows, where clamping would not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from funcnets._args import as_int, choice, describe, integer, require_ndim
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.functional._numeric import as_array, real, widen

__all__ = ["embedding", "embedding_bag", "embedding_renorm", "one_hot"]

# torch divides by the norm plus this.
_NORM_EPS = 1e-7


def embedding(
    input: jax.Array,
    weight: jax.Array,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> jax.Array:
    """Look up rows of a table.

    Args:
        input: ``(*)``, integers in ``[0, num_embeddings)``; any other gives a row of NaN.
        weight: ``(num_embeddings, embedding_dim)``.
        padding_idx: a row that gets no gradient; negative counts from the end.
        max_norm: rows with a larger norm are returned scaled down to it. ``weight`` itself stays as
            it is, see :func:`embedding_renorm`. The scaling is not differentiated, as in PyTorch.
        norm_type: the ``p`` of that norm.
        scale_grad_by_freq: divide the gradient of a row by how often ``input`` has it.
        sparse: must be False; JAX has no sparse gradients.

    Returns:
        ``(*, embedding_dim)``.

    Raises:
        DTypeError: ``input`` is not an array of integers.
        ShapeError: ``weight`` is not 2D.
        ArgumentError: ``padding_idx`` is not a row of ``weight``.
        UnsupportedError: ``sparse=True``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.embedding(jnp.array([[1, 2], [4, 0]]), jnp.ones((10, 3))).shape
        (2, 2, 3)

    References:
        torch.nn.functional.embedding
    """
    input, weight = as_array("input", integer("input", input)), as_array("weight", weight)
    require_ndim("weight", weight, (2,), "(num_embeddings, embedding_dim)")
    refuse_sparse(sparse)
    padding_idx = resolve_padding_idx(padding_idx, weight.shape[0])
    rows = _lookup(input, weight, max_norm, norm_type, scale_grad_by_freq)
    if padding_idx is not None:
        rows = jnp.where((input == padding_idx)[..., None], lax.stop_gradient(rows), rows)
    return rows


def embedding_bag(
    input: jax.Array,
    weight: jax.Array,
    offsets: jax.Array | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: jax.Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> jax.Array:
    """Look up bags of rows and reduce each bag to one row; an empty bag gives zeros.

    Args:
        input: ``(B, N)``, B bags of N indices each, or ``(N,)``, the bags one after the other.
        weight: ``(num_embeddings, embedding_dim)``.
        offsets: where each bag begins in a 1D ``input``: ``(B,)`` increasing integers, of which the
            first must be 0. Must be None for a 2D ``input``.
        max_norm: see :func:`embedding`.
        norm_type: see :func:`embedding`.
        scale_grad_by_freq: see :func:`embedding`; not with ``mode='max'``.
        mode: ``'sum'``, ``'mean'`` or ``'max'``. The maximum's gradient goes to its first occurrence.
        sparse: must be False; JAX has no sparse gradients.
        per_sample_weights: factors, of the shape of ``input``; with ``mode='sum'`` only.
        include_last_offset: ``offsets`` has B + 1 elements, the last being the end of the last bag.
        padding_idx: a row that is left out of its bag; negative counts from the end.

    Returns:
        ``(B, embedding_dim)``.

    Raises:
        DTypeError: indices that are not integers, or ``per_sample_weights`` of another dtype than
            ``weight``.
        ShapeError: shapes that do not fit together.
        ArgumentError: options that do not fit together.
        UnsupportedError: ``sparse=True``, or ``per_sample_weights`` with another mode than ``'sum'``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> bags = jnp.array([1, 2, 4, 5, 4]), jnp.array([0, 3])
        >>> F.embedding_bag(bags[0], jnp.ones((10, 3)), bags[1]).shape
        (2, 3)

    References:
        torch.nn.functional.embedding_bag
    """
    input, weight = as_array("input", integer("input", input)), as_array("weight", weight)
    if offsets is not None:
        offsets = as_array("offsets", integer("offsets", offsets))
    if per_sample_weights is not None:
        per_sample_weights = as_array("per_sample_weights", per_sample_weights)
    _check_bag(input, weight, offsets, mode, per_sample_weights, include_last_offset)
    if mode == "max" and scale_grad_by_freq:
        raise ArgumentError("mode='max' cannot scale gradients; leave scale_grad_by_freq=False")
    refuse_sparse(sparse)
    padding_idx = resolve_padding_idx(padding_idx, weight.shape[0])
    bag_count = input.shape[0] if offsets is None else offsets.size - include_last_offset
    if input.size == 0:
        return jnp.zeros((bag_count, weight.shape[1]), weight.dtype)
    keep = jnp.ones(input.shape, bool) if padding_idx is None else input != padding_idx
    reduce, spread = _bags(input, offsets, bag_count)
    rows = _lookup(input, weight, max_norm, norm_type, scale_grad_by_freq)
    if mode == "max":
        return _first_maximum(rows, keep[..., None], reduce, spread)
    rows = widen(rows)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.astype(rows.dtype)[..., None]
    total = reduce("sum", jnp.where(keep[..., None], rows, 0))
    if mode == "mean":
        total = total / jnp.maximum(reduce("sum", keep.astype(rows.dtype)), 1)[:, None]
    return total.astype(weight.dtype)


def embedding_renorm(
    weight: jax.Array, indices: jax.Array, max_norm: float, norm_type: float = 2.0
) -> jax.Array:
    """The table with the rows at ``indices`` scaled down to a norm of at most ``max_norm``.

    PyTorch does this to the table itself at every look-up. Here a look-up returns scaled rows; to
    have the table follow, replace it with the result of this function after an optimizer's step.

    Args:
        weight: ``(num_embeddings, embedding_dim)``.
        indices: integers of any shape.
        max_norm: the largest norm.
        norm_type: the ``p`` of the norm.

    Returns:
        The new table.

    Raises:
        ShapeError: ``weight`` is not 2D.
        DTypeError: ``indices`` is not an array of integers, or ``weight`` not one of floats.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> table = F.embedding_renorm(jnp.full((2, 4), 3.0), jnp.array([1]), max_norm=1.0)
        >>> jnp.linalg.norm(table, axis=1).round().tolist()
        [6.0, 1.0]

    References:
        torch.embedding_renorm_
    """
    weight = real("weight", weight)
    require_ndim("weight", weight, (2,), "(num_embeddings, embedding_dim)")
    indices = as_array("indices", integer("indices", indices)).reshape(-1)
    rows = _renorm(_take(weight, indices), max_norm, norm_type)
    return weight.at[indices].set(rows, mode="drop", wrap_negative_indices=False)


def one_hot(tensor: jax.Array, num_classes: int = -1) -> jax.Array:
    """Indices as vectors of zeros with a single one.

    Args:
        tensor: ``(*)``, integers in ``[0, num_classes)``; any other gives a vector of zeros.
        num_classes: length of the vectors. -1 takes the largest value plus one, which needs the
            values and so cannot be done under ``jit``.

    Returns:
        ``(*, num_classes)`` integers, int64 where 64 bit types are enabled and int32 otherwise.

    Raises:
        DTypeError: ``tensor`` is not an array of integers.
        ArgumentError: ``num_classes`` is neither positive nor -1; it is -1 and ``tensor`` is traced,
            empty or has negative values.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.one_hot(jnp.array([0, 2, 1]), 3).tolist()
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]]

    References:
        torch.nn.functional.one_hot
    """
    tensor = integer("tensor", tensor)
    num_classes = as_int("num_classes", num_classes)
    if num_classes == -1:
        try:
            values = np.asarray(tensor).reshape(-1)
        except jax.errors.TracerArrayConversionError:
            values = np.empty(0, int)
        if values.size == 0:
            raise ArgumentError(
                "num_classes=-1 is found from the values, and there are none to look at in "
                f"tensor {describe(tensor)}; pass num_classes"
            )
        if values.min() < 0:
            raise ArgumentError(f"class values must not be negative, but got {values.min()}")
        num_classes = int(values.max()) + 1
    elif num_classes < 1:
        raise ArgumentError(
            f"num_classes must be positive, or -1 to be inferred, but got {num_classes}"
        )
    return jax.nn.one_hot(tensor, num_classes, dtype=jax.dtypes.canonicalize_dtype("int64"))


def refuse_sparse(sparse: bool) -> None:
    """Refuse ``sparse=True``."""
    if sparse:
        raise UnsupportedError(
            "sparse=True asks for sparse gradients, which JAX does not have; leave sparse=False "
            "(under jit the dense gradient is a scatter into the table's own shape)"
        )


def resolve_padding_idx(padding_idx: int | None, num_embeddings: int) -> int | None:
    """``padding_idx`` counted from the start."""
    if padding_idx is None:
        return None
    padding_idx = as_int("padding_idx", padding_idx)
    if not -num_embeddings <= padding_idx < num_embeddings:
        raise ArgumentError(
            f"padding_idx must be one of the {num_embeddings} rows (num_embeddings), but got {padding_idx}"
        )
    return padding_idx % num_embeddings


def _take(weight: jax.Array, indices: jax.Array) -> jax.Array:
    return weight.at[indices].get(mode="fill", wrap_negative_indices=False)


def _lookup(
    input: jax.Array, weight: jax.Array, max_norm: float | None, norm_type: float, by_freq: bool
) -> jax.Array:
    rows = _take(weight, input)
    if max_norm is not None:
        # The value of the scaled rows with the gradient of the unscaled ones.
        scaled = lax.stop_gradient(_renorm(rows, max_norm, norm_type))
        rows = scaled + (rows - lax.stop_gradient(rows))
    if by_freq:
        counts = (
            jnp.zeros(weight.shape[0], jnp.int32)
            .at[input]
            .add(1, mode="drop", wrap_negative_indices=False)
        )
        scale = (1 / jnp.maximum(_take(counts, input), 1))[..., None].astype(rows.dtype)
        rows = lax.stop_gradient(rows) + (rows - lax.stop_gradient(rows)) * scale
    return rows


def _renorm(rows: jax.Array, max_norm: float, norm_type: float) -> jax.Array:
    wide = widen(rows)
    order: Any = norm_type
    norm = jnp.linalg.vector_norm(wide, ord=order, axis=-1, keepdims=True)
    return jnp.where(norm > max_norm, wide * (max_norm / (norm + _NORM_EPS)), wide).astype(
        rows.dtype
    )


def _bags(
    input: jax.Array, offsets: jax.Array | None, count: int
) -> tuple[Callable[[str, jax.Array], jax.Array], Callable[[jax.Array], jax.Array]]:
    """``reduce(op, elements)`` over each bag, and ``spread(bags)`` back to the elements."""
    if offsets is None:
        return lambda op, x: getattr(jnp, op)(x, axis=1), lambda x: x[:, None]
    # An element belongs to the last bag that begins at or before it; what lies behind the last
    # offset of a CSR list gets a bag number that is out of range, which the reductions drop.
    elements = jnp.arange(input.size, dtype=offsets.dtype)
    bags = jnp.searchsorted(offsets, elements, side="right") - 1
    return lambda op, x: getattr(jax.ops, f"segment_{op}")(x, bags, count), lambda x: _take(x, bags)


def _first_maximum(
    rows: jax.Array, keep: jax.Array, reduce: Callable, spread: Callable
) -> jax.Array:
    axis = rows.ndim - 2
    masked = jnp.where(keep, lax.stop_gradient(rows), -jnp.inf)
    # NaN is larger than anything, and differs from itself.
    largest = keep & ((masked == spread(reduce("max", masked))) | jnp.isnan(masked))
    position = jnp.where(
        largest, lax.broadcasted_iota(jnp.int32, rows.shape, axis), rows.shape[axis]
    )
    first = largest & (position == spread(reduce("min", position)))
    return reduce("sum", jnp.where(first, rows, 0))


def _check_bag(
    input: jax.Array,
    weight: jax.Array,
    offsets: jax.Array | None,
    mode: str,
    per_sample_weights: jax.Array | None,
    include_last_offset: bool,
) -> None:
    require_ndim("weight", weight, (2,), "(num_embeddings, embedding_dim)")
    require_ndim("input", input, (1, 2), "(N,) with offsets, or (B, N)")
    choice("mode", mode, ("sum", "mean", "max"))
    if input.ndim == 2 and offsets is not None:
        raise ArgumentError("offsets must be None for a 2D input, whose rows are the bags")
    if input.ndim == 1:
        if offsets is None:
            raise ArgumentError(
                "offsets must tell where the bags of a 1D input begin, but got None"
            )
        require_ndim("offsets", offsets, (1,), "(B,)")
        if include_last_offset and offsets.size == 0:
            raise ShapeError("offsets must have at least one element with include_last_offset=True")
    if per_sample_weights is None:
        return
    if mode != "sum":
        raise UnsupportedError(f"per_sample_weights needs mode='sum', but got mode={mode!r}")
    if per_sample_weights.shape != input.shape:
        raise ShapeError(
            "expected per_sample_weights of the shape of input "
            f"{describe(input)}, but got {describe(per_sample_weights)}"
        )
    if per_sample_weights.dtype != weight.dtype:
        raise DTypeError(
            "expected per_sample_weights of the dtype of weight "
            f"{describe(weight)}, but got {describe(per_sample_weights)}"
        )
