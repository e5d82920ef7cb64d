"""Early stopping, learning rates, TensorBoard, checkpoints: each within a real training."""

from __future__ import annotations

import copy

import jax.numpy as jnp
import numpy as np
import pytest

from funcnets import train
from funcnets.errors import ArgumentError, DTypeError, StateDictError
from funcnets.optim import lr_scheduler
from funcnets.train.callbacks import Monitor
from tests.train.helpers import Setting, assert_same, batches, data, snapshot


@pytest.fixture(scope="module")
def shared():
    return Setting()


@pytest.fixture
def setting(shared):
    return shared.reset()


class Values(train.Callback):
    """Puts chosen values into the rows, before other callbacks see them."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def on_epoch_end(self, run, logs):
        run.history.epochs[-1][self.name] = self.values[run.epoch - 1]


# --- the interface ----------------------------------------------------------------------------


def test_the_order_of_events(setting):
    seen = []
    names = [n for n in vars(train.Callback) if n.startswith("on_")]
    watch = train.LambdaCallback(**{n: lambda run, *_, n=n: seen.append(n[3:]) for n in names})
    setting.fit(val_data=batches(10), epochs=1, callbacks=watch)
    assert [e for e in seen if e != "step_logs"] == [
        "fit_start",
        "epoch_start",
        *["step_end"] * 3,
        "validation_start",
        "validation_end",
        "epoch_end",
        "fit_end",
    ]
    assert seen.count("step_logs") == 3
    assert seen.index("step_logs") > seen.index("step_end") and "exception" not in seen


def test_what_a_callback_sees(setting):
    rows = []

    def look(run):
        rows.append((run.epoch, run.epochs, run.batch, run.batches, run.step, run.samples))
        run.drain()
        assert run.history.step == run.step and run.logs()["loss"] > 0
        assert run.metrics() == {} and run.model is setting.model

    setting.fit(epochs=2, callbacks=train.LambdaCallback(on_step_end=look))
    assert rows[0] == (1, 2, 1, 3, 1, 4) and rows[-1] == (2, 2, 3, 3, 6, 10)


def test_lambda_callbacks_refuse_other_names():
    with pytest.raises(ArgumentError, match="on_epoch_end.*but not 'on_epoch'"):
        train.LambdaCallback(on_epoch=print)
    with pytest.raises(DTypeError, match="must be a function"):
        train.LambdaCallback(on_epoch_end=3)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_loss", "min"),
        ("val_accuracy", "max"),
        ("top1_acc", "max"),
        ("val_f1_macro", "max"),
        ("accuracy_loss", "min"),
        ("perplexity", "min"),
    ],
)
def test_which_direction_is_better(name, mode):
    monitor = Monitor(name)
    assert monitor.mode == mode and not monitor.better(np.nan, monitor.worst)
    assert monitor.better(1.0, 2.0) == (mode == "min")


# --- early stopping ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options", "stopped", "best"),
    [
        ([5, 4, 4, 4, 3, 3, 3], {"patience": 2}, 4, 2),
        ([5, 4, 4, 3, 3, 3, 3], {"patience": 2}, 6, 4),
        ([5, 4, 3, 2, 1, 0, 0], {"patience": 2}, 0, 6),
        ([5, 3.9, 2.8, 1.7, 0.6, -1, -3], {"patience": 2, "min_delta": 1.0}, 0, 7),
        ([5, 4.5, 4.2, 3.5, 3, 2.5, 2], {"patience": 2, "min_delta": 1.0}, 3, 1),
        ([1, 2, 2, 2, 2, 2, 2], {"patience": 2, "mode": "max"}, 4, 2),
        ([5, 6, 4, 4, 4, 4, 4], {"patience": 1, "start_epoch": 3}, 4, 3),
        ([5, 4, 4, 4, 4, 4, 4], {"patience": 3, "baseline": 3.0}, 3, 0),
        ([5, np.nan, 4, 4, 4, 4, 4], {"patience": 2}, 5, 3),
    ],
)
def test_early_stopping(setting, values, options, stopped, best):
    early = train.EarlyStopping("score_loss", **options)
    history = setting.fit(epochs=7, callbacks=[Values("score_loss", values), early])
    assert (early.stopped_epoch, early.best_epoch) == (stopped, best)
    assert len(history) == (stopped or 7)


def test_early_stopping_gives_the_best_parameters_back(setting):
    kept = []
    early = train.EarlyStopping("x", patience=2, restore_best=True)
    keep = train.LambdaCallback(on_epoch_end=lambda run, logs: kept.append(snapshot(run.model)))
    setting.fit(epochs=9, callbacks=[Values("x", [3, 1, 2, 2, 0]), early, keep])
    assert early.stopped_epoch == 4
    assert_same(setting.model, kept[1])


def test_early_stopping_wants_its_value(setting):
    with pytest.raises(ArgumentError, match="watches 'val_loss'.*pass val_data"):
        setting.fit(epochs=1, callbacks=train.EarlyStopping())
    # An epoch without a validation is passed over.
    early = train.EarlyStopping(patience=1)
    setting.fit(epochs=4, val_data=batches(10), validate_every=2, callbacks=early)
    assert early.best_epoch == 4


# --- learning rates ---------------------------------------------------------------------------


def test_learning_rates_of_several_groups():
    setting = Setting()
    body, head = setting.model.body, setting.model.head
    groups = [
        {"params": body.parameters(), "momentum": 0.5},
        {"params": head.parameters(), "lr": 0.2},
    ]
    from funcnets import nn, optim

    optimizer = optim.SGD(groups, lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
    loggers = [train.LearningRateLogger(every, ("lr", "momentum")) for every in ("step", "epoch")]
    history = train.fit(
        setting.model,
        optimizer,
        nn.MSELoss(),
        batches(5),
        epochs=2,
        scheduler=scheduler,
        callbacks=loggers,
        progress=False,
    )
    assert history.steps("lr")[1].tolist() == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert history.steps("lr_1")[1].tolist() == pytest.approx([0.2, 0.2, 0.1, 0.1])
    assert history["lr_1"] == pytest.approx([0.2, 0.1]) and history["momentum"] == [0.5, 0.5]


# --- TensorBoard ------------------------------------------------------------------------------


def test_tensorboard_files_are_read_back(setting, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = train.TensorBoard(tmp_path / "run", histograms=2)
    history = setting.fit(epochs=2, val_data=batches(10), callbacks=board)
    sparse = train.TensorBoard(tmp_path / "sparse", every=2)
    history = setting.fit(epochs=3, history=history, callbacks=sparse)
    events = EventAccumulator(str(tmp_path / "run"), {"scalars": 0, "histograms": 0}).Reload()
    tags = events.Tags()
    assert {"step/loss", "step/lr", "epoch/loss", "epoch/val_loss"} <= set(tags["scalars"])
    assert "parameters/body.weight" in tags["histograms"]
    read = [(event.step, event.value) for event in events.Scalars("step/loss")]
    np.testing.assert_allclose(read, list(zip(*history.steps(), strict=True))[:6], rtol=1e-6)
    epochs = [event.value for event in events.Scalars("epoch/val_loss")]
    np.testing.assert_allclose(epochs, history["val_loss"], rtol=1e-6)
    (histogram,) = events.Histograms("parameters/body.weight")
    assert histogram.step == 2 and histogram.histogram_value.num == 12
    later = EventAccumulator(str(tmp_path / "sparse")).Reload()
    assert [event.step for event in later.Scalars("step/loss")] == [8]


# --- checkpoints ------------------------------------------------------------------------------


class Crash(Exception):
    pass


def crash_at(step):
    def fail(run):
        if run.step == step:
            run.drain()
            raise Crash

    return train.LambdaCallback(on_step_end=fail)


def parts(setting, *callbacks):
    loader = train.ArrayLoader(data(), batch_size=4, shuffle=True, seed=5)
    scheduler = lr_scheduler.ExponentialLR(setting.optimizer, 0.9)
    early = train.EarlyStopping("loss", patience=99, restore_best=True)
    return loader, {
        "scheduler": scheduler,
        "scheduler_every": "step",
        "callbacks": [early, *callbacks],
        "metrics": {"error": lambda outputs, targets: jnp.mean(jnp.abs(outputs - targets))},
        "epochs": 3,
    }


@pytest.fixture(scope="module")
def whole():
    """A training that is not interrupted: what it starts with, and how it ends."""
    setting = Setting(momentum=0.9)
    empty = copy.deepcopy(setting.optimizer.state_dict())
    loader, arguments = parts(setting)
    history = setting.fit(loader, **arguments)
    return setting, empty, history, snapshot(setting.model)


@pytest.mark.parametrize("crash", [2, 5, 6])
def test_resumes_to_the_same_end_bit_for_bit(whole, crash, tmp_path):
    setting, empty, expected, parameters = whole
    seen, options = [], {"every_steps": 2, "every_epochs": 1}
    for failing in (True, False):
        setting.reset().optimizer.load_state_dict(empty)
        saving = train.Checkpoint(tmp_path, **options)
        if failing:
            loader, arguments = parts(setting, saving, crash_at(crash))
            with pytest.raises(Crash):
                setting.fit(loader, **arguments)
        else:
            watch = train.LambdaCallback(on_step_end=lambda run: seen.append(run.step))
            loader, arguments = parts(setting, saving, watch)
            history = setting.fit(loader, resume=True, **arguments)
    # There are checkpoints after steps 2, 3 (the end of the epoch), 4, and in the last step of an epoch.
    assert seen[0] == {2: 3, 5: 5, 6: 7}[crash] and seen[-1] == 9
    assert_same(setting.model, parameters)
    assert arguments["scheduler"].last_epoch == 9
    assert arguments["callbacks"][0].best == min(expected["loss"])
    for name in ("epoch", "step", "loss", "error", "lr"):
        assert history[name] == pytest.approx(expected[name], rel=1e-6), name
    np.testing.assert_array_equal(history.steps()[0], expected.steps()[0])
    np.testing.assert_allclose(history.steps()[1], expected.steps()[1], rtol=1e-6)


def test_keeps_the_best_and_the_last(setting, tmp_path):
    saving = train.Checkpoint(tmp_path, keep=1, keep_best=1, monitor="score")
    setting.fit(epochs=4, callbacks=[Values("score", [0.1, 0.9, 0.2, 0.3]), saving])
    assert saving.manager.steps == [6, 12] and saving.manager.best == 6


def test_resuming_from_a_directory_or_from_nothing(setting, tmp_path):
    assert setting.fit(epochs=1, resume=tmp_path / "new").step == 3
    setting.fit(epochs=2, callbacks=train.Checkpoint(tmp_path / "old"))
    after = snapshot(setting.model)
    setting.reset()
    history = setting.fit(epochs=2, resume=tmp_path / "old")
    assert len(history) == 2
    assert_same(setting.model, after)
    manager = train.CheckpointManager(tmp_path / "old")
    assert setting.fit(epochs=3, resume=manager).step == 9


def test_checkpoint_refusals(setting, tmp_path):
    with pytest.raises(ArgumentError, match="nothing would be saved"):
        train.Checkpoint(tmp_path, every_epochs=0)
    with pytest.raises(ArgumentError, match="belong to the CheckpointManager"):
        train.Checkpoint(train.CheckpointManager(tmp_path), keep=1)
    with pytest.raises(ArgumentError, match="Checkpoint watches 'val_loss'"):
        setting.fit(callbacks=train.Checkpoint(tmp_path, monitor="val_loss"))
    saved = train.Checkpoint(tmp_path)
    setting.fit(callbacks=[saved, train.EarlyStopping("loss")])
    with pytest.warns(UserWarning, match="the state of EarlyStopping, and there is no such"):
        setting.fit(epochs=2, callbacks=saved, resume=True)


def test_a_foreign_state_is_refused(setting):
    def load(run):
        with pytest.raises(StateDictError, match="it lacks batch"):
            run.load_state_dict({"history": {}})

    setting.fit(callbacks=train.LambdaCallback(on_fit_start=load))
