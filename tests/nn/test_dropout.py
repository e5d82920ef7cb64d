"""Dropout: what is dropped, how often, with which key, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ModeError, RngError, ShapeError

KEY = jax.random.key(1)
LAYERS = [
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
]
FUNCTIONS = [
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
]
#: The two leading axes of each are drawn for.
SHAPES = [(40, 50), (40, 50, 2), (40, 50, 2, 2), (40, 50, 1, 2, 2), (40, 50), (40, 50, 2)]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), "a"])
def test_probability_is_checked(layer, p):
    with pytest.raises(ArgumentError, match=r"p, the|p must"):
        layer(p)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_check_probability_and_key(function):
    x = jnp.ones((2, 3, 4) if function is F.dropout1d else (2, 3, 4, 4))
    if function is F.dropout3d:
        x = x[None]
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        function(x, 2.0, True)
    with pytest.raises(RngError, match="draws random numbers"):
        function(x, 0.5, True)
    for p, training in ((0.0, True), (1.0, True), (0.5, False)):
        function(x, p, training)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: F.dropout1d(jnp.ones(3), rng=KEY), ShapeError, r"shape \(N, C, L\) or \(C, L\)"),
        (
            lambda: F.dropout1d(jnp.ones((1, 2, 3, 4)), 0.0),
            ShapeError,
            "use dropout for other ranks",
        ),
        (
            lambda: F.feature_alpha_dropout(jnp.ones(3), training=True, rng=KEY),
            ShapeError,
            "at least 2D",
        ),
        (lambda: F.dropout(jnp.arange(3), rng=KEY), DTypeError, "floating point"),
        (lambda: F.alpha_dropout(jnp.ones(3, complex), training=True, rng=KEY), DTypeError, "real"),
        (lambda: F.dropout([1.0], rng=KEY), DTypeError, "must be an array"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("function", "shape", "message"),
    [
        (F.dropout2d, (2, 3, 4), "use dropout1d for this"),
        (F.dropout2d, (2, 3), "use dropout for other ranks"),
        (F.dropout3d, (2, 3), "use dropout for other ranks"),
    ],
)
def test_ranks_that_torch_warns_of(function, shape, message):
    name = function.__name__
    with pytest.warns(UserWarning, match=message):
        y = function(jnp.ones(shape), 0.5, rng=KEY)
    with pytest.warns(UserWarning, match=name):
        getattr(torch.nn.functional, name)(torch.ones(shape))
    assert y.shape == shape
    with pytest.warns(UserWarning, match=name), pytest.raises(ShapeError, match=name):
        function(jnp.ones(() if name == "dropout3d" else 3), 0.5, rng=KEY)


@pytest.mark.parametrize(("function", "shape"), list(zip(FUNCTIONS, SHAPES, strict=True)))
@pytest.mark.parametrize("p", [0.3, 0.8])
def test_values_and_frequency_are_torch_s(function, shape, p):
    """A kept and a dropped element have torch's two values, whole channels at a time."""
    ours = np.asarray(function(jnp.ones(shape), p, True, rng=KEY))
    torch.manual_seed(0)
    theirs = getattr(torch.nn.functional, function.__name__)(torch.ones(shape), p, True).numpy()
    np.testing.assert_allclose(np.unique(ours), np.unique(theirs), rtol=1e-5)
    flat = ours.reshape(*shape[:2], -1)
    np.testing.assert_array_equal(flat, np.broadcast_to(flat[..., :1], flat.shape))
    dropped = (flat[..., 0] == flat.min()).mean()
    assert abs(dropped - p) < 0.05


@pytest.mark.parametrize(
    ("function", "shape"), [(F.dropout1d, (50, 9)), (F.dropout3d, (50, 3, 3, 3))]
)
def test_unbatched_input_drops_channels(function, shape):
    rows = np.asarray(function(jnp.ones(shape), rng=KEY)).reshape(50, -1)
    assert set(rows.sum(1)) == {0.0, 2.0 * rows.shape[1]}


@pytest.mark.parametrize("function", [F.alpha_dropout, F.feature_alpha_dropout])
def test_alpha_dropout_keeps_mean_and_variance(function):
    x = jax.random.normal(jax.random.key(3), (200, 200))
    y = function(x, 0.4, True, rng=KEY)
    assert abs(float(y.mean())) < 0.02
    assert abs(float(y.var()) - 1) < 0.03


@pytest.mark.parametrize(
    "layer", [nn.Dropout, nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout]
)
def test_gradient_goes_to_what_is_kept(layer):
    _, apply = fn.functionalize(layer(0.5))
    x = jax.random.normal(KEY, (4, 5, 3))

    def forward(x):
        return apply({}, {}, x, rng=KEY, training=True)[0]

    gradient = jax.grad(lambda x: forward(x).sum())(x)
    rest, scales = np.asarray(forward(x) - gradient * x), np.unique(gradient)
    assert scales[0] == 0
    assert len(scales) == 2
    # Within the kept and within the dropped, what does not depend on x is one number.
    spreads = [np.ptp(rest[np.asarray(gradient) == scale]) for scale in scales]
    np.testing.assert_allclose(spreads, 0, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Dropout, nn.AlphaDropout])
def test_mode_and_key_are_asked_for_only_where_they_matter(layer):
    x = jnp.ones((2, 3))
    _, apply = fn.functionalize(layer(0.5))
    with pytest.raises(ModeError, match="training=True"):
        apply({}, {}, x, rng=KEY)
    with pytest.raises(RngError, match=layer.__name__):
        apply({}, {}, x, training=True)
    np.testing.assert_array_equal(apply({}, {}, x, training=False)[0], x)
    np.testing.assert_array_equal(fn.functionalize(layer(0.0))[1]({}, {}, x)[0], x)
    np.testing.assert_array_equal(
        fn.functionalize(layer(1.0))[1]({}, {}, x, training=True)[0], 0 * x
    )


def test_calls_and_places_draw_differently_and_seeds_repeat():
    x = jnp.ones(100)
    model = nn.Dropout()
    first, second = model(x), model(x)
    assert not np.array_equal(first, second)
    fn.manual_seed(0)
    again = nn.Dropout()
    np.testing.assert_array_equal(again(x), first)
    np.testing.assert_array_equal(again.eval()(x), x)


def test_rounded_scale_of_half_precision_is_torch_s():
    y = F.dropout(jnp.ones(50, jnp.bfloat16), 0.1, rng=KEY)
    theirs = torch.nn.functional.dropout(torch.ones(50, dtype=torch.bfloat16), 0.1)
    assert float(y.max()) == theirs.max().item()


def test_infinite_values_that_are_dropped_become_zero():
    y = F.dropout(jnp.full(50, jnp.inf), rng=KEY)
    assert not np.isnan(y).any()
