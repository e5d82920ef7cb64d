"""Adaptive softmax and linear cross entropy: refusals, all classes, chunks, precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError

rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((7, 6)), jnp.float32)
W = jnp.asarray(rng.standard_normal((4, 6)), jnp.float32)
B = jnp.asarray(rng.standard_normal(4), jnp.float32)
Y = jnp.array([0, 1, 2, 3, 1, 1, 0])
Options = nn.LinearCrossEntropyOptions
loss = F.linear_cross_entropy


def adaptive():
    return nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 6], 2.0)


REFUSED = [
    (lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, []), ArgumentError, "at least one"),
    (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, [6, 3]),
        ArgumentError,
        "cutoffs must be increas",
    ),
    (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 3]),
        ArgumentError,
        "cutoffs must be increas",
    ),
    (lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, [0]), ArgumentError, "between 1 and n_classes"),
    (lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, [12]), ArgumentError, "n_classes - 1 = 11"),
    (
        lambda: nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3.0]),
        ArgumentError,
        "cutoffs must be an integer",
    ),
    (lambda: adaptive()(X, Y[:2]), ShapeError, r"expected input_ of shape \(N, 6\)"),
    (lambda: adaptive()(X, Y[:, None]), ShapeError, "expected input_ of shape"),
    (lambda: adaptive()(X, Y[0]), ShapeError, "expected input_ of shape"),
    (lambda: adaptive()(X, Y.astype(float)), DTypeError, "target_ must be an array of integers"),
    (lambda: nn.LinearCrossEntropyLoss(6, 4, weight=B[:2]), ShapeError, "weight must have shape"),
    (lambda: nn.LinearCrossEntropyLoss(6, 4, label_smoothing=2), ArgumentError, "label_smoothing"),
    (lambda: nn.LinearCrossEntropyLoss(6, 4, options=3), ArgumentError, "options must be"),
    (lambda: loss(X, W[:, :5], Y), ShapeError, "linear_weight must have shape"),
    (lambda: loss(X, W[0], Y), ShapeError, "linear_weight must have shape"),
    (lambda: loss(X[None], W, Y), ShapeError, "1D or 2D input"),
    (lambda: loss(X[0], W[:, None], Y[0]), ShapeError, "input must have shape"),
    (lambda: loss(X, W, Y, linear_bias=B[:2]), ShapeError, "linear_bias must have shape"),
    (lambda: loss(X, W.astype(jnp.float16), Y), DTypeError, "must have one dtype"),
    (lambda: loss(X, W, X @ W.T, ignore_index=-1), ArgumentError, "ignore_index works with class"),
    (lambda: loss(X, W, Y[:3], options=Options()), ShapeError, "target must have 7 rows"),
    (lambda: loss(X, W, Y[:3]), ShapeError, "target must have the shape of input"),
    (lambda: Options(acc_policy="x"), ArgumentError, "acc_policy must be one of"),
    (lambda: Options(acc_dtype=jnp.float16), ArgumentError, "acc_dtype must be None or float32"),
    (lambda: Options(chunking_method="ratio"), ArgumentError, "chunking_method must be"),
    (lambda: Options(chunking_method="aspect_ratio:0"), ArgumentError, "chunking_method must be"),
    (lambda: Options(False, 0), ArgumentError, "batch_chunk_size must be positive"),
    (lambda: Options(False, 8, "aspect_ratio"), ArgumentError, "leave one out"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_all_classes_and_the_most_probable_are_torch_s():
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 6], 2.0, head_bias=True)
    ours = nn.AdaptiveLogSoftmaxWithLoss(6, 12, [3, 6], 2.0, head_bias=True)
    ours.load_state_dict(theirs.state_dict())
    x = 5 * X
    t = torch.tensor(np.array(x))
    np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(t).detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(t))
    np.testing.assert_allclose(jnp.exp(ours.log_prob(x)).sum(1), np.ones(7), rtol=1e-5)
    output, total = ours(x, Y)
    np.testing.assert_allclose(output, jnp.take_along_axis(ours.log_prob(x), Y[:, None], 1)[:, 0])
    np.testing.assert_allclose(total, -output.mean(), rtol=1e-6)


def test_adaptive_targets_out_of_range_give_nan():
    output, total = adaptive()(X[:3], jnp.array([11, 12, -1]))
    np.testing.assert_array_equal(np.isnan(output), [False, True, True])
    assert np.isnan(total)


def test_adaptive_reset_draws_anew():
    model = adaptive()
    before = {n: np.array(v) for n, v in model.state_dict().items()}
    model.reset_parameters()
    assert all((np.array(v) != before[n]).any() for n, v in model.state_dict().items())


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"linear_bias": B, "weight": jnp.array([0.5, 1.0, 2.0, 0.0]), "ignore_index": 1},
        {"label_smoothing": 0.2, "linear_bias": B},
    ],
)
def test_chunks_change_nothing(rows, reduction, options):
    chunks = Options(batch_chunk_size=rows)

    def total(x, w, how):
        value = loss(x, w, Y, reduction=reduction, options=how, **options)
        return value.sum(), value

    (_, expected), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(X, W, None)
    (_, got), others = jax.value_and_grad(total, (0, 1), has_aux=True)(X, W, chunks)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(others, gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_chunks_of_probabilities_and_of_more_axes():
    matrix = jnp.stack([W, 2 * W], 1)  # (C, 2, D)
    for target in (jnp.stack([Y, Y], 1), jnp.full((7, 4, 2), 0.25)):
        expected = loss(X, matrix, target)
        got = loss(X, matrix, target, options=Options(batch_chunk_size=2))
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_chunk_sizes_are_torch_s():
    for case in ((1000, 16, 5000), (7, 64, 10), (4096, 1024, 50257), (1, 4, 4)):
        for method in ("aspect_ratio", "aspect_ratio:2", "aspect_ratio:8", None):
            theirs = torch.nn.LinearCrossEntropyOptions(chunking_method=method)
            size = theirs._adjust(*case, torch.float32).batch_chunk_size
            assert Options(chunking_method=method).rows(*case) == size


def test_logits_of_half_precision_are_not_rounded():
    x, w = 30 * X.astype(jnp.bfloat16), W.astype(jnp.bfloat16)
    exact = loss(x.astype(jnp.float32), w.astype(jnp.float32), Y)
    for options in (None, Options(batch_chunk_size=2)):
        value = loss(x, w, Y, options=options)
        assert value.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(value), exact, rtol=4e-3)


def test_the_layer_prints_and_trains_with_options():
    options = Options(batch_chunk_size=3)
    layer = nn.LinearCrossEntropyLoss(6, 4, bias=True, options=options)
    theirs = torch.nn.LinearCrossEntropyLoss(
        6, 4, bias=True, options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=3)
    )
    assert repr(layer) == repr(theirs)
    value, grads = fn.value_and_grad(lambda m: m(X, Y))(layer)
    plain = nn.LinearCrossEntropyLoss(6, 4, bias=True)
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_allclose(value, plain(X, Y), rtol=1e-6)
    assert jax.tree.structure(grads) == jax.tree.structure(fn.grad(lambda m: m(X, Y))(plain))
