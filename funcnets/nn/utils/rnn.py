"""Batches of sequences of different lengths: padded, packed, and back.

A packed batch holds the steps of all sequences without padding, first the first steps of all of
them, then the second ones, and so on, longest sequence first. How many elements that are depends on
the lengths, and shapes in JAX are static: so lengths must be concrete numbers (a list, a NumPy array,
an array outside of ``jit``), and a function compiled for one packed batch is compiled again for one
with other ``batch_sizes``. The data itself can be traced and differentiated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import choice, describe, integer
from funcnets.errors import ArgumentError, DTypeError, ShapeError

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class _Fields(NamedTuple):
    data: Any
    batch_sizes: Any
    sorted_indices: Any
    unsorted_indices: Any


class PackedSequence(_Fields):
    """A batch of sequences of different lengths without padding; the recurrent layers take and return it.

    Made by :func:`pack_padded_sequence` and :func:`pack_sequence`. It is a pytree, whose
    ``batch_sizes`` are static.

    Args:
        data: ``(sum of the lengths, *)``: all first steps, all second steps, and so on.
        batch_sizes: how many sequences have a first step, a second step, and so on.
        sorted_indices: which of the original sequences comes first, second, ... when they are
            sorted by decreasing length; None if they were given so.
        unsorted_indices: the inverse permutation; found if it is not given.

    Raises:
        ArgumentError: ``batch_sizes`` is missing, or is not a decreasing list of concrete integers.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import pack_sequence
        >>> packed = pack_sequence([jnp.array([1, 2, 3]), jnp.array([4, 5]), jnp.array([6])])
        >>> packed.data.tolist(), packed.batch_sizes.tolist()
        ([1, 4, 6, 2, 5, 3], [3, 2, 1])

    References:
        torch.nn.utils.rnn.PackedSequence
    """

    __slots__ = ()

    def __new__(
        cls,
        data: Any,
        batch_sizes: Any = None,
        sorted_indices: jax.Array | None = None,
        unsorted_indices: jax.Array | None = None,
    ) -> Self:
        if batch_sizes is None:
            if not isinstance(data, (tuple, list)) or len(data) != 2:
                raise ArgumentError(
                    "PackedSequence needs batch_sizes; pack_sequence and pack_padded_sequence find them"
                )
            data, batch_sizes = data
        sizes = _host_integers("batch_sizes", batch_sizes)
        if sizes.ndim != 1 or sizes.size == 0 or sizes[-1] < 1 or (np.diff(sizes) > 0).any():
            raise ArgumentError(
                f"batch_sizes must be one or more positive integers that never increase, but got {sizes}"
            )
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Self:
        """Convert the data, or place it and the indices.

        Args:
            *args: a dtype, a ``jax.Device`` or a ``Sharding``.
            dtype: the dtype by name.
            device: the device or sharding by name.

        Returns:
            A new PackedSequence.
        """
        for arg in args:
            if isinstance(arg, (jax.Device, jax.sharding.Sharding)):
                device = arg
            else:
                dtype = arg
        data = self.data if dtype is None else jnp.asarray(self.data).astype(dtype)
        indices = self.sorted_indices, self.unsorted_indices
        if device is not None:
            data, *indices = jax.device_put((data, *indices), device)
        return type(self)(data, self.batch_sizes, *indices)

    def double(self) -> Self:
        """Convert the data to float64."""
        return self.to(jnp.float64)

    def float(self) -> Self:
        """Convert the data to float32."""
        return self.to(jnp.float32)

    def half(self) -> Self:
        """Convert the data to float16."""
        return self.to(jnp.float16)

    def long(self) -> Self:
        """Convert the data to int64."""
        return self.to(jnp.int64)

    def int(self) -> Self:
        """Convert the data to int32."""
        return self.to(jnp.int32)


def _flatten(packed: PackedSequence) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    children = packed.data, packed.sorted_indices, packed.unsorted_indices
    return children, tuple(packed.batch_sizes.tolist())


def _unflatten(batch_sizes: tuple[int, ...], children: tuple[Any, ...]) -> PackedSequence:
    # Past __new__, whose checks do not hold for the place holders that JAX may put in a tree.
    data, sorted_indices, unsorted_indices = children
    fields = data, np.array(batch_sizes), sorted_indices, unsorted_indices
    return tuple.__new__(PackedSequence, fields)


jax.tree_util.register_pytree_node(PackedSequence, _flatten, _unflatten)


def invert_permutation(permutation: jax.Array | None) -> jax.Array | None:
    """The permutation that undoes ``permutation``.

    Args:
        permutation: ``(n,)`` integers, or None.

    Returns:
        ``(n,)`` integers; None for None.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import invert_permutation
        >>> invert_permutation(jnp.array([2, 0, 1])).tolist()
        [1, 2, 0]

    References:
        torch.nn.utils.rnn.invert_permutation
    """
    if permutation is None:
        return None
    permutation = jnp.asarray(integer("permutation", permutation))
    return (
        jnp.zeros_like(permutation)
        .at[permutation]
        .set(jnp.arange(permutation.size, dtype=permutation.dtype))
    )


def pack_padded_sequence(
    input: jax.Array, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Drop the padding of a batch of sequences.

    Args:
        input: ``(T, B, *)``, or ``(B, T, *)`` with ``batch_first``.
        lengths: ``B`` concrete positive integers, none above ``T``.
        batch_first: whether the batch comes first in ``input``.
        enforce_sorted: refuse lengths that increase. Otherwise the sequences are sorted, and what
            unpacks or runs the result puts them back in order.

    Returns:
        A PackedSequence.

    Raises:
        ArgumentError: lengths that are traced, not positive, or increase while ``enforce_sorted``.
        ShapeError: ``input`` has fewer than two axes, or there are not ``B`` lengths up to ``T``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import pack_padded_sequence
        >>> batch = jnp.array([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
        >>> packed = pack_padded_sequence(batch, [2, 1, 3], batch_first=True, enforce_sorted=False)
        >>> packed.data.tolist(), packed.sorted_indices.tolist()
        ([4, 1, 3, 5, 2, 6], [2, 0, 1])

    References:
        torch.nn.utils.rnn.pack_padded_sequence
    """
    input, lengths = jnp.asarray(input), _host_integers("lengths", lengths)
    if input.ndim < 2:
        raise ShapeError(f"expected input of at least 2D, (T, B, *), but got {describe(input)}")
    steps, batch = input.shape[:2] if not batch_first else input.shape[1::-1]
    if lengths.shape != (batch,) or batch == 0:
        raise ShapeError(
            f"expected one length for each of {batch} sequences, at least one, but got lengths of "
            f"shape {lengths.shape} for input {describe(input)}"
        )
    if lengths.min() < 1:
        raise ArgumentError(f"lengths must be positive, but got {lengths.tolist()}")
    if lengths.max() > steps:
        raise ShapeError(f"lengths must be at most T={steps}, but got {lengths.tolist()}")
    order = None
    if not enforce_sorted:
        order = np.argsort(-lengths, kind="stable")
        lengths = lengths[order]
    elif (np.diff(lengths) > 0).any():
        raise ArgumentError(
            f"lengths must not increase, but got {lengths.tolist()}; sort the sequences, or pass "
            "enforce_sorted=False"
        )
    time, row = _positions(batch_sizes_of(lengths))
    column = row if order is None else order[row]
    data = input[column, time] if batch_first else input[time, column]
    return PackedSequence(
        data, batch_sizes_of(lengths), None if order is None else jnp.asarray(order)
    )


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Put the padding back: the inverse of :func:`pack_padded_sequence`.

    Args:
        sequence: a packed batch.
        batch_first: whether the batch comes first in the result.
        padding_value: what to pad with.
        total_length: pad to this length instead of that of the longest sequence.

    Returns:
        ``(padded, lengths)``: ``(T, B, *)``, or ``(B, T, *)`` with ``batch_first``, and ``B``
        integers, both in the original order.

    Raises:
        ArgumentError: ``total_length`` is less than the longest sequence.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import pack_sequence, pad_packed_sequence
        >>> packed = pack_sequence([jnp.array([4]), jnp.array([1, 2])], enforce_sorted=False)
        >>> padded, lengths = pad_packed_sequence(packed, batch_first=True)
        >>> padded.tolist(), lengths.tolist()
        ([[4, 0], [1, 2]], [1, 2])

    References:
        torch.nn.utils.rnn.pad_packed_sequence
    """
    padded, lengths = unpack_sorted(sequence, padding_value, total_length)
    lengths = jnp.asarray(lengths)
    if sequence.unsorted_indices is not None:
        padded, lengths = padded[:, sequence.unsorted_indices], lengths[sequence.unsorted_indices]
    return (jnp.swapaxes(padded, 0, 1) if batch_first else padded), lengths


def pad_sequence(
    sequences: Iterable[jax.Array],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> jax.Array:
    """Stack sequences of different lengths, padded to the longest.

    Args:
        sequences: ``(L, *)`` each, alike in ``*`` and in dtype.
        batch_first: whether the batch comes first in the result.
        padding_value: what to pad with.
        padding_side: ``'right'`` or ``'left'``.

    Returns:
        ``(T, B, *)``, or ``(B, T, *)`` with ``batch_first``.

    Raises:
        ArgumentError: no sequences, or another ``padding_side``.
        ShapeError: sequences that differ in ``*``.
        DTypeError: sequences of different dtypes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import pad_sequence
        >>> pad_sequence([jnp.ones((25, 300)), jnp.ones((22, 300)), jnp.ones((15, 300))]).shape
        (25, 3, 300)

    References:
        torch.nn.utils.rnn.pad_sequence
    """
    choice("padding_side", padding_side, ("right", "left"))
    if not isinstance(sequences, Iterable):
        raise ArgumentError(f"sequences must be a list of arrays, but got {describe(sequences)}")
    arrays = [jnp.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise ArgumentError("sequences must not be empty")
    first = arrays[0]
    for array in arrays:
        if array.ndim == 0 or array.shape[1:] != first.shape[1:]:
            raise ShapeError(f"expected sequences (L, *), alike in *, but got {describe(arrays)}")
        if array.dtype != first.dtype:
            raise DTypeError(f"expected sequences of one dtype, but got {describe(arrays)}")
    longest = max(array.shape[0] for array in arrays)

    def pad(array: jax.Array) -> jax.Array:
        missing = longest - array.shape[0]
        width = (0, missing) if padding_side == "right" else (missing, 0)
        value = jnp.asarray(padding_value).astype(array.dtype)
        return jnp.pad(array, [width] + [(0, 0)] * (array.ndim - 1), constant_values=value)

    return jnp.stack([pad(array) for array in arrays], axis=0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: jax.Array, lengths: Any, batch_first: bool = False
) -> list[jax.Array]:
    """Take a padded batch apart into its sequences.

    Args:
        padded_sequences: ``(T, B, *)``, or ``(B, T, *)`` with ``batch_first``, padded on the right.
        lengths: ``B`` concrete integers.
        batch_first: whether the batch comes first.

    Returns:
        ``B`` arrays ``(length, *)``.

    Raises:
        ArgumentError: lengths that are traced or negative.
        ShapeError: there are not ``B`` lengths up to ``T``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import unpad_sequence
        >>> [x.shape for x in unpad_sequence(jnp.ones((25, 2, 300)), [25, 22])]
        [(25, 300), (22, 300)]

    References:
        torch.nn.utils.rnn.unpad_sequence
    """
    padded, lengths = jnp.asarray(padded_sequences), _host_integers("lengths", lengths)
    padded = padded if batch_first else jnp.swapaxes(padded, 0, 1)
    if lengths.shape != padded.shape[:1] or (lengths > padded.shape[1]).any():
        raise ShapeError(
            f"expected {padded.shape[0]} lengths up to {padded.shape[1]}, but got {lengths.tolist()}"
        )
    if (lengths < 0).any():
        raise ArgumentError(f"lengths must not be negative, but got {lengths.tolist()}")
    return [sequence[:length] for sequence, length in zip(padded, lengths, strict=True)]


def pack_sequence(sequences: Sequence[jax.Array], enforce_sorted: bool = True) -> PackedSequence:
    """Pack a list of sequences.

    Args:
        sequences: ``(L, *)`` each, alike in ``*`` and in dtype.
        enforce_sorted: see :func:`pack_padded_sequence`.

    Returns:
        A PackedSequence.

    Raises:
        ArgumentError: no sequences, an empty one, or lengths that increase while ``enforce_sorted``.
        ShapeError: sequences that differ in ``*``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import pack_sequence
        >>> pack_sequence([jnp.ones((3, 8)), jnp.ones((2, 8))]).data.shape
        (5, 8)

    References:
        torch.nn.utils.rnn.pack_sequence
    """
    padded = pad_sequence(sequences)
    lengths = [len(sequence) for sequence in sequences]
    return pack_padded_sequence(padded, lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[jax.Array]:
    """Take a packed batch apart into its sequences, in their original order.

    Args:
        packed_sequences: a packed batch, with concrete indices.

    Returns:
        A list of arrays ``(length, *)``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.nn.utils.rnn import pack_sequence, unpack_sequence
        >>> packed = pack_sequence([jnp.array([1, 2, 3]), jnp.array([4, 5])])
        >>> [x.tolist() for x in unpack_sequence(packed)]
        [[1, 2, 3], [4, 5]]

    References:
        torch.nn.utils.rnn.unpack_sequence
    """
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)


# --- what the recurrent layers use, too -----------------------------------------------------------


def unpack_sorted(
    sequence: PackedSequence, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[jax.Array, np.ndarray]:
    """``(T, B, *)`` and the lengths, longest sequence first."""
    steps = longest = len(sequence.batch_sizes)
    if total_length is not None:
        if total_length < longest:
            raise ArgumentError(
                f"total_length must be at least {longest}, the length of the longest sequence, "
                f"but got {total_length}"
            )
        steps = total_length
    data, batch = jnp.asarray(sequence.data), int(sequence.batch_sizes[0])
    if data.shape[:1] != (sequence.batch_sizes.sum(),):
        raise ShapeError(
            f"expected packed data with {sequence.batch_sizes.sum()} elements along axis 0, the sum "
            f"of batch_sizes, but got {describe(data)}"
        )
    fill = jnp.asarray(padding_value).astype(data.dtype)
    padded = jnp.full((steps, batch, *data.shape[1:]), fill)
    lengths = (sequence.batch_sizes[:, None] > np.arange(batch)).sum(0)
    return padded.at[_positions(sequence.batch_sizes)].set(data), lengths


def pack_sorted(padded: jax.Array, like: PackedSequence) -> PackedSequence:
    """The inverse of :func:`unpack_sorted`, with the order and the lengths of ``like``."""
    data = padded[_positions(like.batch_sizes)]
    return PackedSequence(data, like.batch_sizes, like.sorted_indices, like.unsorted_indices)


def batch_sizes_of(lengths: np.ndarray) -> np.ndarray:
    """How many of these lengths have a first step, a second step, and so on."""
    return (lengths > np.arange(lengths.max())[:, None]).sum(1)


def _positions(batch_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The time and the row of every packed element."""
    row = np.concatenate([np.arange(size) for size in batch_sizes])
    return np.repeat(np.arange(len(batch_sizes)), batch_sizes), row


def _host_integers(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        raise ArgumentError(
            f"{name} must be concrete, because shapes depend on them, but got a traced array; pass a "
            "list or a NumPy array, or keep the batch padded and use the mask of functional.lstm"
        ) from None
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise ArgumentError(f"{name} must be integers, but got {describe(value)}")
    return array.astype(np.int64)
