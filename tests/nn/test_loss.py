"""Classification losses: refusals, indices out of range, buffers, and deprecated arguments."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError

X, Y = jnp.ones((3, 4)), jnp.array([0, 1, 3])
BCE, LOGITS = F.binary_cross_entropy, F.binary_cross_entropy_with_logits

REFUSED = [
    (lambda: nn.CrossEntropyLoss(reduction="max"), ArgumentError, "reduction must be one of"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=1.5), ArgumentError, "label_smoothing must be"),
    (lambda: nn.CrossEntropyLoss(ignore_index=0.5), ArgumentError, "ignore_index must be an int"),
    (lambda: nn.CrossEntropyLoss(weight=[1.0]), DTypeError, "weight"),
    (lambda: F.cross_entropy(X, Y, reduction="batchmean"), ArgumentError, "reduction must be"),
    (lambda: F.cross_entropy(X, Y, label_smoothing=-0.1), ArgumentError, "label_smoothing must"),
    (lambda: F.cross_entropy(X, X, ignore_index=1), ArgumentError, "ignore_index works with class"),
    (lambda: F.cross_entropy(X.astype(int), Y), DTypeError, "input must be a floating point"),
    (lambda: F.cross_entropy(X, Y > 0), DTypeError, "target must be an array of integers"),
    (lambda: F.cross_entropy(X, Y.astype(float)), DTypeError, "target must hold integers"),
    (lambda: F.cross_entropy(X, X.astype(int)), DTypeError, "must hold class probabilities"),
    (lambda: F.cross_entropy(X, [0, 1, 3]), DTypeError, "target must be an array"),
    (lambda: F.cross_entropy(X, Y[:2]), ShapeError, r"target must have the shape .* \(3,\)"),
    (lambda: F.cross_entropy(X, Y[:, None]), ShapeError, "target must have the shape of input"),
    (lambda: F.cross_entropy(X, X[:, :2]), DTypeError, "target must hold integers"),
    (lambda: F.cross_entropy(X[0, 0], Y[0]), ShapeError, r"input must have shape \(C,\)"),
    (lambda: F.cross_entropy(X[:, :0], Y), ShapeError, "at least one class"),
    (
        lambda: F.cross_entropy(X, Y, X),
        ShapeError,
        "weight must have one element for each of the 4",
    ),
    (lambda: F.cross_entropy(X, X, X[0, :3]), ShapeError, "weight must have one element"),
    (lambda: F.cross_entropy(X, Y, Y), DTypeError, "weight must be a floating point"),
    (lambda: F.nll_loss(X, X), DTypeError, "target must hold integers"),
    (lambda: F.nll_loss(X[None], Y), ShapeError, "target must have the shape of input"),
    (lambda: F.nll_loss(X, Y, X[0, :2]), ShapeError, "weight must have one element"),
    (lambda: BCE(X, X[0]), ShapeError, "target must have the shape of input"),
    (lambda: BCE(X, X.astype(int)), DTypeError, "target and input must have one dtype"),
    (lambda: BCE(X, X.astype(jnp.float16)), DTypeError, "target and input must have one dtype"),
    (lambda: BCE(X, X, X[:, :2]), ShapeError, "weight must broadcast"),
    (lambda: BCE(X, X, jnp.ones((2, 3, 4))), ShapeError, "weight must broadcast"),
    (lambda: LOGITS(X, X[:, :2]), ShapeError, "target must have the shape of input"),
    (lambda: LOGITS(X, X > 0), DTypeError, "target must be a floating point"),
    (lambda: LOGITS(X, X, pos_weight=X[:, :2]), ShapeError, "pos_weight must broadcast"),
    (lambda: LOGITS(X, X, jnp.ones((2, 3, 4))), ShapeError, "weight must broadcast"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("weight", [None, jnp.arange(1.0, 5.0)])
@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_an_index_out_of_range_gives_nan(loss, weight):
    target = jnp.array([4, -1, 2])
    each = loss(X, target, weight, reduction="none")
    np.testing.assert_array_equal(np.isnan(each), [True, True, False])
    assert np.isnan(loss(X, target, weight))
    np.testing.assert_array_equal(
        loss(X, target, weight, ignore_index=-1, reduction="none")[1:] != 0, [False, True]
    )


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.int16, jnp.uint32])
def test_every_integer_is_an_index(dtype):
    logits = jnp.arange(12.0).reshape(3, 4)
    expected = F.cross_entropy(logits, Y, ignore_index=-100)
    assert F.cross_entropy(logits, Y.astype(dtype), ignore_index=-100) == expected


def test_one_sample_may_have_a_target_of_one_element():
    assert F.cross_entropy(X[0], Y[:1]).shape == ()
    assert F.nll_loss(X[0], Y[:1], reduction="none").shape == ()


def test_ignored_positions_get_no_gradient():
    gradient = jax.grad(lambda x: F.cross_entropy(x, Y, ignore_index=1))(X)
    np.testing.assert_array_equal(gradient[1], np.zeros(4))
    assert np.isfinite(gradient).all()


def test_weights_are_buffers_in_state_and_follow_the_logits():
    criterion = nn.CrossEntropyLoss(weight=np.array([1.0, 2.0, 3.0, 4.0]))
    _, state = fn.get_variables(criterion)
    assert state["weight"].dtype == jnp.float32
    loss = criterion(X.astype(jnp.bfloat16), Y)
    assert loss.dtype == jnp.bfloat16
    assert nn.NLLLoss().weight is None
    assert list(nn.BCEWithLogitsLoss(pos_weight=jnp.ones(2)).state_dict()) == ["pos_weight"]


def test_mixed_precision_is_promoted_as_in_torch():
    x, t = X.astype(jnp.bfloat16), torch.ones(3, 4, dtype=torch.bfloat16)
    assert F.cross_entropy(x, X).dtype == jnp.float32
    assert torch.nn.functional.cross_entropy(t, torch.ones(3, 4)).dtype == torch.float32
    assert LOGITS(x, X).dtype == jnp.float32


def test_half_precision_sums_in_float32():
    x = jnp.zeros((8192, 2), jnp.bfloat16)
    assert np.isclose(F.cross_entropy(x, jnp.zeros(8192, int)), np.log(2), atol=3e-3)
    assert np.isclose(LOGITS(x, x), np.log(2), atol=3e-3)


def test_bce_keeps_a_finite_gradient_at_the_edges_as_torch_does():
    p, y = np.array([0, 1, 0, 1, 1e-20], np.float32), np.array([0, 1, 1, 0, 1], np.float32)
    t = torch.tensor(p, requires_grad=True)
    torch.nn.functional.binary_cross_entropy(t, torch.tensor(y), reduction="sum").backward()
    gradient = jax.grad(lambda p: BCE(p, jnp.asarray(y), reduction="sum"))(jnp.asarray(p))
    np.testing.assert_allclose(gradient, t.grad, rtol=1e-6)
    np.testing.assert_array_equal(
        BCE(jnp.asarray(p[:4]), jnp.asarray(y[:4]), reduction="none"), [0, 0, 100, 100]
    )


def test_a_probability_out_of_range_gives_nan():
    assert np.isnan(BCE(jnp.array([-0.1, 0.5]), jnp.array([0.0, 1.0])))
    assert np.isnan(BCE(jnp.array([1.1, 0.5]), jnp.array([1.0, 1.0])))


@pytest.mark.parametrize(
    ("size_average", "reduce", "reduction"),
    [
        (True, True, "mean"),
        (True, None, "mean"),
        (None, True, "mean"),
        (False, None, "sum"),
        (False, True, "sum"),
        (None, False, "none"),
        (True, False, "none"),
        (False, False, "none"),
    ],
)
def test_deprecated_arguments_map_as_in_torch(size_average, reduce, reduction):
    with pytest.warns(UserWarning, match=f"reduction='{reduction}'"):
        assert nn.NLLLoss(size_average=size_average, reduce=reduce).reduction == reduction
    with pytest.warns(UserWarning, match=f"reduction='{reduction}'") as caught:
        F.cross_entropy(X, Y, size_average=size_average, reduce=reduce)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.nn.NLLLoss(size_average=size_average, reduce=reduce)
    assert theirs.reduction == reduction


def test_deprecated_names_warn():
    with pytest.warns(UserWarning, match="reduction='mean'"):
        assert nn.BCELoss(reduction="elementwise_mean").reduction == "mean"
    with pytest.warns(FutureWarning, match="NLLLoss"):
        nn.NLLLoss2d()


def test_a_criterion_works_inside_a_jitted_step():
    criterion = nn.CrossEntropyLoss(weight=jnp.arange(1.0, 5.0))
    np.testing.assert_allclose(fn.jit(lambda x: criterion(x, Y))(X), criterion(X, Y), rtol=1e-6)
