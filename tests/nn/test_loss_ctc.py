"""CTC: gradients, lengths that are known and that are traced, what no alignment can produce."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3, 4)), jnp.float32)
P = jax.nn.log_softmax(X)
Y = jnp.array([[1, 2, 2], [3, 1, 0], [1, 1, 1]])
STEPS, COUNTS = (5, 5, 5), (3, 2, 3)
ctc = F.ctc_loss

REFUSED = [
    (lambda: nn.CTCLoss(-1), ArgumentError, "blank must be non-negative"),
    (lambda: ctc(P, Y, (6, 5, 5), COUNTS), ArgumentError, "input_lengths must be at most 5"),
    (lambda: ctc(P, Y, (5, 5, -1), COUNTS), ArgumentError, "input_lengths must not be negative"),
    (lambda: ctc(P, Y, STEPS, (4, 2, 3)), ArgumentError, "target_lengths must be at most 3"),
    (lambda: ctc(P, Y, STEPS, (-1, 2, 3)), ArgumentError, "target_lengths must not be negative"),
    (lambda: ctc(P, Y, (5, 5), COUNTS), ShapeError, "input_lengths must have one length for each"),
    (lambda: ctc(P, Y, STEPS, COUNTS[:2]), ShapeError, "target_lengths must have one length"),
    (lambda: ctc(P, Y, 5, COUNTS), DTypeError, "input_lengths must be an array"),
    (lambda: ctc(P, Y, jnp.ones(3), COUNTS), DTypeError, "input_lengths must hold integers"),
    (lambda: ctc(P, Y, STEPS, COUNTS, 4), ArgumentError, "blank must be between 0 and 3"),
    (lambda: ctc(P, Y, STEPS, COUNTS, reduction="x"), ArgumentError, "reduction must be"),
    (lambda: ctc(P, Y.astype(float), STEPS, COUNTS), DTypeError, "targets must be an array of int"),
    (lambda: ctc(P, Y[:2], STEPS, COUNTS), ShapeError, "targets must have 3 rows"),
    (lambda: ctc(P, Y[None], STEPS, COUNTS), ShapeError, "1D or 2D targets"),
    (lambda: ctc(P, Y.ravel(), STEPS, COUNTS), ShapeError, "target_lengths sum to, 8"),
    (lambda: ctc(P[0, 0], Y, STEPS, COUNTS), ShapeError, "2D or 3D log_probs"),
    (lambda: ctc(P[:0], Y, (0, 0, 0), COUNTS), ShapeError, "log_probs must not be empty"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_it_sums_over_all_alignments():
    """By enumeration of all paths of a small case."""
    p, label = P[:4, 0, :3], (1, 2, 1)
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        merged = [k for k, _ in itertools.groupby(path)]
        if tuple(k for k in merged if k) == label:
            total += float(jnp.exp(sum(p[t, k] for t, k in enumerate(path))))
    loss = ctc(p, jnp.array(label), (4,), (3,), reduction="sum")
    np.testing.assert_allclose(loss, -np.log(total), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("steps", [(5, 5, 5), (5, 3, 4), (2, 5, 0)])
def test_gradient_behind_a_log_softmax_is_torch_s(steps, reduction):
    counts = np.array(COUNTS) * (np.array(steps) > 0)
    t = torch.tensor(np.array(X), requires_grad=True)
    options = {"reduction": reduction, "zero_infinity": True}
    lengths = torch.tensor(steps), torch.tensor(counts)
    theirs = torch.nn.functional.ctc_loss(
        t.log_softmax(-1), torch.tensor(np.array(Y)), *lengths, **options
    )
    theirs.sum().backward()

    def loss(x):
        return ctc(jax.nn.log_softmax(x), Y, jnp.array(steps), jnp.array(counts), **options).sum()

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), np.asarray(t.grad), rtol=1e-4, atol=1e-5)


def test_gradient_is_that_of_the_loss():
    check_grads(lambda x: ctc(x, Y, (5, 4, 5), (3, 2, 2)), (X,), 1, ["rev"], rtol=2e-2)


def test_what_is_impossible_is_infinite_without_a_nan_gradient():
    arguments = (Y, (2, 5, 0), (3, 2, 1))
    assert np.isposinf(ctc(P, *arguments, reduction="none")).tolist() == [True, False, True]
    assert np.isposinf(ctc(P, *arguments))
    gradient = jax.grad(lambda p: ctc(p, *arguments))(P)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, 0], np.zeros((5, 4)))
    never = P.at[:, 0, 1].set(-jnp.inf)  # a label that has no probability
    assert np.isposinf(ctc(never, Y, STEPS, COUNTS, reduction="none"))[0]
    assert np.isfinite(jax.grad(lambda p: ctc(p, Y, STEPS, COUNTS))(never)).all()


def test_what_lies_behind_the_labels_does_not_matter():
    counts = (1, 2, 0)
    garbage = jnp.where(
        jnp.arange(3)[None] < jnp.array(counts)[:, None], Y, jnp.array([[99, -7, 5]])
    )
    np.testing.assert_array_equal(ctc(P, garbage, STEPS, counts), ctc(P, Y, STEPS, counts))
    gradient = jax.grad(lambda p: ctc(p, garbage, STEPS, counts))(P)
    assert np.isfinite(gradient).all()


def test_a_label_out_of_range_gives_nan():
    bad = Y.at[0, 0].set(4).at[1, 0].set(-1)
    each = ctc(P, bad, STEPS, COUNTS, reduction="none")
    np.testing.assert_array_equal(np.isnan(each), [True, True, False])


def test_lengths_in_tuples_arrays_and_traced_agree():
    row = jnp.array([1, 2, 2, 3, 1, 1, 1, 1])
    expected = ctc(P, Y, STEPS, COUNTS)
    arrays = jnp.array(STEPS), jnp.array(COUNTS)
    np.testing.assert_allclose(ctc(P, row, STEPS, COUNTS), expected, rtol=1e-6)
    np.testing.assert_allclose(ctc(P, row, np.array(STEPS), np.array(COUNTS)), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(ctc)(P, row, *arrays), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(ctc)(P, Y, *arrays), expected, rtol=1e-6)
