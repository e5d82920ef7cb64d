"""Packed and padded sequences, and recurrent layers on packed ones, against PyTorch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.utils import rnn as theirs

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.nn.utils import rnn as ours

X = np.random.default_rng(0).standard_normal((5, 4, 3)).astype(np.float32)
SEQUENCES = [np.arange(6.0).reshape(3, 2), np.ones((2, 2)), np.arange(8.0).reshape(4, 2)]
SEQUENCES = [s.astype(np.float32) for s in SEQUENCES]


def both(values):
    return [jnp.asarray(v) for v in values], [torch.tensor(v) for v in values]


def same(a, b):
    assert (a is None) == (b is None)
    if a is not None:
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(np.asarray(a), b.detach().numpy(), rtol=1e-5, atol=1e-5)


def same_packed(a, b):
    assert a._fields == b._fields
    for x, y in zip(a, b, strict=True):
        same(x, y)


# --- packing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("lengths", "enforce_sorted"),
    [([5, 3, 3, 1], True), ([4, 2, 2, 2], True), ([2, 5, 1, 2], False), ([5, 4, 3, 2], False)],
)
def test_packing_and_padding(lengths, enforce_sorted, batch_first):
    x = X.swapaxes(0, 1).copy() if batch_first else X
    a = ours.pack_padded_sequence(jnp.asarray(x), lengths, batch_first, enforce_sorted)
    b = theirs.pack_padded_sequence(torch.tensor(x), lengths, batch_first, enforce_sorted)
    same_packed(a, b)
    for options in ({}, {"batch_first": True}, {"padding_value": -1.0, "total_length": 7}):
        for got, expected in zip(
            ours.pad_packed_sequence(a, **options), theirs.pad_packed_sequence(b, **options)
        ):
            same(got, expected)


def test_integers_and_lengths_as_arrays():
    x = np.arange(12, dtype=np.int32).reshape(4, 3)
    for lengths in (np.array([4, 2, 1]), jnp.array([4, 2, 1])):
        packed = ours.pack_padded_sequence(jnp.asarray(x), lengths)
        assert packed.data.tolist() == [0, 1, 2, 3, 4, 6, 9]
        padded, _ = ours.pad_packed_sequence(packed, padding_value=1.5)
        assert padded.tolist() == [[0, 1, 2], [3, 4, 1], [6, 1, 1], [9, 1, 1]]


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"padding_side": "left"}])
def test_pad_sequence(options):
    a, b = both(SEQUENCES)
    padded = ours.pad_sequence(a, padding_value=2.0, **options)
    same(padded, theirs.pad_sequence(b, padding_value=2.0, **options))
    if "padding_side" not in options:
        for got, sequence in zip(ours.unpad_sequence(padded, [3, 2, 4], **options), a):
            np.testing.assert_array_equal(got, sequence)


def test_pad_sequence_takes_an_array_and_a_generator():
    assert ours.pad_sequence(jnp.ones((3, 4))).shape == (4, 3)
    assert ours.pad_sequence(jnp.ones(n) for n in (2, 3)).shape == (3, 2)


def test_pack_sequence():
    a, b = both(SEQUENCES)
    packed = ours.pack_sequence(a, enforce_sorted=False)
    same_packed(packed, theirs.pack_sequence(b, enforce_sorted=False))
    for got, sequence in zip(ours.unpack_sequence(packed), a, strict=True):
        np.testing.assert_array_equal(got, sequence)


def test_invert_permutation():
    assert ours.invert_permutation(None) is None
    permutation = [2, 0, 3, 1]
    same(
        ours.invert_permutation(jnp.array(permutation)),
        theirs.invert_permutation(torch.tensor(permutation)),
    )


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: ours.pack_padded_sequence(X, [2, 5, 1, 2]), ArgumentError, "must not increase"),
        (lambda: ours.pack_padded_sequence(X, [5, 3, 2, 0]), ArgumentError, "positive"),
        (lambda: ours.pack_padded_sequence(X, [5, 3, 2, -1]), ArgumentError, "positive"),
        (lambda: ours.pack_padded_sequence(X, [6, 3, 2, 1]), ShapeError, "at most T=5"),
        (lambda: ours.pack_padded_sequence(X, [5, 3]), ShapeError, "one length for each of 4"),
        (lambda: ours.pack_padded_sequence(X, np.ones((4, 1), int)), ShapeError, "lengths"),
        (lambda: ours.pack_padded_sequence(X, [2.5, 1, 1, 1]), ArgumentError, "lengths"),
        (lambda: ours.pack_padded_sequence(X[:, :0], []), ShapeError, "at least one"),
        (lambda: ours.pack_padded_sequence(X[0, 0], [1]), ShapeError, "at least 2D"),
        (lambda: ours.pad_sequence([]), ArgumentError, "empty"),
        (lambda: ours.pad_sequence(3), ArgumentError, "sequences"),
        (lambda: ours.pad_sequence(SEQUENCES, padding_side="mid"), ArgumentError, "padding_side"),
        (lambda: ours.pad_sequence([X[:, 0], X[:, 0, :2]]), ShapeError, "sequences"),
        (lambda: ours.pad_sequence([X[0], X[0].astype(int)]), DTypeError, "one dtype"),
        (lambda: ours.unpad_sequence(X, [3, 2, 4]), ShapeError, "4 lengths"),
        (lambda: ours.unpad_sequence(X, [6, 2, 4, 1]), ShapeError, "up to 5"),
        (lambda: ours.unpad_sequence(X, [5, 2, 4, -1]), ArgumentError, "negative"),
        (lambda: ours.PackedSequence(X), ArgumentError, "batch_sizes"),
        (lambda: ours.PackedSequence(X, [1, 2]), ArgumentError, "never increase"),
        (lambda: ours.PackedSequence(X, []), ArgumentError, "batch_sizes"),
    ],
)
def test_what_cannot_be_packed(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_total_length_below_the_longest_sequence():
    with pytest.raises(ArgumentError, match="total_length"):
        ours.pad_packed_sequence(ours.pack_padded_sequence(X, [5, 3, 3, 1]), total_length=4)


def test_traced_lengths_are_refused_with_the_remedy():
    with pytest.raises(ArgumentError, match="lengths must be concrete"):
        jax.jit(lambda n: ours.pack_padded_sequence(X, n).data)(jnp.array([5, 3, 3, 1]))


# --- the pytree -----------------------------------------------------------------------------------


def test_a_packed_sequence_passes_through_jit_and_grad():
    packed = ours.pack_padded_sequence(X, [2, 5, 1, 2], enforce_sorted=False)
    twice = jax.jit(lambda p: jax.tree.map(lambda x: 2 * x, p._replace(sorted_indices=None)))
    assert isinstance(twice(packed), ours.PackedSequence)
    np.testing.assert_allclose(twice(packed).data, 2 * packed.data)
    data, *rest = packed
    gradient = jax.grad(lambda d: ours.pad_packed_sequence(ours.PackedSequence(d, *rest))[0].sum())
    np.testing.assert_array_equal(gradient(data), np.ones((10, 3)))
    assert jax.tree.structure(packed) != jax.tree.structure(ours.pack_padded_sequence(X, [5] * 4))


def test_conversions():
    packed = ours.PackedSequence((jnp.ones(3), jnp.array([2, 1])))
    assert packed.half().data.dtype == jnp.float16
    assert packed.int().data.dtype == jnp.int32
    assert packed.half().float().data.dtype == jnp.float32
    device = jax.devices()[1]
    moved = packed.to(device, dtype=jnp.bfloat16)
    assert moved.data.devices() == {device}
    assert moved.data.dtype == jnp.bfloat16
    assert isinstance(moved.batch_sizes, np.ndarray)


# --- recurrent layers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RNN", {"nonlinearity": "relu"}),
        ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
        ("GRU", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ],
)
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [2, 5, 1, 3]])
def test_recurrent_layers_run_packed_sequences(name, options, lengths):
    theirs_layer = getattr(torch.nn, name)(3, 4, **options)
    layer = getattr(nn, name)(3, 4, **options)
    weights = {k: v.numpy().copy() for k, v in theirs_layer.state_dict().items()}
    layer.load_state_dict(weights)
    ordered = lengths == sorted(lengths, reverse=True)
    a = ours.pack_padded_sequence(jnp.asarray(X), lengths, enforce_sorted=ordered)
    b = theirs.pack_padded_sequence(torch.tensor(X), lengths, enforce_sorted=ordered)
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    sizes = (2, 4) if name == "LSTM" else (4,)
    states = [np.cos(np.arange(count * 4 * n)).reshape(count, 4, n) for n in sizes]
    states = [s.astype(np.float32) for s in states]
    hx = jax.tree.map(jnp.asarray, tuple(states) if name == "LSTM" else states[0])
    tx = tuple(map(torch.tensor, states)) if name == "LSTM" else torch.tensor(states[0])
    for ours_hx, theirs_hx in ((None, None), (hx, tx)):
        output, state = layer(a, ours_hx)
        expected, expected_state = theirs_layer(b, theirs_hx)
        same_packed(output, expected)
        for x, y in zip(
            jax.tree.leaves(state),
            expected_state if name == "LSTM" else (expected_state,),
            strict=True,
        ):
            same(x, y)

    _, apply = fn.functionalize(layer)
    params, rest = fn.get_variables(layer)
    loss = lambda params, x: (apply(params, rest, x)[0][0].data ** 2).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(loss))(params, a)
    (theirs_layer(b)[0].data ** 2).sum().backward()
    for key, parameter in theirs_layer.named_parameters():
        np.testing.assert_allclose(gradients[key], parameter.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_packed_inputs_that_do_not_fit():
    layer = nn.GRU(3, 4)
    packed = ours.pack_padded_sequence(X, [5, 3, 3, 1])
    with pytest.raises(ShapeError, match="packed data"):
        layer(ours.PackedSequence(packed.data[:, 0], packed.batch_sizes))
    with pytest.raises(ShapeError, match="input_size=3"):
        layer(ours.PackedSequence(packed.data[:, :2], packed.batch_sizes))
    with pytest.raises(ShapeError, match="sum of batch_sizes"):
        layer(ours.PackedSequence(packed.data[:-1], packed.batch_sizes))
    with pytest.raises(ShapeError, match="hx"):
        layer(packed, jnp.zeros((1, 2, 4)))
