"""MultiheadAttention beyond the shared table: distributions, self-attention, refusals, dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, ModeError, RngError, ShapeError

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def twins(*args, **kwargs):
    """Our layer and PyTorch's with the same values."""
    theirs = torch.nn.MultiheadAttention(*args, **kwargs)
    ours = nn.MultiheadAttention(*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_self_attention(batch_first, need_weights):
    ours, theirs = twins(8, 2, batch_first=batch_first)
    x = normal(4, 3, 8)
    tx = torch.tensor(x)
    jx = jnp.asarray(x)
    expected, weights = theirs(tx, tx, tx, need_weights=need_weights)
    out, got = ours(jx, jx, jx, need_weights=need_weights)
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-5, atol=1e-5)
    if need_weights:
        np.testing.assert_allclose(got, weights.detach(), rtol=1e-5, atol=1e-5)
    else:
        assert got is None


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_sequence_of_padding_gives_what_torch_gives(need_weights):
    ours, theirs = twins(8, 2)
    x, padding = normal(4, 2, 8), np.array([[True] * 4, [False, False, True, True]])
    tx, jx = torch.tensor(x), jnp.asarray(x)
    options = {"need_weights": need_weights}
    expected, _ = theirs(tx, tx, tx, key_padding_mask=torch.tensor(padding), **options)
    out, _ = ours(jx, jx, jx, key_padding_mask=jnp.asarray(padding), **options)
    assert bool(jnp.isnan(out).any()) == need_weights
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{}, {"add_bias_kv": True}, {"kdim": 24, "vdim": 48}, {"bias": False}],
    ids=["packed", "bias_kv", "separate", "no-bias"],
)
def test_initial_distributions(options):
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(96, 2, **options)
    ours = nn.MultiheadAttention(96, 2, **options)
    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    for name, value in ours.state_dict().items():
        other = expected[name].numpy()
        value = np.asarray(value)
        assert value.shape == other.shape
        if not other.any():
            assert not value.any(), name
            continue
        # Xavier-normal for bias_k and bias_v, which have no bound; uniform for everything else.
        few = value.size < 1000
        np.testing.assert_allclose(value.std(), other.std(), rtol=0.4 if few else 0.05)
        if not few:
            np.testing.assert_allclose(np.abs(value).max(), np.abs(other).max(), rtol=0.01)


def test_in_proj_weight_is_drawn_as_one_matrix():
    weight = np.asarray(nn.MultiheadAttention(64, 2).in_proj_weight.data)
    bound = (6 / (64 + 3 * 64)) ** 0.5
    assert 0.98 * bound < np.abs(weight).max() <= bound


def test_unused_parameters_are_none():
    packed, separate = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=4)
    assert packed.q_proj_weight is None
    assert packed.bias_k is None
    assert packed.bias_v is None
    assert separate.in_proj_weight is None
    assert separate.k_proj_weight.shape == (8, 4)
    assert (separate.kdim, separate.vdim, separate.head_dim) == (4, 8, 4)


@pytest.mark.parametrize(
    ("args", "options", "match"),
    [
        ((0, 1), {}, "embed_dim must be positive"),
        ((4.0, 1), {}, "embed_dim must be an integer"),
        ((4, 0), {}, "num_heads must be positive"),
        ((4, 3), {}, "embed_dim=4 must be divisible by num_heads=3"),
        ((4, 2), {"kdim": -1}, "kdim"),
        ((4, 2), {"vdim": -1}, "vdim"),
        ((4, 2), {"dropout": 1.5}, "dropout must be a number between 0 and 1"),
        ((4, 2), {"dropout": "half"}, "dropout must be a number between 0 and 1"),
    ],
)
def test_refuses_options(args, options, match):
    with pytest.raises(ArgumentError, match=match):
        nn.MultiheadAttention(*args, **options)


@pytest.mark.parametrize("batch_first", [False, True])
def test_refuses_inputs(batch_first):
    layer = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    x = jnp.ones((4, 4, 8))
    with pytest.raises(ShapeError, match="query"):
        layer(x[None], x, x)
    with pytest.raises(ShapeError, match="key"):
        layer(x, x[0], x[0])
    with pytest.raises(ShapeError, match="key"):
        layer(x, x[0, 0], x[0, 0])
    with pytest.raises(ShapeError, match="batch size"):
        layer(x, *[x[:, :2] if not batch_first else x[:2]] * 2)
    with pytest.raises(ArgumentError, match="is_causal=True is a promise about attn_mask"):
        layer(x, x, x, is_causal=True)


def test_dropout_needs_a_mode_and_a_key_only_if_there_is_any():
    x = jnp.ones((4, 2, 8))
    init, apply = fn.functionalize(nn.MultiheadAttention(8, 2))
    variables = init(jax.random.key(0))
    apply(*variables, x, x, x)
    init, apply = fn.functionalize(nn.MultiheadAttention(8, 2, dropout=0.5))
    with pytest.raises(ModeError, match="training"):
        apply(*variables, x, x, x)
    with pytest.raises(RngError, match="rng"):
        apply(*variables, x, x, x, training=True)
    apply(*variables, x, x, x, training=False)
    (_, weights), _ = apply(
        *variables, x, x, x, average_attn_weights=False, training=True, rng=jax.random.key(1)
    )
    assert set(np.unique(weights)) == {0.0, 0.5}  # 1/4 of the weight on each of 4 keys, doubled


def test_the_promise_of_causality_is_trusted_where_torch_trusts_it():
    ours, theirs = twins(8, 2)
    x = normal(4, 2, 8)
    tx, jx = torch.tensor(x), jnp.asarray(x)
    for need_weights in (True, False):
        options = {"need_weights": need_weights, "is_causal": True}
        expected, _ = theirs(tx, tx, tx, attn_mask=torch.zeros(4, 4), **options)
        out, _ = ours(jx, jx, jx, attn_mask=jnp.zeros((4, 4)), **options)
        np.testing.assert_allclose(out, expected.detach(), rtol=1e-5, atol=1e-5)


def test_prints_as_torch():
    ours, theirs = twins(8, 2, bias=False, add_bias_kv=True)
    assert repr(ours) == repr(theirs)
