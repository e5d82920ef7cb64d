"""Gradient clipping against PyTorch's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.nn import utils

SHAPES = {"a": (3, 4), "b": (5,), "c": ()}
ORDERS = [2.0, 1, 3.5, float("inf"), "inf", -float("inf"), 0, 0.5]


def gradients(scale=1.0, dtype=np.float32, zero=False):
    rng = np.random.default_rng(0)
    arrays = {n: np.asarray(rng.standard_normal(s) * scale, dtype) for n, s in SHAPES.items()}
    if zero:
        arrays["b"] = np.zeros_like(arrays["b"])
    return arrays


def torch_parameters(arrays):
    parameters = []
    for array in arrays.values():
        p = torch.nn.Parameter(torch.zeros(array.shape, dtype=torch.from_numpy(array).dtype))
        p.grad = torch.from_numpy(array.copy())
        parameters.append(p)
    return parameters


def equal(ours, parameters, **tolerance):
    for leaf, p in zip(ours.values(), parameters, strict=True):
        assert leaf.dtype == jnp.dtype(str(p.grad.dtype).removeprefix("torch."))
        np.testing.assert_allclose(leaf, p.grad, **(tolerance or {"rtol": 1e-5, "atol": 1e-7}))


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("max_norm", [0.5, 100.0, 0.0])
def test_norm_clipping_equals_torch(order, max_norm):
    arrays = gradients(zero=order == 0)
    parameters = torch_parameters(arrays)
    expected = torch.nn.utils.clip_grad_norm_(parameters, max_norm, order)
    tree = {n: jnp.asarray(a) for n, a in arrays.items()}
    clipped, total = utils.clip_grad_norm_(tree, max_norm, order)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    equal(clipped, parameters)
    assert tree["a"] is not clipped["a"]  # nothing is changed in place
    np.testing.assert_array_equal(tree["a"], arrays["a"])
    np.testing.assert_allclose(utils.get_total_norm(tree, order), expected, rtol=1e-5)
    again = utils.clip_grads_with_norm_(tree, max_norm, total)
    jax.tree.map(np.testing.assert_array_equal, again, clipped)


@pytest.mark.parametrize("value", [0.3, 10, 0.0, -0.2])
def test_value_clipping_equals_torch(value):
    arrays = gradients()
    parameters = torch_parameters(arrays)
    torch.nn.utils.clip_grad_value_(parameters, value)
    equal(utils.clip_grad_value_({n: jnp.asarray(a) for n, a in arrays.items()}, value), parameters)


def test_the_gradients_of_a_model_under_jit():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    model.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    (10 * theirs(torch.from_numpy(x)).sum()).backward()
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)

    @fn.jit
    def step(x):
        grads = fn.grad(lambda m: 10 * m(x).sum())(model)
        return nn.utils.clip_grad_norm_(grads, 1.0)

    grads, total = step(x)
    np.testing.assert_allclose(total, expected.detach(), rtol=1e-5)
    named = dict(fn.core.layer.flatten(grads))
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(named[name], p.grad, rtol=1e-4, atol=1e-6)


def test_nonfinite_gradients():
    for bad in (np.nan, np.inf):
        arrays = gradients()
        arrays["b"][0] = bad
        parameters = torch_parameters(arrays)
        expected = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        tree = {n: jnp.asarray(a) for n, a in arrays.items()}
        clipped, total = utils.clip_grad_norm_(tree, 1.0)
        np.testing.assert_array_equal(total, expected)
        equal(clipped, parameters)
        for check in (
            lambda: utils.clip_grad_norm_(tree, 1.0, error_if_nonfinite=True),  # noqa: B023
            lambda: utils.get_total_norm(tree, 2.0, True),  # noqa: B023
        ):
            with pytest.raises(ArgumentError, match="is non-finite") as caught:
                check()
            assert isinstance(caught.value, RuntimeError)
    finite = {"a": jnp.ones(2)}
    utils.clip_grad_norm_(finite, 1.0, error_if_nonfinite=True)
    with pytest.raises(UnsupportedError, match="error_if_nonfinite"):
        jax.jit(lambda g: utils.clip_grad_norm_(g, 1.0, error_if_nonfinite=True))(finite)


def test_half_precision_keeps_its_dtype_and_does_not_overflow():
    tree = {"a": jnp.full((300,), 200.0, jnp.float16), "b": jnp.ones(2, jnp.bfloat16)}
    clipped, total = utils.clip_grad_norm_(tree, 1.0)
    assert total.dtype == jnp.float32
    np.testing.assert_allclose(total, 200 * np.sqrt(300), rtol=1e-3)
    assert clipped["a"].dtype == jnp.float16
    assert clipped["b"].dtype == jnp.bfloat16
    np.testing.assert_allclose(utils.get_total_norm(clipped), 1.0, rtol=1e-2)


def test_trees():
    assert float(utils.get_total_norm([])) == float(torch.nn.utils.get_total_norm([]))
    grads, total = utils.clip_grad_norm_({}, 1.0)
    assert grads == {}
    assert total == 0
    assert utils.get_total_norm(jnp.array([3.0, 4.0])) == 5
    nested = ({"x": {"y": jnp.array([3.0])}}, [np.array([4.0], np.float32), None])
    clipped, total = utils.clip_grad_norm_(nested, 2.5)
    assert total == 5
    assert jax.tree.structure(clipped) == jax.tree.structure(nested)
    z = jnp.array([3 + 4j])
    np.testing.assert_allclose(utils.clip_grad_norm_(z, 1.0)[0], (3 + 4j) / 5, rtol=1e-5)


def test_the_deprecated_name():
    with pytest.warns(FutureWarning, match="clip_grad_norm_"):
        grads, total = utils.clip_grad_norm({"a": jnp.array([3.0, 4.0])}, 1.0)
    assert total == 5
    np.testing.assert_allclose(grads["a"], [0.6, 0.8], rtol=1e-5)


def test_what_is_refused():
    model = nn.Linear(2, 2)
    for function in (utils.clip_grad_norm_, utils.clip_grad_value_):
        for wrong in (model.parameters(), list(model.parameters()), model, {"a": 1.0}, "abc"):
            with pytest.raises(DTypeError, match="takes gradients"):
                function(wrong, 1.0)
        with pytest.raises(DTypeError, match="int32"):
            function({"a": jnp.arange(3)}, 1.0)
        with pytest.raises(UnsupportedError, match="foreach"):
            function({"a": jnp.ones(2)}, 1.0, foreach=True)
        function({"a": jnp.ones(2)}, 1.0, foreach=False)
    with pytest.raises(DTypeError, match="real"):
        utils.clip_grad_value_(jnp.array([1j]), 1.0)
    with pytest.raises(ShapeError, match="total_norm"):
        utils.clip_grads_with_norm_({"a": jnp.ones(2)}, 1.0, jnp.ones(2))
    with pytest.raises(ValueError, match="two"):
        utils.get_total_norm({"a": jnp.ones(2)}, "two")
