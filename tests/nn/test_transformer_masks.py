"""Masks of Transformers: made once and kept, in a buffer, recognised as causal, traced."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from tests.nn.test_transformer import normal, stack, subsequent


class Spy(nn.Module):
    """A layer that only remembers what it was told."""

    def __init__(self, batch_first=False):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.seen = []

    def forward(self, x, *others, **told):
        self.seen.append(told.get("is_causal", told.get("tgt_is_causal")))
        return x


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
def test_subsequent_mask_equals_torchs(dtype):
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4, dtype=getattr(torch, dtype))
    ours = subsequent(4, dtype=jnp.dtype(dtype))
    assert ours.dtype == dtype
    np.testing.assert_array_equal(np.asarray(ours, np.float32), theirs.float().numpy())
    assert subsequent(0).shape == (0, 0)
    assert subsequent(3).dtype == jnp.float32


class KeepsItsMask(nn.Module):
    """Makes a mask when it first needs one, as many PyTorch models do."""

    def __init__(self):
        super().__init__()
        self.encoder = stack(nn, "Encoder", batch_first=True)
        self.kept = {}

    def forward(self, x):
        length = x.shape[1]
        if length not in self.kept:
            self.kept[length] = subsequent(length)
        return self.encoder(x, self.kept[length])


def test_a_mask_kept_from_a_traced_call_is_no_tracer():
    model = KeepsItsMask()
    x = jnp.asarray(normal(2, 4, 8))
    first = fn.jit(lambda x: model(x))(x)
    assert not isinstance(model.kept[4], jax.core.Tracer)
    np.testing.assert_allclose(model(x), first, rtol=1e-5, atol=1e-5)
    jax.vmap(lambda x: subsequent(3) + x)(jnp.ones((2, 3, 3)))
    _, apply = fn.functionalize(model)
    out, _ = jax.jit(apply)(*fn.get_variables(model), x[:, :3])
    np.testing.assert_allclose(out, first[:, :3], rtol=1e-4, atol=1e-5)


class MaskInABuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = stack(nn, "Decoder", 1)
        self.register_buffer("mask", subsequent(6), persistent=False)

    def forward(self, tgt, memory):
        length = tgt.shape[0]
        return self.decoder(tgt, memory, tgt_mask=self.mask[:length, :length])


def test_a_mask_in_a_buffer():
    model = MaskInABuffer()
    assert "mask" not in model.state_dict()
    tgt, memory = jnp.asarray(normal(4, 2, 8)), jnp.asarray(normal(5, 2, 8))
    expected = model.decoder(tgt, memory, tgt_mask=subsequent(4))
    np.testing.assert_allclose(model(tgt, memory), expected, rtol=1e-5, atol=1e-6)
    compiled = fn.jit(lambda a, b: model(a, b))(tgt, memory)
    np.testing.assert_allclose(compiled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mask", "told", "expected"),
    [
        (None, None, False),
        (subsequent(4), None, True),
        (subsequent(4, dtype=bool), None, True),
        (subsequent(4, dtype=jnp.bfloat16), None, True),
        (np.asarray(subsequent(4)), None, True),
        (subsequent(4).T, None, False),
        (jnp.zeros((4, 4)), None, False),
        (subsequent(5), None, False),
        (jnp.broadcast_to(subsequent(4), (4, 4, 4)), None, False),
        (subsequent(4), False, False),
        (jnp.zeros((4, 4)), True, True),
        (None, True, True),
    ],
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_causal_masks_are_recognised(mask, told, expected, batch_first):
    x = jnp.ones((2, 4, 8) if batch_first else (4, 2, 8))
    encoder = nn.TransformerEncoder(Spy(batch_first), 1, enable_nested_tensor=False)
    encoder(x, mask, is_causal=told)
    decoder = nn.TransformerDecoder(Spy(batch_first), 1)
    decoder(x, x, mask, tgt_is_causal=told)
    assert encoder.layers[0].seen == decoder.layers[0].seen == [expected]


def test_a_traced_mask_counts_as_any_other_and_changes_no_number():
    encoder = stack(nn, "Encoder")
    x, mask = jnp.asarray(normal(4, 2, 8)), subsequent(4)
    known = encoder(x, mask)
    traced = jax.jit(lambda m: encoder(x, m))(mask)
    np.testing.assert_allclose(traced, known, rtol=1e-4, atol=1e-5)
    spy = nn.TransformerEncoder(Spy(), 1, enable_nested_tensor=False)
    jax.make_jaxpr(lambda m: spy(x, m))(mask)
    assert spy.layers[0].seen == [False]
