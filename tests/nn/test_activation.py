"""Activations: what they refuse, warn about and draw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, RngError, ShapeError

X = jnp.ones((2, 3))
KEY = jax.random.key(0)

CONSTRUCTIONS = [
    (lambda: nn.Hardtanh(1.0, 1.0), ArgumentError, "max_val must be greater"),
    (lambda: nn.Hardtanh("a"), ArgumentError, "min_val must be a number"),
    (lambda: nn.GELU("exact"), ArgumentError, "approximate must be one of 'none', 'tanh'"),
    (lambda: nn.LeakyReLU("a"), ArgumentError, "negative_slope must be a number"),
    (lambda: nn.PReLU(-1), ArgumentError, "num_parameters must be non-negative"),
    (lambda: nn.PReLU(2.0), ArgumentError, "num_parameters must be an integer"),
    (lambda: nn.RReLU(0.5, 0.25), ArgumentError, "lower must not be greater than upper"),
    (lambda: nn.RReLU(0.5, float("inf")), ArgumentError, "upper must be finite"),
    (lambda: nn.CELU(0.0), ArgumentError, "alpha must not be 0"),
    (lambda: nn.Softshrink(-0.1), ArgumentError, "lambd must not be negative"),
    (lambda: nn.Softmax(1.5), ArgumentError, "dim must be an integer"),
    (lambda: nn.GLU(None), ArgumentError, "dim must be an integer"),
]

NEED_FLOATS = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "selu",
    "silu",
    "softplus",
    "softshrink",
]

CALLS = [
    (lambda: F.relu([1.0]), DTypeError, "input must be an array"),
    (lambda: F.relu(X > 0), DTypeError, "input must be a floating point array"),
    (lambda: F.relu(X.astype(complex)), DTypeError, "input must be a real floating point array"),
    (lambda: F.hardtanh(X > 0), DTypeError, "input"),
    (lambda: F.hardtanh(X, 1.0, -1.0), ArgumentError, "min_val must not be greater"),
    (lambda: F.hardtanh(X.astype("uint8")), ArgumentError, "min_val must not be negative"),
    (lambda: F.softmax(X.astype(int), 0), DTypeError, "input"),
    (lambda: F.softmax(X, 2), ShapeError, r"dim must be between -2 and 1 for float32\[2, 3\]"),
    (lambda: F.softmax(X[0, 0], 1), ShapeError, "dim must be between -1 and 0"),
    (lambda: F.softmax(X, 0.5), ArgumentError, "dim must be an integer"),
    (lambda: F.glu(X), ShapeError, "even size along dim=-1"),
    (lambda: F.glu(X[0, 0]), ShapeError, "even size"),
    (lambda: F.glu(X, 2), ShapeError, "dim must be between -2 and 1"),
    (lambda: F.gelu(X, "exact"), ArgumentError, "approximate"),
    (lambda: F.celu(X, 0), ArgumentError, "alpha must not be 0"),
    (lambda: F.softshrink(X, -1), ArgumentError, "lambd must not be negative"),
    (lambda: F.prelu(X, jnp.ones(2)), ShapeError, "as many as input has channels"),
    (lambda: F.prelu(X[0], jnp.ones(3)), ShapeError, "as many as input has channels"),
    (lambda: F.prelu(X, jnp.ones((1, 3))), ShapeError, "weight must have shape"),
    (
        lambda: F.prelu(X, jnp.ones(3, jnp.float16)),
        DTypeError,
        "input and weight must have one dtype",
    ),
    (lambda: F.rrelu(X, 0.5, 0.25), ArgumentError, "lower must not be greater"),
    (lambda: F.rrelu(X, training=True), RngError, "rrelu draws random numbers"),
    (lambda: F.gumbel_softmax(X), RngError, "gumbel_softmax draws random numbers"),
    (lambda: nn.Softmax2d()(X), ShapeError, r"expected an input of shape \(N, C, H, W\)"),
    *[
        (lambda name=name: getattr(F, name)(X.astype(int)), DTypeError, "input must be a floating")
        for name in NEED_FLOATS
    ],
]


@pytest.mark.parametrize(("call", "error", "message"), CONSTRUCTIONS + CALLS)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("layer", [nn.Softmax(), nn.Softmin(), nn.LogSoftmax()])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3,), 0), ((3, 4), 1), ((3, 4, 2), 0), ((1, 2, 2, 2), 1)]
)
def test_an_axis_left_out_is_chosen_with_a_warning(layer, shape, axis):
    x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    with pytest.warns(UserWarning, match=f"dim={axis}"):
        chosen = layer(x)
    np.testing.assert_array_equal(chosen, type(layer)(axis)(x))


def test_the_warning_points_at_the_caller():
    with pytest.warns(UserWarning, match="softmax was called with dim=None") as caught:
        F.softmax(X)
    assert caught[0].filename == __file__


def test_softmax_converts_first():
    assert F.softmax(jnp.arange(3), 0, dtype=jnp.float32).dtype == jnp.float32
    assert F.log_softmax(X, 0, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_softmax_sums_half_precision_in_float32():
    x = jnp.zeros(4096, jnp.bfloat16)
    assert float(F.softmax(x, 0)[0]) == 1 / 4096


def test_deprecated_names_of_hardtanh_warn():
    with pytest.warns(FutureWarning, match="min_val"):
        layer = nn.Hardtanh(min_value=-3.0)
    with pytest.warns(FutureWarning, match="max_val"):
        layer = nn.Hardtanh(layer.min_val, max_value=4.0)
    assert (layer.min_val, layer.max_val) == (-3.0, 4.0)


def test_rrelu_draws_one_slope_an_element_in_training():
    layer, x = nn.RReLU(0.25, 0.75), -jnp.ones(2000)
    slopes = -np.asarray(layer(x))
    assert 0.25 <= slopes.min() < 0.26
    assert 0.74 < slopes.max() <= 0.75
    assert abs(slopes.mean() - 0.5) < 0.02
    assert len(np.unique(slopes)) > 1900
    assert not np.array_equal(slopes, -np.asarray(layer(x)))
    np.testing.assert_array_equal(layer(-x), -x)
    np.testing.assert_allclose(
        jax.grad(lambda x: F.rrelu(x, training=True, rng=KEY).sum())(x).mean(), 11 / 48, atol=0.01
    )


def test_prelu_starts_at_init():
    np.testing.assert_array_equal(nn.PReLU(3, 0.1).weight, np.full(3, 0.1, np.float32))
    assert nn.PReLU(2, dtype=jnp.bfloat16).weight.dtype == jnp.bfloat16
    assert nn.PReLU(0).weight.shape == (0,)


def test_gumbel_softmax_samples_the_categories():
    logits = jnp.log(jnp.array([0.1, 0.2, 0.7]))
    hard = F.gumbel_softmax(jnp.broadcast_to(logits, (4000, 3)), hard=True, rng=KEY)
    assert set(np.unique(hard)) == {0.0, 1.0}
    np.testing.assert_allclose(hard.mean(0), [0.1, 0.2, 0.7], atol=0.03)
    soft = F.gumbel_softmax(jnp.broadcast_to(logits, (5, 3)), tau=0.5, dim=0, rng=KEY)
    np.testing.assert_allclose(soft.sum(0), np.ones(3), rtol=1e-5)


def test_gumbel_softmax_straight_through_has_the_soft_gradient():
    logits, weights = jnp.array([[0.1, -0.3, 0.2]]), jnp.array([[1.0, 2.0, -1.0]])

    def total(logits, hard):
        return (weights * F.gumbel_softmax(logits, 0.7, hard, rng=KEY)).sum()

    np.testing.assert_allclose(
        jax.grad(total)(logits, True), jax.grad(total)(logits, False), rtol=1e-6
    )
    assert float(jnp.abs(jax.grad(total)(logits, True)).max()) > 0.01


def test_gumbel_softmax_warns_of_eps():
    with pytest.warns(UserWarning, match="eps"):
        F.gumbel_softmax(X, eps=1e-3, rng=KEY)


def test_temperature_may_be_traced():
    y = jax.jit(lambda tau: F.gumbel_softmax(X.astype(jnp.bfloat16), tau, rng=KEY))(0.5)
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "name", ["relu", "elu", "selu", "celu", "hardtanh", "leaky_relu", "rrelu", "threshold"]
)
def test_in_place_names_return_the_result(name):
    arguments = (0.5, 2.0) if name == "threshold" else ()
    x = jnp.array([-2.0, 0.25, 3.0])
    variant = getattr(F, f"{name}_")
    np.testing.assert_array_equal(variant(x, *arguments), getattr(F, name)(x, *arguments))
    assert variant.__name__ == f"{name}_"
    with pytest.raises(TypeError, match="inplace"):
        variant(x, *arguments, inplace=True)


@pytest.mark.parametrize(
    "name",
    ["relu", "relu6", "hardtanh", "softshrink", "hardshrink", "softplus", "celu", "elu", "selu"],
)
def test_nan_stays_nan_and_infinity_gives_no_nan(name):
    y = getattr(F, name)(jnp.array([jnp.nan, jnp.inf, -jnp.inf]))
    theirs = getattr(torch.nn.functional, name)(torch.tensor([np.nan, np.inf, -np.inf]))
    np.testing.assert_array_equal(y, theirs.numpy())


def test_complex_numbers_where_torch_takes_them():
    x = jnp.array([0.3 + 0.5j, -1.0 + 0.1j])
    for name in ("sigmoid", "tanh", "silu", "softsign", "tanhshrink"):
        theirs = getattr(torch.nn.functional, name)(torch.tensor(np.asarray(x))).numpy()
        np.testing.assert_allclose(getattr(F, name)(x), theirs, rtol=1e-5)


def test_parameters_and_numpy_arrays_are_taken():
    layer = nn.PReLU(3, -0.5)
    np.testing.assert_array_equal(F.relu(layer.weight), np.zeros(3))
    assert isinstance(F.softmax(np.ones((2, 2)), 0), jax.Array)


@pytest.mark.parametrize("name", ["LogSigmoid", "Sigmoid", "Softsign", "Tanh", "Tanhshrink"])
def test_layers_without_options_take_none(name):
    for library in (torch.nn, nn):
        with pytest.raises(TypeError):
            getattr(library, name)(inplace=True)
