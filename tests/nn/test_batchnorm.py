"""BatchNorm, SyncBatchNorm and InstanceNorm beyond the shared table."""

from __future__ import annotations

import copy
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import PartitionSpec as P

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ModeError, ShapeError
from funcnets.nn import functional as F

rng = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


X = normal(8, 3)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "shape"),
    [
        (nn.BatchNorm1d, (3,)),
        (nn.BatchNorm1d, (1, 3, 2, 2)),
        (nn.BatchNorm2d, (4, 3)),
        (nn.BatchNorm3d, (4, 3, 2, 2)),
        (nn.SyncBatchNorm, (3,)),
        (nn.InstanceNorm1d, (1, 4, 3, 5)),
        (nn.InstanceNorm2d, (3, 5)),
        (nn.InstanceNorm3d, (3, 5, 5)),
    ],
)
def test_inputs_of_another_rank(cls, shape):
    with pytest.raises(ShapeError, match="input"):
        cls(3)(jnp.ones(shape))


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False), nn.InstanceNorm1d(3, affine=True)],
)
@pytest.mark.parametrize("train", [True, False])
def test_inputs_with_another_number_of_channels(layer, train):
    with pytest.raises(ShapeError, match="num_features=3"):
        copy.deepcopy(layer).train(train)(jnp.ones((4, 2, 5)))


def test_instance_norm_warns_of_another_number_of_channels_where_nothing_depends_on_it():
    with pytest.warns(UserWarning, match="num_features=3"):
        nn.InstanceNorm1d(3)(normal(2, 4, 5))
    with pytest.warns(UserWarning, match="num_features"):
        torch.nn.InstanceNorm1d(3)(torch.ones(2, 4, 5))


def test_a_single_value_has_no_statistics():
    with pytest.raises(ShapeError, match="more than one value per channel"):
        nn.BatchNorm1d(3)(jnp.ones((1, 3)))
    for train in (True, False):
        with pytest.raises(ShapeError, match="more than one value per channel"):
            nn.InstanceNorm1d(3).train(train)(jnp.ones((2, 3, 1)))
    assert nn.InstanceNorm1d(3, track_running_stats=True).eval()(jnp.ones((2, 3, 1))).shape == (
        2,
        3,
        1,
    )


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: nn.BatchNorm1d(-1), ArgumentError, "num_features"),
        (lambda: nn.BatchNorm1d(3.0), ArgumentError, "num_features"),
        (lambda: nn.BatchNorm1d(3, eps=0.0)(X), ArgumentError, "eps"),
        (lambda: nn.BatchNorm1d(3, eps=-1.0).eval()(X), ArgumentError, "eps"),
        (lambda: nn.BatchNorm1d(3)(X.astype(jnp.int32)), DTypeError, "input"),
        (lambda: nn.BatchNorm1d(3, dtype=jnp.float16)(X), DTypeError, "weight"),
        (lambda: nn.SyncBatchNorm(0)(jnp.ones((4, 0))), ShapeError, "channel"),
        (lambda: nn.SyncBatchNorm(3, process_group=2), ArgumentError, "process_group"),
        (
            lambda: nn.SyncBatchNorm(3, process_group="data")(X),
            ArgumentError,
            "'data' is not mapped",
        ),
        (lambda: F.batch_norm(X, None, None), ArgumentError, "running_mean"),
        (lambda: F.batch_norm(X, X[0], None), ArgumentError, "running_mean and running_var"),
        (lambda: F.batch_norm(X, X[0], None, training=True), ArgumentError, "running_var"),
        (lambda: F.batch_norm(X, None, None, X[0, :2], training=True), ShapeError, "weight"),
        (lambda: F.batch_norm(X[0], None, None, training=True), ShapeError, "at least 2D"),
        (lambda: F.batch_norm(X, None, None, training=True, eps=0.0), ArgumentError, "eps"),
        (lambda: F.instance_norm(X), ShapeError, "more than one value"),
        (lambda: F.instance_norm(X, use_input_stats=False), ArgumentError, "running_mean"),
        (lambda: F.instance_norm(X[..., None], X[0]), ArgumentError, "running_mean"),
    ],
)
def test_what_cannot_be(call, error, match):
    with pytest.raises(error, match=match):
        call()


# --- modes and buffers ----------------------------------------------------------------------------


def test_the_pure_face_asks_for_the_mode_only_where_it_matters():
    init, apply = fn.functionalize(nn.BatchNorm1d(3))
    variables = init(jax.random.key(0))
    with pytest.raises(ModeError, match="training="):
        apply(*variables, X)
    init, apply = fn.functionalize(nn.BatchNorm1d(3, track_running_stats=False))
    assert apply(*init(jax.random.key(0)), X)[0].shape == X.shape
    init, apply = fn.functionalize(nn.InstanceNorm1d(3))
    assert apply(*init(jax.random.key(0)), X[..., None] * normal(1, 3, 5))[0].shape == (8, 3, 5)


def test_evaluation_writes_nothing_and_training_writes_all_three():
    init, apply = fn.functionalize(nn.BatchNorm1d(3))
    params, state = init(jax.random.key(0))
    _, same = apply(params, state, X, training=False)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, state, same))
    _, new = apply(params, state, X, training=True)
    assert new["num_batches_tracked"] == 1
    np.testing.assert_allclose(new["running_mean"], 0.1 * X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new["running_var"], 0.9 + 0.1 * X.var(0, ddof=1), rtol=1e-5)


def test_the_stateful_face_keeps_the_running_averages():
    layer = nn.BatchNorm1d(3, momentum=None)
    batches = [X, 2 * X, X + 1]
    for batch in batches:
        layer(batch)
    assert layer.num_batches_tracked.item() == 3
    expected = sum(batch.mean(0) for batch in batches) / 3
    np.testing.assert_allclose(np.asarray(layer.running_mean), expected, rtol=1e-5, atol=1e-6)
    layer.reset_running_stats()
    assert layer.num_batches_tracked.item() == 0
    assert (np.asarray(layer.running_var) == 1).all()


def test_tracking_can_be_switched_off_afterwards_as_in_torch():
    ours, theirs = nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    ours.track_running_stats = theirs.track_running_stats = False
    x = torch.tensor(np.array(X))
    np.testing.assert_allclose(ours(X), theirs(x).detach(), rtol=1e-5, atol=1e-5)
    assert ours.num_batches_tracked.item() == theirs.num_batches_tracked.item() == 0
    np.testing.assert_allclose(ours.eval()(X), theirs.eval()(x).detach(), rtol=1e-5, atol=1e-5)


def test_an_empty_batch_leaves_the_running_averages_as_torch_does():
    ours, theirs = nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    assert ours(X[:0]).shape == theirs(torch.ones(0, 3)).shape == (0, 3)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(np.asarray(ours.state_dict()[name]), value)


def test_no_gradient_flows_into_the_running_averages():
    init, apply = fn.functionalize(nn.BatchNorm1d(3))
    params, state = init(jax.random.key(0))
    gradient = jax.grad(lambda x: apply(params, state, x, training=True)[1]["running_var"].sum())(X)
    assert not gradient.any()


def test_a_model_in_half_precision_keeps_its_buffers_dtype():
    layer = nn.BatchNorm1d(3).half()
    assert layer(X.astype(jnp.float16)).dtype == jnp.float16
    assert layer.running_mean.dtype == jnp.float16
    mixed = nn.BatchNorm1d(3)
    assert mixed(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert mixed.running_mean.dtype == jnp.float32


def test_checkpoints_without_a_counter_load():
    old = {name: v for name, v in nn.BatchNorm1d(3).state_dict().items() if "num" not in name}
    model = nn.BatchNorm1d(3)
    model(X)
    model.load_state_dict(old)
    assert model.num_batches_tracked.item() == 1
    theirs = torch.nn.BatchNorm1d(3)
    theirs.load_state_dict({name: torch.tensor(np.array(v)) for name, v in old.items()})


def test_a_frozen_batch_norm_in_a_trained_network():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(x)

    model = Net()
    model.norm.eval()
    _, apply = fn.functionalize(model)
    params, state = fn.get_variables(model)
    _, new = apply(params, state, X, training=True)
    assert new["norm"]["num_batches_tracked"] == 0


# --- statistics over devices ----------------------------------------------------------------------


def test_the_parts_of_a_batch_are_normalised_as_the_whole():
    plain, sync = nn.BatchNorm1d(3), nn.SyncBatchNorm(3, process_group="data")
    _, whole = fn.functionalize(plain)
    _, part = fn.functionalize(sync)
    params, state = fn.get_variables(plain)
    x, target = normal(8, 3), normal(8, 3)

    def loss(params, x, target):
        y, new = whole(params, state, x, training=True)
        return jnp.sum((y - target) ** 2), (y, new)

    (_, (y, new)), expected = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        params, x, target
    )

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": (P(), (P("data"), P()))}

    @functools.partial(jax.shard_map, mesh=mesh, **specs)
    def sharded(params, x, target):
        y, new = part(params, state, x, training=True)
        return jax.lax.psum(jnp.sum((y - target) ** 2), "data"), (y, new)

    both = jax.jit(jax.value_and_grad(sharded, argnums=(0, 1), has_aux=True))
    (_, (got, got_new)), gradients = both(params, x, target)
    np.testing.assert_allclose(got, y, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got_new, new)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), gradients, expected
    )


def test_under_jit_with_a_sharded_batch_plain_batch_norm_is_synchronised():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.device_put(X, jax.sharding.NamedSharding(mesh, P("data")))
    for cls in (nn.BatchNorm1d, nn.SyncBatchNorm):
        init, apply = fn.functionalize(cls(3))
        variables = init(jax.random.key(0))
        got, new = jax.jit(lambda v, x, apply=apply: apply(*v, x, training=True))(variables, x)
        np.testing.assert_allclose(got, nn.BatchNorm1d(3)(X), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(new["running_mean"], 0.1 * X.mean(0), rtol=1e-5)


def test_evaluation_is_not_synchronised():
    layer = nn.SyncBatchNorm(3, process_group="data")
    assert layer.eval()(X).shape == X.shape
    untracked = nn.SyncBatchNorm(3, track_running_stats=False, process_group="data")
    assert untracked.eval()(X).shape == X.shape


def test_two_named_axes():
    sync = nn.SyncBatchNorm(3, process_group=("a", "b"))
    _, apply = fn.functionalize(sync)
    variables = fn.get_variables(sync)
    x = normal(2, 3, 4, 3)
    inner = jax.vmap(lambda x: apply(*variables, x, training=True)[0], axis_name="b")
    got = jax.vmap(inner, axis_name="a")(x)
    expected = nn.BatchNorm1d(3)(x.reshape(24, 3))
    np.testing.assert_allclose(got.reshape(24, 3), expected, rtol=1e-4, atol=1e-5)


def test_convert_sync_batchnorm():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.BatchNorm1d(3, eps=0.1, momentum=None)
            self.second = nn.BatchNorm2d(3, affine=False)
            self.third = self.first
            self.fourth = nn.BatchNorm1d(3, bias=False, track_running_stats=False)
            self.other = nn.InstanceNorm1d(3)

    model = Net()
    model.second.eval()
    names, weight, mean = list(model.state_dict()), model.first.weight, model.second.running_mean
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model, "data")
    assert converted is model
    assert list(model.state_dict()) == names
    for layer in (model.first, model.second, model.fourth):
        assert isinstance(layer, nn.SyncBatchNorm)
        assert layer.process_group == "data"
    assert model.third is model.first
    assert model.first.weight is weight
    assert model.second.running_mean is mean
    assert (model.first.eps, model.first.momentum) == (0.1, None)
    assert not model.second.training
    assert model.fourth.bias is None
    assert isinstance(model.other, nn.InstanceNorm1d)
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm3d(3)), nn.SyncBatchNorm)


def test_instance_norm_with_the_defaults_never_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.InstanceNorm2d(3)(normal(2, 3, 4, 4))


def test_a_lazy_norm_is_converted_after_its_first_call():
    model = nn.Sequential(nn.Linear(4, 3), nn.LazyBatchNorm1d())
    with pytest.raises(ArgumentError, match="first call"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(model[1]) is nn.LazyBatchNorm1d
    model(jnp.ones((2, 4)))
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(model)[1]) is nn.SyncBatchNorm
