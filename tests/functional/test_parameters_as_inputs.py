"""Outside of a call, a Parameter or a Buffer stands for its value in every function.

Nothing here may warn: JAX is retiring some uses of ``__jax_array__``, and none of them is needed.
"""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import functional as pure
from funcnets import nn
from funcnets.core.cell import Cell
from funcnets.nn import functional as F


def normal(*shape):
    return jax.random.normal(jax.random.key(sum(shape)), shape)


def indices(*shape, high=3):
    return jax.random.randint(jax.random.key(1), shape, 0, high)


HEADS = normal(2, 2, 3, 4)

#: The function, its arrays, its options.
CALLS = {
    "relu": (F.relu, [normal(2, 3)], {}),
    "gelu": (F.gelu, [normal(2, 3)], {}),
    "softmax": (F.softmax, [normal(2, 3)], {"dim": 1}),
    "prelu": (F.prelu, [normal(2, 3), normal(3)], {}),
    "dropout": (F.dropout, [normal(2, 3)], {"rng": jax.random.key(0)}),
    "linear": (F.linear, [normal(2, 3), normal(4, 3), normal(4)], {}),
    "bilinear": (F.bilinear, [normal(2, 3), normal(2, 4), normal(5, 3, 4), normal(5)], {}),
    "conv2d": (F.conv2d, [normal(1, 2, 5, 5), normal(3, 2, 3, 3), normal(3)], {}),
    "conv_transpose1d": (F.conv_transpose1d, [normal(1, 2, 5), normal(2, 3, 3), normal(3)], {}),
    "embedding": (F.embedding, [indices(4), normal(3, 2)], {"padding_idx": 0}),
    "embedding_bag": (F.embedding_bag, [indices(2, 4), normal(3, 2)], {}),
    "one_hot": (F.one_hot, [indices(4)], {}),
    "normalize": (F.normalize, [normal(2, 3)], {}),
    "layer_norm": (F.layer_norm, [normal(2, 3), (3,), normal(3), normal(3)], {}),
    "batch_norm": (F.batch_norm, [normal(4, 3), normal(3), jnp.ones(3), normal(3)], {}),
    "max_pool2d": (F.max_pool2d, [normal(1, 2, 4, 4), 2], {}),
    "pad": (F.pad, [normal(2, 3), (1, 1)], {"mode": "reflect"}),
    "cosine_similarity": (F.cosine_similarity, [normal(2, 3), normal(2, 3)], {}),
    "mse_loss": (F.mse_loss, [normal(2, 3), normal(2, 3)], {}),
    "cross_entropy": (F.cross_entropy, [normal(4, 3), indices(4), jnp.ones(3)], {}),
    "attention": (F.scaled_dot_product_attention, [HEADS, HEADS, HEADS], {"is_causal": True}),
    "attention-mask": (F.scaled_dot_product_attention, [HEADS, HEADS, HEADS, normal(3, 3)], {}),
    "grouped_mm": (F.grouped_mm, [normal(2, 3, 4), normal(2, 4, 5)], {}),
}


def cell(x):
    if not isinstance(x, jax.Array):
        return x
    return nn.Parameter(x) if jnp.issubdtype(x.dtype, jnp.inexact) else nn.Buffer(x)


@pytest.mark.parametrize("name", CALLS)
def test_a_cell_as_an_argument(name):
    function, arguments, options = CALLS[name]
    expected = jax.tree.leaves(function(*arguments, **options))
    got = jax.tree.leaves(
        function(*map(cell, arguments), **options), is_leaf=lambda x: isinstance(x, Cell)
    )
    for ours, array in zip(got, expected, strict=True):
        assert isinstance(ours, jax.Array)
        np.testing.assert_array_equal(ours, array)


def test_the_values_of_a_model():
    fn.manual_seed(0)
    model = nn.Linear(3, 4)
    x = normal(2, 3)
    np.testing.assert_array_equal(F.linear(x, model.weight, model.bias), model(x))
    np.testing.assert_array_equal(pure.relu(model.weight), jnp.maximum(model.weight.data, 0))
    np.testing.assert_array_equal(model(cell(x)), model(x))


def test_in_a_transformation_a_cell_is_a_constant():
    weight, x = nn.Parameter(normal(4, 3)), normal(2, 3)
    by_cell, by_array = (
        jax.jit(jax.grad(lambda x, w=w: F.linear(x, w).sum()))(x) for w in (weight, weight.data)
    )
    np.testing.assert_array_equal(by_cell, by_array)


OPERATORS = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lt", "eq"]


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_with_a_cell_on_either_side(name):
    function = getattr(operator, name)
    x, y = jnp.abs(normal(3, 3)) + 1, jnp.abs(normal(3, 3)) + 2
    expected = np.asarray(function(x, y))
    for left, right in ((x, cell(y)), (cell(x), y), (cell(x), cell(y))):
        got = function(left, right)
        assert isinstance(got, jax.Array)
        np.testing.assert_array_equal(got, expected)
    right = cell(y)
    inside = jax.jit(lambda x: function(x, right))(x)
    np.testing.assert_allclose(inside, expected, rtol=1e-6)


def test_conversions_take_the_value_itself():
    x = normal(3, 3)
    parameter = nn.Parameter(x)
    assert jnp.asarray(parameter) is parameter.data
    np.testing.assert_array_equal(jnp.ones((3, 3)).at[:].set(parameter), x)
    np.testing.assert_array_equal(np.asarray(parameter), x)
