"""Grouped products: against PyTorch, groups that are empty or cut short, refusals.

Not in the shared table, which gives PyTorch int64, while its offsets must be int32.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import functional as F
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError

rng = np.random.default_rng(0)
TOKENS = jnp.asarray(rng.standard_normal((6, 4)), jnp.float32)
EXPERTS = jnp.asarray(rng.standard_normal((3, 4, 8)), jnp.float32)


def ends(*values):
    return jnp.array(values, jnp.int32)


@pytest.mark.parametrize(
    ("a", "b", "offs"),
    [
        ((6, 4), (3, 4, 8), (1, 4, 6)),
        ((6, 4), (3, 4, 8), (0, 2, 6)),
        ((4, 8), (8, 4), (2, 2, 8)),
        ((3, 4, 4), (4, 8), (1, 4, 8)),
        ((3, 4, 4), (3, 4, 8), None),
    ],
    ids=["rows", "empty-group", "inner", "columns", "batched"],
)
def test_values_gradients_and_vmap(a, b, offs):
    a, b = (rng.standard_normal(s).astype(np.float32) for s in (a, b))
    offs = None if offs is None else np.array(offs, np.int32)
    product = functools.partial(F.grouped_mm, offs=None if offs is None else jnp.asarray(offs))
    ta, tb = (torch.tensor(x) for x in (a, b))
    out = torch.nn.functional.grouped_mm(
        ta, tb, offs=None if offs is None else torch.tensor(offs)
    ).numpy()
    ours, back = jax.vjp(jax.jit(product), jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(ours, out, rtol=1e-5, atol=1e-5)
    # The product is linear in either operand, so its derivative along an operand is itself.
    grad_a, grad_b = back(ours)
    np.testing.assert_allclose((grad_a * a).sum(), (out**2).sum(), rtol=1e-4)
    np.testing.assert_allclose((grad_b * b).sum(), (out**2).sum(), rtol=1e-4)
    two = jax.vmap(product, in_axes=(0, None))(jnp.stack([a, 2 * a]), jnp.asarray(b))
    np.testing.assert_allclose(two, np.stack([out, 2 * out]), rtol=1e-5, atol=1e-5)


def test_rows_behind_the_last_group_are_zero_and_cannot_spoil_anything():
    tokens = TOKENS.at[4:].set(jnp.nan)
    out = F.grouped_mm(tokens, EXPERTS, offs=ends(1, 1, 4))
    np.testing.assert_allclose(out[:1], TOKENS[:1] @ EXPERTS[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[1:4], TOKENS[1:4] @ EXPERTS[2], rtol=1e-5, atol=1e-6)
    assert not out[4:].any()
    grad = jax.grad(lambda w: F.grouped_mm(tokens, w, offs=ends(1, 1, 4)).sum())(EXPERTS)
    assert jnp.isfinite(grad).all()
    assert not grad[1].any()


def test_offsets_may_be_traced():
    product = jax.jit(lambda offs: F.grouped_mm(TOKENS, EXPERTS, offs=offs))
    for offs in (ends(2, 4, 6), ends(0, 0, 6)):
        np.testing.assert_allclose(
            product(offs), F.grouped_mm(TOKENS, EXPERTS, offs=offs), rtol=1e-6, atol=1e-6
        )


def test_out_dtype():
    low = TOKENS.astype(jnp.bfloat16), EXPERTS.astype(jnp.bfloat16)
    assert F.grouped_mm(*low, offs=ends(1, 4, 6)).dtype == jnp.bfloat16
    out = F.grouped_mm(*low, offs=ends(1, 4, 6), out_dtype=jnp.float32)
    exact = F.grouped_mm(*(x.astype(jnp.float32) for x in low), offs=ends(1, 4, 6))
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "match"),
    [
        (TOKENS, EXPERTS, {}, ArgumentError, "offs must be given"),
        (EXPERTS, EXPERTS.mT, {"offs": ends(1, 2, 3)}, ArgumentError, "offs must be None"),
        (TOKENS, EXPERTS, {"offs": ends(1, 6)}, ShapeError, "number of groups"),
        (EXPERTS[:2], EXPERTS.mT, {}, ShapeError, "number of groups"),
        (TOKENS, EXPERTS, {"offs": ends(1, 4, 6)[None]}, ShapeError, "offs"),
        (TOKENS, EXPERTS, {"offs": jnp.ones(3)}, DTypeError, "offs"),
        (TOKENS[:, :3], EXPERTS, {"offs": ends(1, 4, 6)}, ShapeError, "columns of mat_a"),
        (TOKENS[0], EXPERTS, {"offs": ends(1, 4, 6)}, ShapeError, "mat_a"),
        (TOKENS, EXPERTS[None], {"offs": ends(1, 4, 6)}, ShapeError, "mat_b"),
        (TOKENS.astype(jnp.bfloat16), EXPERTS, {"offs": ends(1, 4, 6)}, DTypeError, "one dtype"),
        (TOKENS.astype(int), EXPERTS, {"offs": ends(1, 4, 6)}, DTypeError, "mat_a"),
        (TOKENS, EXPERTS, {"offs": ends(1, 4, 6), "bias": TOKENS}, UnsupportedError, "bias"),
    ],
)
def test_refuses(a, b, options, error, match):
    with pytest.raises(error, match=match):
        F.grouped_mm(a, b, **options)
