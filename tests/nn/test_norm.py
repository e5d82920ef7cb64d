"""LayerNorm, RMSNorm, GroupNorm and the local response normalisations beyond the shared table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.nn import functional as F

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6, 5)), jnp.float32)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: nn.LayerNorm(()), "normalized_shape"),
        (lambda: nn.LayerNorm(2.0), "normalized_shape"),
        (lambda: nn.LayerNorm((3, -1)), "normalized_shape"),
        (lambda: nn.RMSNorm([]), "normalized_shape"),
        (lambda: nn.GroupNorm(3, 4), "num_channels=4 must be divisible by num_groups=3"),
        (lambda: nn.GroupNorm(0, 4), "num_groups"),
        (lambda: nn.GroupNorm(-2, 4), "num_groups"),
        (lambda: nn.LocalResponseNorm(0), "size"),
        (lambda: nn.LocalResponseNorm(2.0), "size"),
        (lambda: nn.CrossMapLRN2d(-1), "size"),
        (lambda: F.layer_norm(X, ()), "normalized_shape"),
        (lambda: F.group_norm(X, 0), "num_groups"),
        (lambda: F.local_response_norm(X, -1), "size"),
    ],
)
def test_options_that_cannot_be(build, match):
    with pytest.raises(ArgumentError, match=match):
        build()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: nn.LayerNorm(6)(X), r"shape \(\*, 6\)"),
        (lambda: nn.LayerNorm((1, 5))(X), r"shape \(\*, 1, 5\)"),
        (lambda: nn.RMSNorm((4, 4, 6, 5))(X), "normalized_shape"),
        (lambda: F.layer_norm(X, (6, 5), jnp.ones(5)), "weight"),
        (lambda: F.layer_norm(X, 5, None, jnp.ones(1)), "bias"),
        (lambda: F.rms_norm(X, 5, jnp.ones(1)), "weight"),
        (lambda: nn.GroupNorm(2, 4)(X), "num_channels=4"),
        (lambda: nn.GroupNorm(2, 4, affine=False)(X[:, :5]), "num_groups=2"),
        (lambda: nn.GroupNorm(2, 4)(jnp.ones(4)), "at least 2D"),
        (lambda: nn.GroupNorm(4, 4)(jnp.ones((1, 4))), "more than one value"),
        (lambda: F.group_norm(X, 2, jnp.ones(1)), "weight"),
        (lambda: nn.LocalResponseNorm(2)(X[0]), "at least 3D"),
        (lambda: nn.CrossMapLRN2d(2)(X), "4D"),
    ],
)
def test_shapes_that_do_not_fit(call, match):
    with pytest.raises(ShapeError, match=match):
        call()


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(5), nn.RMSNorm(5), nn.GroupNorm(2, 6), nn.LocalResponseNorm(2)],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64])
def test_what_is_no_real_number_is_refused(layer, dtype):
    with pytest.raises(DTypeError, match="input must be"):
        layer(jnp.ones((4, 6, 5), dtype))


def test_parameters_are_of_the_inputs_dtype_or_of_float32():
    half = X.astype(jnp.bfloat16)
    assert nn.LayerNorm(5)(half).dtype == jnp.bfloat16
    assert nn.GroupNorm(2, 6)(half).dtype == jnp.bfloat16
    for call in (
        lambda: nn.LayerNorm(5, dtype=jnp.bfloat16)(X),
        lambda: nn.RMSNorm(5, dtype=jnp.float16)(half),
        lambda: nn.GroupNorm(2, 6, dtype=jnp.bfloat16)(X),
    ):
        with pytest.raises(DTypeError, match="weight of the dtype of input"):
            call()


def test_the_parameters_start_at_one_and_zero():
    for layer in (nn.LayerNorm(5), nn.GroupNorm(2, 6), nn.RMSNorm(5)):
        assert (np.asarray(layer.weight) == 1).all()
        assert getattr(layer, "bias", None) is None or (np.asarray(layer.bias) == 0).all()
        layer.weight.data = layer.weight * 2
        layer.reset_parameters()
        assert (np.asarray(layer.weight) == 1).all()


def test_half_precision_statistics_are_taken_in_float32():
    x = jnp.full((1, 4096), 100.0, jnp.float16).at[0, 0].set(101.0)
    expected = torch.nn.functional.layer_norm(torch.tensor(np.array(x)).float(), (4096,))
    got = F.layer_norm(x, 4096)
    assert bool(jnp.isfinite(got).all())
    np.testing.assert_allclose(got.astype(jnp.float32), expected, rtol=1e-2, atol=1e-3)


def test_the_variance_of_large_values_keeps_its_digits():
    x = 1e4 + X
    exact = torch.nn.functional.layer_norm(torch.tensor(np.array(x, np.float64)), (5,))
    np.testing.assert_allclose(F.layer_norm(x, 5), exact, atol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_default_epsilon_of_rms_norm_is_that_of_float32(dtype):
    x = jnp.full((1, 2), 1e-4, dtype)
    np.testing.assert_allclose(
        F.rms_norm(x, 2).astype(jnp.float32), np.full((1, 2), 0.2782), rtol=1e-2
    )


def test_the_default_epsilon_of_rms_norm_in_float64():
    with jax.enable_x64(True):
        x = jnp.full((1, 2), 1e-9)
        expected = torch.nn.functional.rms_norm(torch.tensor(np.array(x)), (2,))
        np.testing.assert_allclose(F.rms_norm(x, 2), expected)


def test_gradients_of_constant_inputs_are_finite():
    for layer in (nn.LayerNorm(5), nn.GroupNorm(2, 6), nn.RMSNorm(5)):
        gradient = jax.grad(lambda x, layer=layer: (layer(x) ** 2).sum())(jnp.zeros((4, 6, 5)))
        assert bool(jnp.isfinite(gradient).all())


def test_cross_map_normalisation_has_the_gradient_of_its_values():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 6, 1, 1)), jnp.float32)
    layer = nn.CrossMapLRN2d(3, alpha=1.0)

    def total(x):
        return (layer(x) * jnp.cos(jnp.arange(6.0)).reshape(1, 6, 1, 1)).sum()

    step = 1e-2 * jnp.eye(6).reshape(6, 1, 6, 1, 1)
    numeric = [(total(x + s) - total(x - s)) / 2e-2 for s in step]
    np.testing.assert_allclose(jax.grad(total)(x).reshape(-1), numeric, atol=1e-3)
