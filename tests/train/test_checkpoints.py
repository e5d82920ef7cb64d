"""CheckpointManager: what is saved comes back, bit for bit, all of it or nothing."""

from __future__ import annotations

import json
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

import funcnets as fn
from funcnets import nn, optim
from funcnets.amp import GradScaler
from funcnets.core.cell import tickets
from funcnets.errors import (
    ArgumentError,
    CheckpointError,
    DTypeError,
    StateDictError,
    UnsupportedError,
)
from funcnets.optim.lr_scheduler import StepLR
from funcnets.train.checkpoints import CheckpointManager
from funcnets.train.data import ArrayLoader
from tests.train.checkpoint_helpers import equal

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
Y = np.linspace(0, 1, 4, dtype=np.float32).reshape(4, 1)


class Net(nn.Module):
    """Has a buffer that a state_dict leaves out, extra state, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.body[0].weight
        self.head = nn.Linear(3, 1)
        self.register_buffer("calls", nn.Buffer(jnp.zeros(()), persistent=False))
        self.note = "new"

    def forward(self, x):
        self.calls: Any = self.calls + 1.0
        return self.head(self.tied(self.body(x)))

    def get_extra_state(self):
        return {"note": self.note}

    def set_extra_state(self, state):
        self.note = state["note"]


class Run:
    """Everything that a training has."""

    def __init__(self) -> None:
        self.model: Any = Net()
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.1)
        self.items: dict[str, Any] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": StepLR(self.optimizer, 2),
            "scaler": GradScaler(),
            "loader": ArrayLoader((X, Y), batch_size=2, shuffle=True, seed=1),
        }
        self.batches: Any = iter(())

        @fn.jit
        def step(x, y):
            loss, grads = fn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(self.model)
            self.optimizer.step(grads)
            return loss

        self._step = step

    def step(self) -> float:
        while (batch := next(self.batches, None)) is None:
            self.batches = iter(self.items["loader"])
        loss = float(self._step(*batch))
        self.items["schedule"].step()
        return loss


@pytest.fixture(scope="module")
def run():
    """One compilation for all tests; each brings it into the state that it needs."""
    fn.manual_seed(0)
    made = Run()
    made.step()
    made.step()
    return made


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "run") as made:
        yield made


def test_a_run_goes_on_as_if_nothing_had_happened(run, manager):
    run.model.note = "trained"
    manager.save(2, run.items, metrics={"loss": jnp.float32(0.5)})
    losses = [run.step() for _ in range(5)]
    layer = nn.Linear(2, 2).weight.data
    after = run.model.state_dict()
    calls = float(run.model.calls.data)
    fn.manual_seed(99)
    other = Run()
    restored = manager.restore(other.items)
    assert restored[:5] == (2, {"loss": 0.5}, {}, [], [])
    assert restored.path == manager.directory / "2"
    assert other.model.note == "trained"
    assert [other.step() for _ in range(5)] == losses
    equal(nn.Linear(2, 2).weight.data, layer)
    equal(other.model.state_dict(), after)
    assert float(other.model.calls.data) == calls
    # And the same program again, in the same objects: nothing is compiled anew.
    programs = run._step._programs
    count = [len(p) for p in programs.values()]
    run.batches = iter(())
    manager.restore(run.items)
    assert [run.step() for _ in range(5)] == losses
    assert [len(p) for p in programs.values()] == count


def test_what_is_saved_is_what_was_there_at_the_call(run, manager):
    before = {n: np.array(a) for n, a in run.model.state_dict().items() if n != "_extra_state"}
    numbers = np.arange(4)
    history = {"loss": [1.0]}
    manager.save(1, {"model": run.model, "numbers": numbers, "history": history})
    run.step()  # while it is being written
    numbers += 1
    history["loss"].append(2.0)
    found = manager.restore({"model": run.model, "numbers": None, "history": None})
    for name, value in before.items():
        equal(np.asarray(run.model.state_dict()[name]), value)
    assert found.values["numbers"].tolist() == [0, 1, 2, 3]
    assert found.values["history"] == {"loss": [1.0]}


def test_lazy_layers_and_drawn_values(manager):
    fn.manual_seed(5)
    model = nn.LazyLinear(2)
    with pytest.raises(DTypeError, match=r"(?s)'model'.*shape is not known"):
        manager.save(1, {"model": model})
    model(X)
    fn.manual_seed(5)
    manager.save(1, {"model": model, "late": nn.Linear(2, 2)})
    fresh, late = nn.LazyLinear(2), nn.Linear(2, 2)
    manager.restore({"model": fresh, "late": late})
    equal(fresh.weight.data, model.weight.data)
    # The seed, and how many cells had taken a ticket, are those of the time of saving.
    assert (tickets.seed, tickets._issued) == (5, 2)


# --- everything that does not fit, and nothing changed -------------------------------------------


def test_everything_that_does_not_fit_is_said_and_nothing_changes(run, manager):
    manager.save(3, {**run.items, "epoch": 1})
    fn.manual_seed(3)
    other = Run()
    other.step()
    other.model.note = "mine"
    wrong = nn.Sequential(nn.Linear(3, 4))
    items = {**other.items, "loader": wrong, "ema": nn.Linear(1, 1), "epoch": other.model}
    del items["scaler"]
    before = other.model.state_dict(), other.optimizer.state_dict(), (tickets.seed, tickets._issued)
    with pytest.raises(StateDictError) as error:
        manager.restore(items)
    for line in (
        f"{manager.directory / '3'} does not fit",
        "ema: not in the checkpoint",
        "scaler: in the checkpoint, but not asked for",
        "Unexpected key(s) in state_dict: ",
        'Missing key(s) in state_dict: "0.weight", "0.bias"',
        "epoch: the checkpoint has a value, int, but Net came",
    ):
        assert line in str(error.value)
    after = other.model.state_dict(), other.optimizer.state_dict(), (tickets.seed, tickets._issued)
    equal(after, before)
    assert other.items["schedule"].last_epoch == 1
    other.step()


def test_strict_false_says_what_was_skipped(run, manager):
    manager.save(3, {"model": run.model, "optimizer": run.optimizer})
    model: Any = Net()
    model.extra, model.head = nn.Linear(1, 1), nn.Identity()
    with pytest.raises(StateDictError, match=r"optimizer: in the checkpoint[^$]*head.weight"):
        manager.restore({"model": model})
    assert not model.tied.bias.has_value
    found = manager.restore({"model": model, "ema": nn.Linear(1, 1)}, strict=False)
    assert found.missing_keys == ["ema", "model.extra.weight", "model.extra.bias"]
    assert found.unexpected_keys == ["optimizer", "model.head.weight", "model.head.bias"]
    equal(model.tied.bias.data, run.model.tied.bias.data)
    model.tied = nn.Linear(3, 2)  # shapes must agree all the same
    with pytest.raises(StateDictError, match="size mismatch for tied.weight"):
        manager.restore({"model": model}, strict=False)


def test_a_thing_that_fails_leaves_the_others_as_they_were(run, manager):
    class Broken:
        def state_dict(self):
            return {"x": 1}

        def load_state_dict(self, state):
            raise KeyError("gone")

    manager.save(3, {**run.items, "broken": Broken()})
    run.step()
    before = run.model.state_dict(), run.optimizer.state_dict(), float(run.model.calls.data)
    epoch = run.items["schedule"].last_epoch
    with pytest.raises(StateDictError, match="broken: 'gone'"):
        manager.restore({**run.items, "broken": Broken()})
    equal((run.model.state_dict(), run.optimizer.state_dict(), float(run.model.calls.data)), before)
    assert run.items["schedule"].last_epoch == epoch


def test_an_optimizer_that_has_not_stepped_is_so_again(run, manager):
    """Restoring must undo the load of an optimizer that had nothing, if something else fails."""
    manager.save(3, {"optimizer": run.optimizer, "model": run.model})
    fn.manual_seed(0)
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    with pytest.raises(StateDictError):
        manager.restore({"optimizer": optimizer, "model": nn.Linear(1, 1)})
    assert optimizer.state_dict()["state"] == {}


# --- refusals ---------------------------------------------------------------------------------


def test_what_cannot_be_saved(manager, tmp_path):
    for name, value in (
        ("f", print),
        ("open", {"a": [object()]}),
        ("class", Net),
        ("cell", {1, print}),
    ):
        with pytest.raises(DTypeError, match=f"a checkpoint cannot hold '{name}'"):
            manager.save(1, {name: value})
    with pytest.raises(DTypeError, match="items must be a dict"):
        manager.save(1, [1])
    for name in ("", "a/b", "..", "funcnets", "rng", "metrics", 3):
        with pytest.raises(ArgumentError, match="cannot name an item"):
            manager.save(1, {name: 1})
    with pytest.raises(ArgumentError, match="step must be non-negative"):
        manager.save(-1, {"a": 1})
    with pytest.raises(DTypeError, match="metrics must be numbers"):
        manager.save(1, {"a": 1}, metrics={"loss": "low"})
    with pytest.raises(DTypeError, match="tracer"):
        jax.jit(lambda x: manager.save(1, {"a": x}))(1.0)
    assert not manager.directory.exists()
    with pytest.raises(UnsupportedError, match="gs://"):
        CheckpointManager("gs://bucket/run")
    with pytest.raises(ArgumentError, match="keep must be positive"):
        CheckpointManager(tmp_path, keep=0)
    with pytest.raises(ArgumentError, match="keep_best needs"):
        CheckpointManager(tmp_path, keep_best=1)
    with pytest.raises(ArgumentError, match="mode must be one of"):
        CheckpointManager(tmp_path, mode="low")  # pyright: ignore[reportArgumentType]


def test_an_error_of_the_background_comes_out(manager, monkeypatch):
    manager.save(1, {"a": jnp.ones(2)}, wait=True)

    def fail(array):
        raise OSError("no space left on device")

    monkeypatch.setattr("funcnets.train._store.checksum", fail)
    manager.save(2, {"a": jnp.zeros(2)})
    with pytest.raises(CheckpointError, match=r"could not be written to .*no space left"):
        manager.save(3, {"a": jnp.zeros(2)})
    manager.save(1, {"a": jnp.zeros(2)})  # nor does it replace the one that is there
    with pytest.raises(CheckpointError, match="could not be written"):
        manager.wait()
    monkeypatch.undo()
    assert manager.steps == [1]
    assert manager.restore().values["a"].tolist() == [1.0, 1.0]
    manager.save(1, {"a": jnp.zeros(2)}, wait=True)
    assert manager.restore().values["a"].tolist() == [0.0, 0.0]


# --- devices and others' eyes ---------------------------------------------------------------------


def test_arrays_that_are_spread_over_devices(manager):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    model = nn.Linear(3, 8)
    model.weight.data = jax.device_put(model.weight.data, spread)
    value = jax.device_put(jnp.arange(8.0), spread)
    manager.save(1, {"model": model, "value": value})
    weight = model.weight.data
    model.weight.data = jax.device_put(jnp.zeros((8, 3)), spread)
    found = manager.restore({"model": model, "value": None}).values["value"]
    equal(found, value)
    equal(model.weight.data, weight)
    assert found.sharding == model.weight.data.sharding == spread
    fresh = nn.Linear(3, 8)  # says nothing of places: that of saving
    manager.restore({"model": fresh, "value": jax.ShapeDtypeStruct((8,), jnp.float32)})
    assert fresh.weight.data.sharding == spread
    # Elsewhere there is one device: they are gathered.
    record = manager.directory / "1" / "value" / "_sharding"
    record.write_text(record.read_text().replace("2", "77"))
    few = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    halves = jax.sharding.NamedSharding(few, jax.sharding.PartitionSpec("x"))
    asked = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=halves)
    found = manager.restore({"model": model, "value": asked}).values["value"]
    equal(found, value)
    assert found.sharding == halves


def test_others_can_read_it(run, manager):
    """With orbax alone, without this package."""
    manager.save(1, {"model": run.model, "epoch": 1}, wait=True)
    path = manager.directory / "1"
    assert ocp.is_orbax_checkpoint(path)
    shapes = {
        k: np.zeros(m.shape, m.dtype)
        for k, m in ocp.metadata(path, checkpointable_name="model").metadata.items()
    }
    found = ocp.load(path, shapes, checkpointable_name="model")
    equal(found["head.weight"], np.asarray(run.model.head.weight.data))
    assert "tied.weight" not in found  # it is body.0.weight, stored once
    record = (path / "funcnets" / "record.json").read_text().splitlines()
    assert json.loads(record[0])["step"] == 1 and len(record) == 3


def test_saving_from_another_thread_while_steps_run(run, manager):
    """Each checkpoint is of one moment: all parameters of the same step."""
    stop = threading.Event()

    def done() -> int:
        return int(run.optimizer.state_dict()["state"][0]["step"])

    ahead = (
        int(run.model.body[1].num_batches_tracked.data) - done()
    )  # tests restored the model alone

    def steps():
        while not stop.is_set():
            run._step(X[:2], Y[:2])

    thread = threading.Thread(target=steps)
    thread.start()
    try:
        for step in range(3):
            manager.save(step, {"model": run.model, "optimizer": run.optimizer})
    finally:
        stop.set()
        thread.join()
    for step in manager.steps:
        values = manager.restore(step=step).values
        counts = {int(s["step"]) for s in values["optimizer"]["state"].values()}
        assert len(counts) == 1
        assert int(values["model"]["body.1.num_batches_tracked"]) - counts.pop() == ahead
