"""RNN, LSTM, GRU and their cells beyond the shared table; packed inputs are in test_utils_rnn.py."""

from __future__ import annotations

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import PartitionSpec as P

import funcnets as fn
from funcnets import nn
from funcnets.errors import (
    ArgumentError,
    DTypeError,
    ModeError,
    RngError,
    ShapeError,
    UnsupportedError,
)
from funcnets.nn import functional as F

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2, 3)), jnp.float32)
H = jnp.zeros((1, 2, 4))


# --- construction ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "match"),
    [
        ((0, 4), {}, "input_size"),
        ((3, 0), {}, "hidden_size"),
        ((3.0, 4), {}, "input_size"),
        ((3, 4, 0), {}, "num_layers"),
        ((3, 4), {"bias": 1}, "bias"),
        ((3, 4), {"batch_first": 1}, "batch_first"),
        ((3, 4, 2), {"dropout": 1.5}, "dropout"),
        ((3, 4, 2), {"dropout": True}, "dropout"),
        ((3, 4, 2), {"dropout": "a"}, "dropout"),
    ],
)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_options_that_cannot_be(name, args, kwargs, match):
    with pytest.raises(ArgumentError, match=match):
        getattr(nn, name)(*args, **kwargs)
    with pytest.raises((ValueError, TypeError)):
        getattr(torch.nn, name)(*args, **kwargs)


@pytest.mark.parametrize("proj_size", [-1, 4, 5])
def test_projections_that_cannot_be(proj_size):
    with pytest.raises(ArgumentError, match="proj_size"):
        nn.LSTM(3, 4, proj_size=proj_size)


def test_options_that_a_kind_does_not_have():
    for cls in (nn.RNN, nn.GRU):
        with pytest.raises(TypeError, match="proj_size"):
            cls(3, 4, proj_size=2)
    for cls in (nn.RNN, nn.RNNCell):
        with pytest.raises(ArgumentError, match="nonlinearity"):
            cls(3, 4, nonlinearity="sigmoid")


def test_dropout_of_a_single_layer_warns():
    with pytest.warns(UserWarning, match="num_layers=1") as caught:
        nn.LSTM(3, 4, dropout=0.5)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.LSTM(3, 4, 2, dropout=0.5)


def test_the_base_class_has_modes_and_no_forward():
    base = nn.RNNBase("GRU", 3, 4)
    assert base.weight_ih_l0.shape == (12, 3)
    with pytest.raises(UnsupportedError, match="forward"):
        base(X)
    with pytest.raises(ArgumentError, match="mode"):
        nn.RNNBase("GRU2", 3, 4)


@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 2}],
)
def test_all_weights_are_torchs(options):
    ours, theirs = nn.LSTM(3, 4, **options), torch.nn.LSTM(3, 4, **options)
    shapes = [[tuple(w.shape) for w in group] for group in theirs.all_weights]
    assert [[w.shape for w in group] for group in ours.all_weights] == shapes
    assert ours.all_weights[0][0] is ours.weight_ih_l0
    ours.flatten_parameters()


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_parameters_start_as_torchs_do(name):
    bound = 1 / math.sqrt(50)
    ours = dict(getattr(nn, name)(30, 50).named_parameters())
    theirs = dict(getattr(torch.nn, name)(30, 50).named_parameters())
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        got, expected = np.asarray(ours[key]), value.detach().numpy()
        assert abs(got).max() <= bound
        assert abs(expected).max() <= bound
        np.testing.assert_allclose(got.std(), bound / math.sqrt(3), rtol=0.25)


# --- refusals of a call ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "args", "error", "match"),
    [
        (nn.GRU, (X[None],), ShapeError, "2D .unbatched. or 3D"),
        (nn.GRU, (X[0, 0],), ShapeError, "2D .unbatched. or 3D"),
        (nn.GRU, (X[..., :2],), ShapeError, "input_size=3"),
        (nn.GRU, (X[:0],), ShapeError, "at least one step"),
        (nn.GRU, (X.astype(jnp.float16),), DTypeError, "dtype float32"),
        (nn.GRU, (X, H[:, :1]), ShapeError, r"hx of shape \(1, 2, 4\)"),
        (nn.GRU, (X, H[0]), ShapeError, "hx"),
        (nn.GRU, (X[:, 0], H), ShapeError, r"hx of shape \(1, 4\)"),
        (nn.GRU, (X, H.astype(jnp.bfloat16)), DTypeError, "hx"),
        (nn.RNN, (X, H[..., :3]), ShapeError, "hx"),
        (nn.LSTM, (X, H), ArgumentError, "hx must be a pair"),
        (nn.LSTM, (X, (H,)), ArgumentError, "hx must be a pair"),
        (nn.LSTM, (X, (H, H[..., :3])), ShapeError, r"hx\[1\]"),
        (nn.LSTM, (X, (H[0], H[0])), ShapeError, r"hx\[0\]"),
        (nn.RNNCell, (X,), ShapeError, "1D .unbatched. or 2D"),
        (nn.RNNCell, (X[0, :, :2],), ShapeError, "input_size=3"),
        (nn.RNNCell, (X[0], H[0, :1]), ShapeError, r"hx of shape \(2, 4\)"),
        (nn.RNNCell, (X[0], H[0, 0]), ShapeError, "hx"),
        (nn.RNNCell, (X[0, 0], H[0]), ShapeError, r"hx of shape \(4,\)"),
        (nn.RNNCell, (X[0].astype(jnp.float16),), DTypeError, "input"),
        (nn.GRUCell, (X[0], H), ShapeError, "hx"),
        (nn.LSTMCell, (X[0], H[0]), ArgumentError, "hx must be a pair"),
        (nn.LSTMCell, (X[0], (H[0], H[0, :, :3])), ShapeError, r"hx\[1\]"),
    ],
)
def test_arguments_that_do_not_fit(cls, args, error, match):
    with pytest.raises(error, match=match):
        cls(3, 4)(*args)


def test_a_flat_list_of_another_length():
    weights = [jnp.ones((12, 3)), jnp.ones((12, 4))]
    with pytest.raises(ArgumentError, match="params"):
        F.gru(X, None, weights)
    with pytest.raises(ArgumentError, match="params"):
        F.gru(X, None, [*weights, jnp.ones((2, 4))], has_biases=False)
    with pytest.raises(ShapeError, match="mask"):
        F.gru(X, None, weights, has_biases=False, mask=jnp.ones((2, 5), bool))


def test_an_empty_batch():
    output, state = nn.GRU(3, 4)(X[:, :0])
    assert (output.shape, state.shape) == ((5, 0, 4), (1, 0, 4))


# --- behaviour ------------------------------------------------------------------------------------


def test_dropout_between_layers_needs_a_mode_and_a_key():
    init, apply = fn.functionalize(nn.GRU(3, 4, 2, dropout=0.5))
    variables = init(jax.random.key(0))
    with pytest.raises(ModeError, match="training="):
        apply(*variables, X)
    with pytest.raises(RngError, match="rng"):
        apply(*variables, X, training=True)
    first, again, other = (
        apply(*variables, X, training=True, rng=jax.random.key(k))[0][0] for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    init, apply = fn.functionalize(nn.GRU(3, 4, 2))
    apply(*init(jax.random.key(0)), X)  # without dropout neither matters


def test_dropout_drops_the_output_of_all_layers_but_the_last():
    layer = nn.RNN(3, 40, 2, dropout=1.0)
    output, _ = layer(X)
    zeros = jnp.zeros((5, 2, 40))
    expected, _ = F.rnn_tanh(zeros, None, layer.all_weights[1])
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_a_masked_step_is_no_step():
    layer = nn.LSTM(3, 4, bidirectional=True)
    weights = [w for group in layer.all_weights for w in group]
    mask = jnp.array([[True, True]] * 3 + [[True, False]] * 2)
    output, h, c = F.lstm(X, None, weights, bidirectional=True, mask=mask)
    short, (h_short, c_short) = layer(X[:3, 1])
    np.testing.assert_allclose(output[:3, 1], short, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h[:, 1], h_short, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(c[:, 1], c_short, rtol=1e-5, atol=1e-6)


def test_the_mask_may_be_traced():
    layer = nn.GRU(3, 4)
    weights = layer.all_weights[0]

    @jax.jit
    def run(x, lengths):
        mask = jnp.arange(5)[:, None] < lengths[None]
        return F.gru(x, None, [w.data for w in weights], mask=mask)[1]

    got = run(X, jnp.array([2, 5]))
    np.testing.assert_allclose(got[:, 0], layer(X[:2, 0])[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[:, 1], layer(X[:, 1])[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_loop_over_the_cell_is_the_layer(name):
    layer, cell = getattr(nn, name)(3, 4), getattr(nn, f"{name}Cell")(3, 4)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    state, outputs = None, []
    for x in X:
        state = cell(x, state)
        outputs.append(state[0] if name == "LSTM" else state)
    np.testing.assert_allclose(jnp.stack(outputs), layer(X)[0], rtol=1e-5, atol=1e-6)


def test_under_shard_map():
    layer = nn.LSTM(3, 4, 2, bidirectional=True)
    _, apply = fn.functionalize(layer)
    variables = fn.get_variables(layer)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P(None, "data")), "out_specs": P(None, "data")}
    sharded = jax.shard_map(lambda v, x: apply(*v, x)[0][0], mesh=mesh, **specs)
    np.testing.assert_allclose(jax.jit(sharded)(variables, X), layer(X)[0], rtol=1e-5, atol=1e-6)


def test_in_float64():
    with jax.enable_x64(True):
        layer = nn.GRU(3, 4, dtype=jnp.float64)
        x = jnp.ones((5, 2, 3), jnp.float64)
        assert layer(x)[0].dtype == jnp.float64
