"""``fit`` against a loop written by hand, over every kind of data, and its options against torch."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn, optim, train
from funcnets.errors import ArgumentError, DTypeError, ShapeError, TreeError
from funcnets.optim import lr_scheduler
from funcnets.train import run
from tests.train.helpers import Net, Setting, assert_same, batches, data, snapshot

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def shared():
    return Setting()


@pytest.fixture
def setting(shared):
    return shared.reset()


# --- the loop ---------------------------------------------------------------------------------


def test_is_the_loop_written_by_hand(setting):
    setting.model.traces.clear()
    history = setting.fit(epochs=3)
    assert_same(setting.model, setting.by_hand(9), **CLOSE)
    assert len(history) == 3 and history.step == 9
    # The two shapes of batches were compiled once each, by this or an earlier test.
    assert collections.Counter(setting.model.traces).keys() <= {(4, 3), (2, 3)}
    traced = len(setting.model.traces)
    setting.fit(epochs=3)
    assert len(setting.model.traces) == traced


def test_the_mean_loss_counts_every_example(setting):
    history = setting.fit(epochs=1)
    numbers, losses = history.steps("loss")
    assert numbers.tolist() == [1, 2, 3]
    np.testing.assert_allclose(history["loss"], np.dot(losses, [4, 4, 2]) / 10, rtol=1e-6)
    row = history.epochs[0]
    assert row["epoch"] == 1 and row["step"] == 3 and row["lr"] == 0.05
    assert row["samples_per_second"] == pytest.approx(10 / row["seconds"])


def torch_loader():
    x, y = map(torch.from_numpy, data())
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)


def grain_dataset():
    grain = pytest.importorskip("grain")
    x, y = data()
    rows = list(zip(x, y, strict=True))
    return grain.MapDataset.source(rows).batch(4)


def grain_loader():
    grain = pytest.importorskip("grain")
    x, y = data()
    rows = list(zip(x, y, strict=True))
    return grain.DataLoader(
        data_source=rows,
        sampler=grain.samplers.SequentialSampler(num_records=10),
        operations=[grain.transforms.Batch(4, drop_remainder=False)],
    )


SOURCES = {
    "list": batches,
    "array_loader": lambda: train.ArrayLoader(data(), batch_size=4),
    "torch": torch_loader,
    "grain_dataset": grain_dataset,
    "grain_loader": grain_loader,
    "function": lambda: lambda: iter(batches()),
    "function_of_epoch": lambda: lambda epoch: iter(batches()) if epoch in (1, 2) else iter(()),
    "jax_arrays": lambda: [jax.tree.map(jnp.asarray, batch) for batch in batches()],
    "sequence": lambda: collections.UserList(batches()),
}


@pytest.mark.parametrize("name", SOURCES)
def test_takes_batches_from(setting, name):
    setting.fit(SOURCES[name](), epochs=2)
    assert_same(setting.model, setting.by_hand(6), **CLOSE)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
def test_prefetching_changes_nothing(setting, prefetch):
    setting.fit(epochs=1, prefetch=prefetch)
    assert_same(setting.model, setting.by_hand(3), **CLOSE)


def test_data_without_an_end(setting):
    def forever():
        while True:
            yield from batches()

    history = setting.fit(forever(), epochs=3, steps_per_epoch=2)
    assert history["step"] == [2, 4, 6]
    assert_same(setting.model, setting.by_hand(6), **CLOSE)
    # A list that is shorter than an epoch begins again.
    setting.reset().fit(epochs=2, steps_per_epoch=4)
    assert_same(setting.model, setting.by_hand(8), **CLOSE)


def test_a_history_goes_on(setting):
    history = setting.fit(epochs=1)
    assert setting.fit(epochs=3, history=history) is history
    assert history["step"] == [3, 6, 9] and history.steps()[0].tolist() == list(range(1, 10))
    assert_same(setting.model, setting.by_hand(9), **CLOSE)
    assert len(setting.fit(epochs=0)) == 0


def test_another_device(setting):
    other = jax.devices()[1]
    seen = []
    with train.prefetch(batches(), device=other) as moved:
        seen += [leaf.devices() for batch in moved for leaf in jax.tree.leaves(batch)]
    assert seen == [{other}] * 6


# --- losses -----------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 1)

    def forward(self, a, b):
        return self.fc(a) + self.fc(b)


def test_a_loss_function_of_model_and_batch():
    model = Two()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def loss_fn(model, batch):
        error = model(batch["a"], batch["b"]) - batch["y"]
        return train.Outcome(
            jnp.mean(error**2),
            outputs=error,
            logs={"bias": jnp.mean(error), "half": 0.5},
        )

    x, y = data(6)
    rows = [{"a": x, "b": -x, "y": y}, {"a": x[:2], "b": -x[:2], "y": y[:2]}]
    expected = [train.evaluate(model, loss_fn, [row])["bias"] for row in rows]
    size = {"size": lambda error, _: jnp.mean(jnp.abs(error))}
    found = train.evaluate(model, loss_fn, rows, metrics=size)
    assert found["bias"] == pytest.approx((6 * expected[0] + 2 * expected[1]) / 8, rel=1e-5)
    assert found["half"] == 0.5 and found["size"] > 0
    history = train.fit(model, optimizer, loss_fn, rows, epochs=2, metrics=size, progress=False)
    assert history.names[:6] == ["epoch", "step", "loss", "bias", "half", "size"]
    assert history["loss"][1] < history["loss"][0]
    assert len(history.steps("bias")[0]) == 4
    by_key = train.supervised(nn.MSELoss(), inputs=["a", "b"], targets="y")
    by_name = train.supervised(nn.MSELoss(), inputs={"b": "b", "a": "a"}, targets="y")
    losses = [train.evaluate(model, way, rows)["loss"] for way in (loss_fn, by_key, by_name)]
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2])


@pytest.mark.parametrize(
    ("given", "is_criterion"),
    [
        (nn.MSELoss(), True),
        (F.mse_loss, True),
        (lambda predictions, targets: 0.0, True),
        (lambda model, batch: 0.0, False),
        (lambda m, b: 0.0, False),
    ],
)
def test_what_counts_as_a_criterion(given, is_criterion):
    from funcnets.train.objective import Supervised, loss_function

    assert isinstance(loss_function(given), Supervised) == is_criterion


# --- accumulation and clipping ----------------------------------------------------------------


def classes(samples):
    x, y = data(samples)
    return x, np.where(np.arange(samples) % 5 == 3, -100, (y[:, 0] > 0).astype(np.int32))


def torch_twin(model):
    twin = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, model.head.out_features)
    ).double()
    names = {"0.weight": "body.weight", "0.bias": "body.bias"}
    names |= {"2.weight": "head.weight", "2.bias": "head.bias"}
    start = snapshot(model)
    twin.load_state_dict({k: torch.from_numpy(start[v]).double() for k, v in names.items()})
    return twin, {v: k for k, v in names.items()}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_gradients_are_those_of_the_big_batch(reduction):
    """Uneven batches, weighted classes and ignored targets; the last group of an epoch is short."""
    x, y = classes(14)
    weight = np.array([0.3, 1.7])
    with jax.enable_x64(True):
        model = Net(2).to(jnp.float64)
        twin, names = torch_twin(model)
        cuts = [(0, 3), (3, 6), (6, 8), (8, 11), (11, 13)]
        small = [(x[a:b].astype(float), y[a:b]) for a, b in cuts]
        history = train.fit(
            model,
            optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            nn.CrossEntropyLoss(weight=weight, reduction=reduction),
            small,
            epochs=2,
            accumulate=3,
            clip_norm=0.4,
            clip_value=0.3,
            progress=False,
        )
        ours = snapshot(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    criterion = torch.nn.CrossEntropyLoss(torch.from_numpy(weight), reduction=reduction)
    losses = []
    for _ in range(2):
        for part in (slice(0, 8), slice(8, 13)):
            optimizer.zero_grad()
            target = torch.from_numpy(y[part]).long()
            loss = criterion(twin(torch.from_numpy(x[part]).double()), target)
            loss.backward()
            torch.nn.utils.clip_grad_value_(twin.parameters(), 0.3)
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.4)
            optimizer.step()
            losses.append(loss.item() / (1 if reduction == "mean" else len(target)))
    for name, key in names.items():
        expected = twin.state_dict()[key].numpy()
        np.testing.assert_allclose(ours[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(history.steps()[1], losses, rtol=1e-9)
    assert history.step == 4


# --- schedules --------------------------------------------------------------------------------


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_a_schedule(setting, every):
    scheduler = lr_scheduler.StepLR(setting.optimizer, 2, 0.5)
    logger = train.LearningRateLogger()
    epochs = {"epoch": 5, "step": 2}[every]
    history = setting.fit(
        epochs=epochs, scheduler=scheduler, scheduler_every=every, callbacks=[logger]
    )
    repeat = {"epoch": 3, "step": 1}[every]
    numbers = np.repeat(0.05 * 0.5 ** (np.arange(9) // 2), repeat)[: 3 * epochs]
    np.testing.assert_allclose(history.steps("lr")[1], numbers)
    np.testing.assert_allclose(history["lr"], numbers[2::3])
    assert scheduler.last_epoch == {"epoch": 5, "step": 6}[every]


def test_a_schedule_that_looks_at_the_loss(setting):
    scheduler = lr_scheduler.ReduceLROnPlateau(
        setting.optimizer, patience=0, threshold=10.0, threshold_mode="abs", factor=0.1
    )
    history = setting.fit(val_data=batches(10), epochs=3, scheduler=scheduler, validate_every=2)
    assert scheduler.last_epoch == 1 and len(history["val_loss"]) == 1
    setting.reset()
    history = setting.fit(epochs=3, scheduler=scheduler)
    assert history["lr"] == pytest.approx([0.05, 0.005, 0.0005])
    with pytest.raises(ArgumentError, match="scheduler_every='epoch'"):
        setting.fit(scheduler=scheduler, scheduler_every="step")
    with pytest.raises(KeyError, match="waits for 'val_los'"):
        setting.fit(scheduler=scheduler, monitor="val_los")


# --- validation -------------------------------------------------------------------------------


class Modes(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(3).eval()
        self.fc = nn.Linear(3, 1)

    def forward(self, x):
        return self.fc(self.drop(self.frozen(self.norm(x))))


def test_validation_is_in_evaluation_mode_and_modes_come_back():
    model = Modes()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    modes = []
    watch = train.LambdaCallback(
        on_validation_end=lambda run, logs: modes.append([m.training for m in model.modules()])
    )
    x, y = data(8)
    val = [(x[:4], y[:4]), (x[4:], y[4:])]
    options = {"val_data": val, "epochs": 2, "callbacks": watch, "progress": False}
    history = train.fit(model, optimizer, nn.MSELoss(), val, **options)
    own = [True, True, True, False, True]
    assert modes == [own, own] and [m.training for m in model.modules()] == own
    assert int(model.norm.num_batches_tracked) == 4
    assert int(model.frozen.num_batches_tracked) == 0
    model.eval()
    expected = float(jnp.mean((model(x) - y) ** 2))
    assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-5)
    assert train.evaluate(model, nn.MSELoss(), val)["loss"] == pytest.approx(expected, rel=1e-5)
    # A model that comes in evaluation mode is trained all the same, and goes in it.
    train.fit(model, optimizer, nn.MSELoss(), val, epochs=1, progress=False)
    assert int(model.norm.num_batches_tracked) == 6 and not any(m.training for m in model.modules())


def test_metrics_are_those_of_the_whole_data():
    model = Net(2)
    x, y = data(10)
    labels = (y[:, 0] > 0).astype(np.int32)
    rows = [(x[:4], labels[:4]), (x[4:8], labels[4:8]), (x[8:], labels[8:])]
    metrics = [train.Accuracy(), train.ConfusionMatrix(2)]
    found = train.evaluate(model, nn.CrossEntropyLoss(), rows, metrics=metrics)
    predicted = np.asarray(model(x)).argmax(1)
    assert found["accuracy"] == pytest.approx(np.mean(predicted == labels))
    matrix = np.zeros((2, 2))
    np.add.at(matrix, (labels, predicted), 1)
    np.testing.assert_array_equal(found["confusion_matrix"], matrix)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"epochs": -1}, ArgumentError, "epochs must be non-negative"),
        ({"accumulate": 0}, ArgumentError, "accumulate must be positive"),
        ({"clip_norm": 0.0}, ArgumentError, "clip_norm must be a positive number"),
        ({"clip_value": "1"}, ArgumentError, "clip_value must be a positive number"),
        ({"scheduler_every": "batch"}, ArgumentError, "scheduler_every must be one of"),
        ({"steps_per_epoch": 0}, ArgumentError, "steps_per_epoch must be positive"),
        ({"validate_every": 0}, ArgumentError, "validate_every must be positive"),
        ({"callbacks": [train.Callback]}, DTypeError, "make one, Callback"),
        ({"callbacks": [print]}, DTypeError, "a callback must be a train.Callback"),
        ({"metrics": [train.Accuracy]}, DTypeError, "such as train.Accuracy"),
        ({"metrics": {"a": 3}}, DTypeError, "a metric must be one of"),
        ({"progress": "dots"}, ArgumentError, "kind must be one of"),
        ({"resume": True}, ArgumentError, "there is none"),
        ({"resume": 3}, DTypeError, "resume must be True"),
        ({"train_data": 3}, DTypeError, "train_data must be an iterable of batches"),
        ({"train_data": np.ones((4, 3))}, DTypeError, "train.ArrayLoader"),
        ({"train_data": []}, ArgumentError, "train_data gave no batch in epoch 1"),
        ({"val_data": []}, ArgumentError, "val_data gave no batch"),
        ({"train_data": [("a", "b")]}, DTypeError, r"batch\[0\] is 'a'"),
        ({"train_data": [{"x": 1.0}]}, ArgumentError, "inputs=..., targets=..."),
        ({"train_data": iter(batches()), "epochs": 2}, ArgumentError, "only once"),
    ],
)
def test_refuses(setting, options, error, match):
    with pytest.raises(error, match=match):
        setting.fit(**options)


def test_refuses_what_is_no_model_optimizer_or_loss(setting):
    model, optimizer, criterion = setting.model, setting.optimizer, setting.criterion
    for arguments, error, match in [
        ((print, optimizer, criterion), DTypeError, "model must be an nn.Module"),
        ((model, optax_adam(), criterion), DTypeError, "optim.Optimizer\\(model.parameters\\(\\)"),
        ((nn.Linear(3, 1), optimizer, criterion), ArgumentError, "none of the model's parameters"),
        ((model, optimizer, "mse"), DTypeError, "loss_fn must be a criterion"),
        ((model, optimizer, nn.MSELoss), DTypeError, "make one, MSELoss"),
        ((model, optimizer, lambda m, b: jnp.ones(3)), ShapeError, "the loss must be one number"),
        ((model, optimizer, lambda m, b: jnp.ones((), int)), DTypeError, "floating point number"),
        ((model, optimizer, lambda m, b: None), DTypeError, "the loss must be a number"),
        ((model, optimizer, lambda m, b: (1.0, 2.0, 3.0)), DTypeError, "a tuple of 3"),
        (
            (model, optimizer, train.supervised(criterion, inputs="x", targets="y")),
            TreeError,
            "no entry",
        ),
    ]:
        with pytest.raises(error, match=match):
            train.fit(*arguments, batches(), progress=False)
    with pytest.raises(ArgumentError, match="together, or neither"):
        train.supervised(criterion, inputs="x")


def optax_adam():
    import optax

    return optax.adam(1e-3)


def test_warns_of_many_shapes(setting, monkeypatch):
    setting.fit(epochs=2)  # two shapes: nothing to say
    monkeypatch.setattr(run, "_SHAPES", 1)
    with pytest.warns(UserWarning, match="more than 1 different shapes") as caught:
        setting.fit(epochs=2)
    assert len(caught) == 1


def test_half_precision_with_a_scaler():
    """The first scales overflow: those steps are left out, and the training goes on."""
    fn.manual_seed(0)
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.001)
    scaler = fn.GradScaler(init_scale=2.0**127, backoff_factor=2.0**-20)
    seen = []
    watch = train.LambdaCallback(on_step_end=lambda run: seen.append(snapshot(run.model)))
    rows = [(x, 100 * y) for x, y in batches(5)]
    options = {"scaler": scaler, "epochs": 3, "callbacks": watch, "progress": False}
    start = snapshot(model)
    history = train.fit(model, optimizer, nn.MSELoss(), rows, **options)
    assert scaler.get_scale() == 2.0**107 and history.step == 6
    for name in start:
        np.testing.assert_array_equal(seen[0][name], start[name])
    assert any((seen[1][name] != start[name]).any() for name in start)
    assert history["loss"][-1] < history["loss"][0]


def test_a_lazy_model_learns_its_shapes_from_the_first_batch():
    model = nn.Sequential(nn.LazyLinear(2), nn.Linear(2, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    history = train.fit(model, optimizer, nn.MSELoss(), batches(5), epochs=2, progress=False)
    assert model[0].weight.shape == (2, 3) and history["loss"][1] < history["loss"][0]


def test_lbfgs_evaluates_a_batch_several_times():
    fn.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = optim.LBFGS(model.parameters(), lr=0.5, max_iter=30)
    x, y = data(10)
    history = train.fit(model, optimizer, nn.MSELoss(), [(x, y)], epochs=2, progress=False)
    assert history["loss"][1] < 1e-6 < history["loss"][0]
    with pytest.raises(ArgumentError, match="no accumulate= or scaler="):
        train.fit(model, optimizer, nn.MSELoss(), [(x, y)], accumulate=2, progress=False)
