"""Losses with a margin: refusals, indices out of range, overflow, gradients at ties."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError

X, Y, S = jnp.ones((3, 4)), jnp.array([0, 1, 3]), jnp.ones(3)
TRIPLET = F.triplet_margin_with_distance_loss

REFUSED = [
    (lambda: nn.MultiMarginLoss(p=3), ArgumentError, "p must be one of 1, 2"),
    (lambda: nn.MultiMarginLoss(weight=X), ShapeError, "weight must have shape"),
    (lambda: nn.TripletMarginLoss(margin=0), ArgumentError, "margin must be positive"),
    (lambda: nn.TripletMarginWithDistanceLoss(margin=-1), ArgumentError, "margin must be positive"),
    (lambda: nn.HingeEmbeddingLoss("1"), ArgumentError, "margin must be a number"),
    (lambda: nn.SoftMarginLoss(reduction="x"), ArgumentError, "reduction must be"),
    (lambda: F.hinge_embedding_loss(X, X > 0), DTypeError, "target must be a floating point"),
    (lambda: F.hinge_embedding_loss(X.astype(int), X), DTypeError, "input must be a floating"),
    (lambda: F.hinge_embedding_loss(X, S), ShapeError, "broadcast together"),
    (lambda: F.margin_ranking_loss(X, X, S), ShapeError, "must have one rank"),
    (lambda: F.margin_ranking_loss(X, X[:2], X), ShapeError, "broadcast together"),
    (lambda: F.multi_margin_loss(X, Y, p=3), ArgumentError, "p must be 1 or 2"),
    (lambda: F.multi_margin_loss(X, Y[:2]), ShapeError, "one index for each sample"),
    (lambda: F.multi_margin_loss(X[:1], Y[0]), ShapeError, "one index for each sample"),
    (lambda: F.multi_margin_loss(X[None], Y), ShapeError, r"input must have shape \(N, C\)"),
    (lambda: F.multi_margin_loss(X, S), DTypeError, "target must be an array of integers"),
    (lambda: F.multi_margin_loss(X, Y, weight=X), ShapeError, "weight must have shape"),
    (lambda: F.multilabel_margin_loss(X, Y), ShapeError, "target must have the shape of input"),
    (lambda: F.multilabel_margin_loss(X, X), DTypeError, "target must be an array of integers"),
    (lambda: F.multilabel_soft_margin_loss(X, X > 0), DTypeError, "target must be a floating"),
    (lambda: F.multilabel_soft_margin_loss(X[0], X), ShapeError, "target must broadcast"),
    (lambda: F.multilabel_soft_margin_loss(X[0, 0], X[0, 0]), ShapeError, "input must have shape"),
    (lambda: F.multilabel_soft_margin_loss(X, X, S), ShapeError, "weight must broadcast"),
    (lambda: F.cosine_embedding_loss(X, X, X), ShapeError, r"inputs of shape \(N, D\)"),
    (lambda: F.cosine_embedding_loss(X, X, S[0]), ShapeError, r"inputs of shape \(N, D\)"),
    (lambda: F.cosine_embedding_loss(X, X[0], S), ShapeError, r"inputs of shape \(N, D\)"),
    (lambda: F.triplet_margin_loss(X, X[0], X), ShapeError, "must have one rank"),
    (lambda: F.triplet_margin_loss(X, X, X, margin=0), ArgumentError, "margin must be positive"),
    (lambda: TRIPLET(X, X[0], X), ShapeError, "must have one rank"),
    (lambda: TRIPLET(X, X, X, margin=0.0), ArgumentError, "margin must be positive"),
    (lambda: TRIPLET(X, X, X, reduction="x"), ArgumentError, "reduction must be"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("weight", [None, jnp.ones(4)])
@pytest.mark.parametrize("p", [1, 2])
def test_an_index_out_of_range_gives_nan(p, weight):
    each = F.multi_margin_loss(X, jnp.array([1, 4, -1]), p, weight=weight, reduction="none")
    np.testing.assert_array_equal(np.isnan(each), [False, True, True])


def test_labels_after_a_negative_one_do_not_count():
    target = jnp.array([[0, -1, 9, 9], [9, -1, 0, 0], [1, -2, 2, 2]])
    each = F.multilabel_margin_loss(X, target, reduction="none")
    np.testing.assert_array_equal(np.isnan(each), [False, True, False])
    assert each[0] == each[2] == 0.75


def test_soft_margin_is_finite_where_the_exponential_overflows():
    x = jnp.array([-1000.0, 1000.0])
    assert F.soft_margin_loss(x, jnp.array([1, 1]), reduction="none").tolist() == [1000, 0]
    gradient = jax.grad(lambda x: F.soft_margin_loss(x, jnp.array([1, 1]), reduction="sum"))(x)
    assert gradient.tolist() == [-1, 0]


def test_the_distance_may_be_a_module_with_parameters():
    criterion = nn.TripletMarginWithDistanceLoss(distance_function=nn.Bilinear(4, 4, 1))
    assert [n for n, _ in criterion.named_parameters()] == [
        "distance_function.weight",
        "distance_function.bias",
    ]
    assert criterion(X, X, 2 * X).shape == ()


def test_a_target_does_not_decide_the_dtype():
    x = X.astype(jnp.bfloat16)
    assert F.hinge_embedding_loss(x, X).dtype == jnp.bfloat16
    assert F.soft_margin_loss(x, X).dtype == jnp.bfloat16
    assert F.cosine_embedding_loss(x, x, S).dtype == jnp.bfloat16
    assert F.margin_ranking_loss(x, X, X.astype(int)).dtype == jnp.float32
