"""``fn.jit`` on several devices: arrays on a mesh stay as they lie, and one trace is enough."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import funcnets as fn
from funcnets import amp, nn, optim
from funcnets.optim import swa_utils
from tests.core.toys import stepper

X = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
Y = np.ones((8, 8), np.float32)
OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01, amsgrad=True),
}


def mesh_of(kind: AxisType = AxisType.Auto, **axes: int) -> jax.sharding.Mesh:
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(kind,) * len(axes))


def mlp() -> nn.Sequential:
    fn.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.1), nn.Linear(16, 8))


def place(model: nn.Module, mesh: jax.sharding.Mesh, rule) -> dict[str, NamedSharding]:
    """Every parameter as ``rule(name, cell)`` says; buffers are bound to no device."""
    places = {}
    for name, cell in model.named_parameters():
        places[name] = NamedSharding(mesh, rule(name, cell))
        cell.data = jax.device_put(cell.data, places[name])
    return places


def losses(step, batch, steps: int = 3) -> list[float]:
    return [float(step(*batch)) for _ in range(steps)]


def settled(step, traces: int = 1) -> bool:
    """Whether the last program was traced and compiled once, and all traces are so many."""
    return (step._last.compiled._cache_size(), len(step.traces)) == (1, traces)


def fully(name, cell):  # parameters, gradients and moments in parts, the batch in parts
    return P("data")


def tensors(name, cell):  # the first layer by its outputs, the second by its inputs
    return {"0.weight": P("model"), "0.bias": P("model"), "3.weight": P(None, "model")}.get(
        name, P()
    )


LAYOUTS: dict[str, tuple[dict[str, Any], Any]] = {
    "data": ({"data": 4}, lambda name, cell: P()),
    "fully": ({"data": 4}, fully),
    "tensors": ({"data": 2, "model": 2}, tensors),
}


@pytest.fixture(scope="module")
def expected():
    """The losses on one device, by optimizer."""
    found = {}
    for name, make in OPTIMIZERS.items():
        model = mlp()
        found[name] = losses(stepper(model, make(model.parameters())), (X, Y))
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_kept_by_one_program_with_the_numbers_of_one_device(layout, name, expected):
    axes, rule = LAYOUTS[layout]
    mesh = mesh_of(**axes)
    model = mlp()
    places = place(model, mesh, rule)
    optimizer = OPTIMIZERS[name](model.parameters())
    step = stepper(model, optimizer)
    batch = jax.device_put((X, Y), NamedSharding(mesh, P("data")))
    before: list[Any] = [cell._value for cell in model.parameters()]
    for cell in model.parameters():
        cell._lent = False  # nobody else holds them: they are donated as they are
    np.testing.assert_allclose(losses(step, batch), expected[name], rtol=1e-5)
    assert settled(step)
    assert all(value.is_deleted() for value in before)
    for key, cell in model.named_parameters():
        assert cell.data.sharding == places[key]
        for moment in optimizer.state[cell].values():
            if jnp.shape(moment) == cell.shape:
                assert moment.sharding == places[key]
    step(*batch)
    assert settled(step)


def test_what_is_written_anew_lies_as_before():
    mesh = mesh_of(data=4)
    rows = NamedSharding(mesh, P("data"))
    model = nn.Module()
    model.table = nn.Buffer(jnp.ones((8, 3)), device=rows)
    model.count = nn.Buffer(jnp.zeros(()))
    held = model.table.data

    @fn.jit
    def step(x):
        model.table = jnp.broadcast_to(x, (8, 3))  # XLA would have it on every device
        model.count = model.count + 1

    for i in range(3):
        step(jnp.float32(i))
        assert model.table.data.sharding == rows
    assert model.table.tolist() == [[2.0] * 3] * 8 and model.count.item() == 3
    assert held.tolist() == [[1.0] * 3] * 8  # copied before it was donated
    assert step._last.compiled._cache_size() == 1


def test_another_layout_is_followed_by_one_more_trace():
    mesh = mesh_of(data=2, model=2)
    model = mlp()
    place(model, mesh, lambda name, cell: P())
    step = stepper(model, optim.SGD(model.parameters(), lr=0.1))
    first = losses(step, (X, Y))
    places = place(model, mesh, tensors)
    second = losses(step, (X, Y))
    assert settled(step, traces=2)
    assert {name: cell.data.sharding for name, cell in model.named_parameters()} == places
    alone = mlp()
    same = losses(stepper(alone, optim.SGD(alone.parameters(), lr=0.1)), (X, Y), 6)
    np.testing.assert_allclose(first + second, same, rtol=1e-5)


def test_loading_and_converting_leave_the_layout():
    mesh = mesh_of(data=4)
    rows, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    model = mlp().to(everywhere)
    first: Any = model[0]
    first.weight.convert(device=rows)
    twin = mlp()
    first = twin[0]
    first.weight.data = jax.device_put(first.weight.data, rows)
    for m in (model, twin):
        optimizer = optim.Adam(m.parameters())
        step = stepper(m, optimizer)
        step(X, Y)
        for thing in (m, optimizer):
            thing.load_state_dict(jax.tree.map(_host, thing.state_dict()))
        losses(step, (X, Y))
        first, last = m.get_parameter("0.weight"), m.get_parameter("3.weight")
        assert first.data.sharding == rows and last.data.sharding == everywhere
        assert optimizer.state[first]["exp_avg"].sharding == rows
        assert settled(step)


def _host(leaf):
    return np.array(leaf) if isinstance(leaf, jax.Array) else leaf


def test_two_programs_agree():
    mesh = mesh_of(data=4)
    model = mlp()
    places = place(model, mesh, fully)
    steps = [stepper(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9)) for _ in "ab"]
    for _ in range(3):
        for step in steps:
            step(X, Y)
    assert all(settled(step) for step in steps)
    assert {name: cell.data.sharding for name, cell in model.named_parameters()} == places


def test_a_batch_in_parts_takes_a_model_along_that_lies_nowhere_in_particular():
    # The parameters are in packs at first, which XLA may cut like the batch, but 3 is no multiple of 4.
    mesh = mesh_of(data=4)
    fn.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 3), nn.Linear(3, 8))
    step = stepper(model, optim.Adam(model.parameters()))
    batch = jax.device_put((X, Y), NamedSharding(mesh, P(None, "data")))
    step(*batch)
    assert len(model[0].bias.data.sharding.device_set) == 4
    losses(step, batch)
    assert settled(step, traces=2)


def test_a_mesh_of_one_device_is_a_mesh():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    columns = NamedSharding(mesh, P(None, "data"))
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4))).to(columns)
    step = stepper(model, optim.Adam(model.parameters()))
    losses(step, (X, Y))
    assert settled(step) and model[0].weight.data.sharding == columns


def test_explicit_axes():
    mesh = mesh_of(AxisType.Explicit, data=2, model=2)
    batch = jax.device_put((X, Y), NamedSharding(mesh, P("data")))
    found = []
    for rule in (lambda name, cell: P("model"), None):
        fn.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        places = place(model, mesh, rule) if rule else {}
        step = stepper(model, optim.Adam(model.parameters(), lr=0.01))
        found.append(losses(step, batch if rule else (X, Y)))
        assert len(step.traces) == 1
        assert all(model.get_parameter(name).data.sharding == s for name, s in places.items())
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_stack():
    mesh = mesh_of(data=4)
    rows = NamedSharding(mesh, P("data"))
    fn.manual_seed(1)
    blocks = nn.Stack(nn.Linear(8, 8) for _ in range(3))
    same = [cell.data for cell in blocks.parameters()]
    blocks.to(rows)
    step = stepper(blocks, optim.Adam(blocks.parameters(), lr=0.01))
    got = losses(step, (X, Y))
    assert settled(step)
    for cell in blocks.parameters():
        assert cell.data.sharding.is_equivalent_to(rows, cell.ndim)
    alone = nn.Stack(nn.Linear(8, 8) for _ in range(3))
    for cell, value in zip(alone.parameters(), same, strict=True):
        cell.data = np.asarray(value)
    one = losses(stepper(alone, optim.Adam(alone.parameters(), lr=0.01)), (X, Y))
    np.testing.assert_allclose(got, one, rtol=1e-5)


def test_averages_scalers_and_cells_that_change_their_shape():
    mesh = mesh_of(data=4)
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8))
    places = place(model, mesh, fully)
    model.seen = nn.Buffer(jnp.zeros((4, 2)), device=NamedSharding(mesh, P("data")))
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = optim.Adam(model.parameters())
    scaler = amp.GradScaler()
    traces = []

    @fn.jit
    def step(x, y):
        traces.append(1)
        rule = fn.value_and_grad(lambda m: scaler.scale(((m(x) - y) ** 2).mean()))
        loss, grads = rule(model)
        scaler.step(optimizer, grads)
        scaler.update()
        average.update_parameters(model)
        return loss

    losses(step, (X, Y))
    assert len(traces) == 1 and step._last.compiled._cache_size() == 1
    for name, cell in model.named_parameters():
        assert cell.data.sharding == places[name]
        assert dict(average.module.named_parameters())[name].data.sharding == places[name]

    @fn.jit
    def grow():
        model.seen = jnp.concatenate([model.seen, jnp.ones((1, 2))])

    grow()
    grow()
    assert model.seen.shape == (6, 2)
