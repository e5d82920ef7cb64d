"""What the shared table cannot say about attention functions: refusals, empty rows, dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import functional as F
from funcnets.errors import ArgumentError, DTypeError, RngError, ShapeError

TF = torch.nn.functional
rng = np.random.default_rng(0)


def normal(*shape, dtype=jnp.float32):
    return jnp.asarray(rng.standard_normal(shape), dtype)


Q, K, V = normal(2, 2, 4, 3), normal(2, 2, 6, 3), normal(2, 2, 6, 5)


@pytest.mark.parametrize(
    ("inputs", "options", "error", "match"),
    [
        ((Q[0, 0, 0], K, V), {}, ShapeError, "query must be at least 2D"),
        ((Q, K[..., :2], V), {}, ShapeError, "query and key .* features"),
        ((Q, K, V[:, :, :5]), {}, ShapeError, "key and value .* length"),
        ((Q, normal(2, 3, 6, 3), V), {}, ShapeError, "enable_gqa=True"),
        ((Q, K.astype(jnp.bfloat16), V), {}, DTypeError, "one dtype"),
        ((Q.astype(int), K, V), {}, DTypeError, "query must be"),
        ((Q.astype(complex), K, V), {}, DTypeError, "query must be a real"),
        ((Q, K, V), {"attn_mask": jnp.zeros((4, 6), int)}, DTypeError, "attn_mask"),
        ((Q, K, V), {"attn_mask": jnp.zeros((4, 6), jnp.bfloat16)}, DTypeError, "attn_mask"),
        ((Q, K, V), {"attn_mask": [[True]]}, DTypeError, "attn_mask"),
        ((Q, K, V), {"attn_mask": jnp.zeros(6)}, ShapeError, "attn_mask must be at least 2D"),
        ((Q, K, V), {"attn_mask": jnp.zeros((5, 6))}, ShapeError, "attn_mask"),
        ((Q, K, V), {"attn_mask": jnp.zeros((1, 2, 2, 4, 6))}, ShapeError, "attn_mask"),
        ((Q[:1], K[:1], V[:1]), {"attn_mask": jnp.zeros((2, 1, 4, 6))}, ShapeError, "attn_mask"),
        (
            (Q, K, V),
            {"attn_mask": jnp.zeros((4, 6)), "is_causal": True},
            ArgumentError,
            "is_causal",
        ),
        (
            (Q, K, V),
            {"dropout_p": 1.5},
            ArgumentError,
            "dropout_p must be a number between 0 and 1",
        ),
        (
            (Q, K, V),
            {"dropout_p": -0.5},
            ArgumentError,
            "dropout_p must be a number between 0 and 1",
        ),
        ((Q, K, V), {"dropout_p": 0.5}, RngError, "rng"),
        ((normal(2, 3, 4, 3), K, V), {"enable_gqa": True}, ShapeError, "enable_gqa=True"),
        ((Q[:, :1], K, V), {"enable_gqa": True}, ShapeError, "multiple"),
        ((Q[0, 0], K[0, 0], V[0, 0]), {"enable_gqa": True}, ShapeError, "heads axis"),
    ],
)
def test_dot_product_refuses(inputs, options, error, match):
    with pytest.raises(error, match=match):
        F.scaled_dot_product_attention(*inputs, **options)


def test_scale_is_keyword_only():
    with pytest.raises(TypeError):
        F.scaled_dot_product_attention(Q, K, V, None, 0.0, False, 0.3)


def test_a_query_without_keys_gives_zero_and_no_nan_in_derivatives():
    mask = jnp.ones((4, 6), bool).at[1].set(False)

    def loss(q, k, v):
        return (F.scaled_dot_product_attention(q, k, v, mask) ** 2).sum()

    assert not F.scaled_dot_product_attention(Q, K, V, mask)[:, :, 1].any()
    for g in jax.grad(loss, (0, 1, 2))(Q, K, V):
        assert jnp.isfinite(g).all()
    assert jnp.isfinite(jax.hessian(loss)(Q, K, V)).all()


def test_nan_is_not_taken_for_an_empty_row():
    out = F.scaled_dot_product_attention(Q.at[0, 0, 0].set(jnp.nan), K, V)
    assert jnp.isnan(out[0, 0, 0]).all()


def test_a_float32_mask_on_half_precision():
    bias = normal(4, 6)
    low = [x.astype(jnp.bfloat16) for x in (Q, K, V)]
    out = F.scaled_dot_product_attention(*low, bias)
    assert out.dtype == jnp.bfloat16
    exact = F.scaled_dot_product_attention(*(x.astype(jnp.float32) for x in low), bias)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.03)


def test_dropout_keeps_the_mean_and_drops_weights():
    value = jnp.eye(6)[None, None]  # the output is the weights
    keys = jax.random.split(jax.random.key(0), 2000)

    def weights(key):
        q, k = jnp.zeros((1, 1, 2, 3)), jnp.zeros((1, 1, 6, 3))
        return F.scaled_dot_product_attention(q, k, value, dropout_p=0.25, rng=key)

    drawn = jax.vmap(weights)(keys)
    np.testing.assert_allclose((drawn == 0).mean(), 0.25, atol=0.01)
    np.testing.assert_allclose(drawn.mean(), 1 / 6, atol=0.002)
    np.testing.assert_allclose(drawn.max(), 1 / 6 / 0.75, rtol=1e-6)
    everything = F.scaled_dot_product_attention(Q, K, V, dropout_p=1.0)
    assert not everything.any()


# --- multi_head_attention_forward --------------------------------------------------------------

E, H = 8, 2
X, Y = normal(4, 2, E), normal(6, 2, E)
W, B, WO = normal(3 * E, E), normal(3 * E), normal(E, E)


def options(**changed):
    args = {
        "embed_dim_to_check": E,
        "num_heads": H,
        "in_proj_weight": W,
        "in_proj_bias": B,
        "bias_k": None,
        "bias_v": None,
        "add_zero_attn": False,
        "dropout_p": 0.0,
        "out_proj_weight": WO,
        "out_proj_bias": None,
    }
    return {**args, **changed}


def to_torch(x):
    return torch.tensor(np.asarray(x)) if isinstance(x, (jax.Array, np.ndarray)) else x


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("extra", [{}, {"add_zero_attn": True}])
def test_static_key_and_value(need_weights, extra):
    static = {"static_k": normal(2 * H, 6, E // H), "static_v": normal(2 * H, 6, E // H)}
    masks = {"key_padding_mask": jnp.arange(6)[None] > jnp.array([[4], [2]])}
    given = options(**static, **masks, **extra, need_weights=need_weights)
    out, weights = F.multi_head_attention_forward(X, Y, Y, **given)
    expected = TF.multi_head_attention_forward(
        *map(to_torch, (X, Y, Y)), **{k: to_torch(v) for k, v in given.items()}
    )
    np.testing.assert_allclose(out, expected[0].numpy(), rtol=1e-4, atol=1e-5)
    if need_weights:
        np.testing.assert_allclose(weights, expected[1].numpy(), rtol=1e-4, atol=1e-6)
    else:
        assert weights is None
        assert expected[1] is None


def test_one_array_is_projected_once():
    def products(inputs):
        run = jax.make_jaxpr(lambda a: F.multi_head_attention_forward(*inputs(a), **options()))
        return str(run(X)).count("dot_general")

    apart = products(lambda a: (a, a + 0, a + 1))
    assert products(lambda a: (a, *[a + 0] * 2)) == apart - 1
    assert products(lambda a: (a, a, a)) == apart - 2


@pytest.mark.parametrize(
    ("inputs", "changed", "error", "match"),
    [
        ((X[None], Y, Y), {}, ShapeError, "query"),
        ((X, Y[:, 0], Y[:, 0]), {}, ShapeError, "key"),
        ((X, Y, Y[:5]), {}, ShapeError, "key and value"),
        ((X, Y[:, :1], Y[:, :1]), {}, ShapeError, "batch size"),
        ((X[..., :6], Y, Y), {}, ShapeError, "embed_dim=8"),
        ((X, Y[..., :6], Y[..., :6]), {}, ShapeError, "key and value must have 8 features"),
        ((X.astype(int), Y, Y), {}, DTypeError, "query"),
        ((X, Y, Y), {"num_heads": 3}, ShapeError, "num_heads=3"),
        ((X, Y, Y), {"num_heads": 0}, ArgumentError, "num_heads"),
        ((X, Y, Y), {"in_proj_weight": None}, ArgumentError, "in_proj_weight"),
        ((X, Y, Y), {"in_proj_weight": WO}, ShapeError, "in_proj_weight"),
        ((X, Y, Y), {"in_proj_bias": B[1:]}, ShapeError, "in_proj_bias"),
        ((X, Y, Y), {"use_separate_proj_weight": True}, ArgumentError, "q_proj_weight"),
        (
            (X, Y, Y),
            {
                "use_separate_proj_weight": True,
                "q_proj_weight": WO,
                "k_proj_weight": WO[:, :5],
                "v_proj_weight": WO,
            },
            ShapeError,
            "k_proj_weight",
        ),
        ((X, Y, Y), {"bias_k": normal(1, 1, E)}, ArgumentError, "bias_k and bias_v"),
        (
            (X, Y, Y),
            {
                "bias_k": normal(1, 1, E),
                "bias_v": normal(1, 1, E),
                "static_k": normal(4, 6, 4),
                "static_v": normal(4, 6, 4),
            },
            ArgumentError,
            "static_k",
        ),
        ((X, Y, Y), {"static_k": normal(4, 6, 3)}, ShapeError, "static_k"),
        ((X, Y, Y), {"static_v": normal(3, 6, 4)}, ShapeError, "static_v"),
        ((X, Y, Y), {"static_k": normal(4, 5, 4)}, ShapeError, "key and value"),
        ((X, Y, Y), {"is_causal": True}, ArgumentError, "attn_mask"),
        ((X, Y, Y), {"dropout_p": 2.0}, ArgumentError, "dropout_p"),
        ((X, Y, Y), {"dropout_p": 0.5}, RngError, "rng"),
        ((X, Y, Y), {"attn_mask": jnp.zeros((4, 6), int)}, DTypeError, "attn_mask"),
        ((X, Y, Y), {"attn_mask": jnp.zeros(6)}, ShapeError, "attn_mask"),
        ((X, Y, Y), {"attn_mask": jnp.zeros((4, 5))}, ShapeError, "attn_mask"),
        ((X, Y, Y), {"attn_mask": jnp.zeros((2, 4, 6))}, ShapeError, "attn_mask"),
        ((X[:, 0], Y[:, 0], Y[:, 0]), {"attn_mask": jnp.zeros((1, 4, 6))}, ShapeError, "attn_mask"),
        ((X, Y, Y), {"key_padding_mask": jnp.zeros((2, 5), bool)}, ShapeError, "key_padding_mask"),
        ((X, Y, Y), {"key_padding_mask": jnp.zeros((1, 6), bool)}, ShapeError, "key_padding_mask"),
        ((X, Y, Y), {"key_padding_mask": jnp.zeros((2, 6), int)}, DTypeError, "key_padding_mask"),
        (
            (X[:, 0], Y[:, 0], Y[:, 0]),
            {"key_padding_mask": jnp.zeros((1, 6), bool)},
            ShapeError,
            "key_padding_mask",
        ),
    ],
)
def test_multi_head_refuses(inputs, changed, error, match):
    with pytest.raises(error, match=match):
        F.multi_head_attention_forward(*inputs, **options(**changed))


def test_dropout_is_for_training():
    out, weights = F.multi_head_attention_forward(X, Y, Y, **options(dropout_p=1.0), training=False)
    plain, _ = F.multi_head_attention_forward(X, Y, Y, **options())
    np.testing.assert_array_equal(out, plain)
    _, weights = F.multi_head_attention_forward(
        X, Y, Y, **options(dropout_p=0.5), average_attn_weights=False, rng=jax.random.key(0)
    )
    assert 0.2 < (weights == 0).mean() < 0.8  # the weights returned are those that were used


def test_mixed_kinds_of_masks_warn():
    masks = {"attn_mask": jnp.zeros((4, 6)), "key_padding_mask": jnp.zeros((2, 6), bool)}
    with pytest.warns(UserWarning, match="key_padding_mask is bool and attn_mask is float32"):
        F.multi_head_attention_forward(X, Y, Y, **options(**masks))
