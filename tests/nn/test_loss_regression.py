"""Losses between numbers: refusals, warnings, precision, and gradients that must not be NaN."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError

X = jnp.ones((3, 4))

REFUSED = [
    (lambda: nn.MSELoss(reduction="batchmean"), ArgumentError, "reduction must be one of"),
    (lambda: nn.KLDivLoss(reduction="max"), ArgumentError, "'none', 'mean', 'sum', 'batchmean'"),
    (lambda: nn.SmoothL1Loss(beta=-1), ArgumentError, "beta must not be negative"),
    (lambda: nn.HuberLoss(delta=0), ArgumentError, "delta must be positive"),
    (lambda: nn.HuberLoss(delta="1"), ArgumentError, "delta must be a number"),
    (lambda: F.mse_loss(X, 2.0), DTypeError, "target must be an array"),
    (lambda: F.mse_loss(X.astype(int), X.astype(int)), DTypeError, "expected a floating point"),
    (lambda: F.mse_loss(X, X.astype(complex)), DTypeError, "target must be a real"),
    (lambda: F.mse_loss(X, X, weight=X[0]), ShapeError, "weight must have the shape of input"),
    (lambda: F.l1_loss(X, X, reduction="x"), ArgumentError, "reduction must be"),
    (lambda: F.l1_loss(X, X, weight=X[0]), ShapeError, "weight must have the shape of input"),
    (lambda: F.huber_loss(X, X, weight=X[0]), ShapeError, "weight must have the shape of input"),
    (lambda: F.huber_loss(X, X, delta=-1.0), ArgumentError, "delta must be positive"),
    (lambda: F.smooth_l1_loss(X, X, beta=-1.0), ArgumentError, "beta must not be negative"),
    (lambda: F.poisson_nll_loss(X, X[:, :2]), ShapeError, "broadcast together"),
    (lambda: F.gaussian_nll_loss(X, X, -1.0), ArgumentError, "var must not be negative"),
    (lambda: F.gaussian_nll_loss(X, X, X[0]), ShapeError, "var must have the shape of input"),
    (lambda: F.gaussian_nll_loss(X, X, jnp.ones(())), ShapeError, "var must have the shape"),
    (lambda: F.gaussian_nll_loss(X[None], X[None], jnp.ones((1, 1, 1))), ShapeError, "var must"),
    (lambda: F.kl_div(X, X.astype(int), reduction="sum"), DTypeError, "target must be a floating"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss])
def test_shapes_that_differ_warn_and_broadcast(loss):
    with pytest.warns(UserWarning, match=r"shape \(3, 4\) and target \(4,\)") as caught:
        assert loss(X, X[0], reduction="none").shape == (3, 4)
    assert caught[0].filename == __file__
    with (
        pytest.warns(UserWarning, match="broadcast"),
        pytest.raises(ShapeError, match="broadcast together"),
    ):
        loss(X, X[:, :3])


def test_the_mean_of_kl_div_warns():
    with pytest.warns(UserWarning, match="batchmean") as caught:
        F.kl_div(X, X)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="reduction='mean'"):
        layer = nn.KLDivLoss(size_average=True)
    with pytest.warns(UserWarning, match="batchmean"):
        layer(X, X)


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss])
def test_half_precision_accumulates_in_float32(loss):
    """An element overflows float16, or the sum of many would; the mean does not."""
    x = jnp.full(4096, 1.0, jnp.float16)
    assert loss(x, 0 * x).dtype == jnp.float16
    np.testing.assert_allclose(
        loss(x, 0 * x), loss(x[:1].astype(jnp.float32), jnp.zeros(1)), rtol=1e-3
    )


def test_squares_may_leave_the_range_of_half_precision_on_the_way():
    x = jnp.array([300.0, 0, 0, 0], jnp.float16)
    np.testing.assert_allclose(F.mse_loss(x, 0 * x), 22500, rtol=1e-3)


def test_mixed_dtypes_are_promoted():
    x = X.astype(jnp.bfloat16)
    assert F.mse_loss(x, X).dtype == jnp.float32
    assert F.mse_loss(x, X.astype(jnp.float16)).dtype == jnp.float32
    assert F.l1_loss(x, X.astype(int)).dtype == jnp.bfloat16
    assert F.l1_loss(x, X > 0).dtype == jnp.bfloat16


def test_gradients_are_finite_where_a_branch_is_not():
    zero = jnp.zeros(3)
    for gradient in (
        jax.grad(lambda y: F.poisson_nll_loss(zero, y, full=True))(zero),
        jax.grad(lambda v: F.gaussian_nll_loss(zero, zero + 1, v))(zero),
        jax.grad(lambda x: F.kl_div(x, zero, reduction="sum"))(zero),
        jax.grad(lambda x: F.l1_loss(x, zero))(zero),
    ):
        assert np.isfinite(gradient).all()


def test_the_bound_on_the_variance_lets_the_gradient_through():
    gradient = jax.grad(lambda v: F.gaussian_nll_loss(jnp.zeros(1), jnp.ones(1), v, eps=0.5))(
        jnp.zeros(1)
    )
    np.testing.assert_allclose(gradient, [0.5 * (1 / 0.5 - 1 / 0.25)])


def test_negative_variances_count_as_eps():
    zero, one = jnp.zeros(1), jnp.ones(1)
    assert F.gaussian_nll_loss(zero, one, -one, eps=0.5) == F.gaussian_nll_loss(zero, one, 0.5)
