"""Distances: refusals, order of pairs, half precision, gradients at the zero vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError

X = jnp.ones((3, 4))

REFUSED = [
    (lambda: nn.PairwiseDistance("fro"), ArgumentError, "p must be a number"),
    (lambda: nn.CosineSimilarity(0.5), ArgumentError, "dim must be an integer"),
    (lambda: nn.CosineSimilarity(eps=-1), ArgumentError, "eps must not be negative"),
    (lambda: F.pairwise_distance(X, X[:, :2]), ShapeError, "broadcast together"),
    (lambda: F.pairwise_distance(X, X.astype(complex)), DTypeError, "x2 must be a real"),
    (lambda: F.cosine_similarity(X[0], X[0]), ShapeError, "dim must be between -1 and 0"),
    (lambda: F.cosine_similarity(X, X, eps=-1), ArgumentError, "eps must not be negative"),
    (lambda: F.pdist(X[0]), ShapeError, "expected 2D input"),
    (lambda: F.pdist(X, -1.0), ArgumentError, "p must not be negative"),
    (lambda: F.normalize(X[0]), ShapeError, "dim must be between"),
    (lambda: F.normalize(X, dim=1.5), ArgumentError, "dim must be an integer"),
    (lambda: F.normalize(X, "fro"), ArgumentError, "p must be a number"),
    (lambda: F.normalize(X.astype(int)), DTypeError, "input must be a floating point"),
    (lambda: F.normalize(X, out=X), UnsupportedError, "out= is not supported"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")])
def test_no_gradient_is_nan_at_zero(p):
    zero = jnp.zeros((3, 4))
    for function in (
        lambda x: F.normalize(x, p),
        lambda x: F.pairwise_distance(x, zero, p, eps=0.0),
        lambda x: F.pdist(x, p),
        lambda x: F.cosine_similarity(x, X),
    ):
        gradient = jax.grad(lambda x, function=function: function(x).sum())(zero)
        assert np.isfinite(gradient).all()


def test_pdist_lists_pairs_row_by_row():
    x = jnp.array([[0.0], [1.0], [3.0], [7.0]])
    assert F.pdist(x).tolist() == [1, 3, 7, 2, 6, 4]
    assert F.pdist(x[:1]).shape == (0,)


def test_half_precision_is_computed_in_float32():
    x = jnp.full((1, 10), 100.0, jnp.float16)
    np.testing.assert_allclose(F.normalize(x), np.full((1, 10), 10**-0.5), rtol=1e-3)
    np.testing.assert_allclose(F.pairwise_distance(x, 0 * x), [1e3**0.5 * 10], rtol=1e-3)
    assert F.pdist(x).dtype == jnp.float16
