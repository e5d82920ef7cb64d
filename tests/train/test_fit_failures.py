"""What ``fit`` does when something goes wrong: NaN, exceptions, interrupts."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn, optim, train
from funcnets.errors import NonFiniteError
from funcnets.optim import lr_scheduler
from funcnets.train import run as runs
from tests.train.helpers import Setting, assert_same, batches, data, snapshot

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def shared():
    return Setting()


@pytest.fixture
def setting(shared):
    return shared.reset()


def poisoned(at: int, value: float = np.nan):
    """Three epochs of batches, of which one holds a number that is not finite."""
    rows = [(x.copy(), y) for x, y in batches() * 3]
    rows[at][0][1, 2] = value
    return rows


# --- what is not finite -----------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 4, 8])
def test_stops_before_the_step_and_names_the_module(setting, at):
    scheduler = lr_scheduler.ExponentialLR(setting.optimizer, 0.99)
    history = train.History()
    options = {"scheduler": scheduler, "scheduler_every": "step", "history": history}
    logger = train.LearningRateLogger()
    with pytest.raises(train.Diverged) as caught:
        setting.fit(poisoned(at), callbacks=logger, **options)
    error = caught.value
    assert isinstance(error, NonFiniteError) and isinstance(error, FloatingPointError)
    assert error.module == "body" and error.step == at + 1 and error.epoch == 1
    assert math.isnan(error.loss) and np.isnan(np.asarray(error.batch[0])).sum() == 1
    for part in ("the loss is nan", "'body' (Linear), float32[", "the batch itself holds"):
        assert part in str(error), str(error)
    # All is as after the last good step: the model, the history, and the schedule.
    assert history.step == at == scheduler.last_epoch
    assert_same(setting.model, setting.by_hand(at, decay=0.99), **CLOSE)
    assert setting.optimizer.param_groups[0]["lr"] == pytest.approx(setting.lr * 0.99**at)
    if at:
        numbers, losses = history.steps("loss")
        assert numbers.tolist() == list(range(1, at + 1)) and np.isfinite(losses).all()
        assert history.steps("lr")[0].tolist() == numbers.tolist()
    assert len(history) == 0
    # Hooks are gone, and the training can go on.
    assert not setting.model.body._forward_hooks
    assert np.isfinite(setting.fit(epochs=1)["loss"][0])


def test_watching_can_be_switched_off(setting):
    history = setting.fit(poisoned(1), check_finite=False)
    assert history.step == 9 and math.isnan(history["loss"][0])


class Deep(nn.Module):
    """Dropout, a scan, a shared layer and a buffer on the way to a logarithm of nothing."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.step = nn.Tanh()
        self.log = Log()
        self.last = nn.Linear(3, 1)

    def forward(self, x):
        x = self.layers(x)
        x, _ = fn.scan(lambda h, _: (self.step(h), None), x, length=2)
        x = fn.checkpoint(lambda x: self.log(x))(x)
        x, _ = jax.lax.scan(lambda h, _: (self.step(h), None), x, length=2)
        return self.last(x)


class Log(nn.Module):
    def forward(self, x):
        return jnp.log(x * 0)


def test_finds_the_module_through_lifts_and_leaves_no_trace():
    fn.manual_seed(3)
    model = Deep()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    start, before = snapshot(model), None
    with pytest.raises(train.Diverged) as caught:
        train.fit(model, optimizer, nn.MSELoss(), batches(), progress=False)
    assert caught.value.module == "log" and "what it was given is finite" in str(caught.value)
    assert_same(model, start)
    assert all(not np.asarray(cell.data).any() for name, cell in optimizer._memory())
    # Not even the random stream has moved.
    after = np.asarray(fn.core.random.stream.data)
    fn.manual_seed(3)
    before = np.asarray(fn.core.random.stream.data)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("loss_fn", "match"),
    [
        (lambda m, b: jnp.sum(jnp.sqrt(jnp.abs(m(b[0]) * 0))), "the gradients of bias, weight are"),
        (lambda m, b: jnp.log(-jnp.sum(m(b[0]) ** 2)), "the loss function's is not"),
    ],
    ids=["gradient", "loss"],
)
def test_gradients_and_loss_functions(loss_fn, match):
    model = nn.Linear(3, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    start = snapshot(model)
    with pytest.raises(train.Diverged, match=match) as caught:
        train.fit(model, optimizer, loss_fn, batches(), progress=False)
    assert caught.value.module is None
    assert_same(model, start)


class Roots(nn.Module):
    """The sum of square roots, whose gradient is infinite at zero and whose value is not."""

    def __init__(self, shape):
        super().__init__()
        self.numbers = nn.Parameter(jnp.ones(shape))

    def forward(self, x):
        return jnp.sum(jnp.sqrt(self.numbers)) + 0 * jnp.sum(x)


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (2, 3, 2)], ids=str)
def test_one_infinite_gradient_of_a_finite_loss(shape):
    model = Roots(shape)
    model.numbers.data = model.numbers.data.at[(-1,) * len(shape)].set(0)
    before = np.asarray(model.numbers.data)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(train.Diverged, match="the gradients of numbers are not finite"):
        train.fit(model, optimizer, lambda m, x: m(x), [np.ones(2, np.float32)], progress=False)
    np.testing.assert_array_equal(model.numbers.data, before)


def test_names_a_parameter_that_is_not_finite(setting):
    setting.model.head.weight.data = setting.model.head.weight.data.at[0, 1].set(jnp.inf)
    with pytest.raises(train.Diverged, match="its weight is not finite") as caught:
        setting.fit()
    assert caught.value.module == "head"


# --- exceptions -------------------------------------------------------------------------------


class Boom(Exception):
    pass


def raising_loader(after: int, error: BaseException):
    def produce():
        yield from (batches() * 3)[:after]
        raise error

    return produce


@pytest.mark.parametrize("after", [0, 1, 4, 8])
def test_an_exception_of_the_loader(setting, after):
    history = train.History()
    with pytest.raises(Boom, match="here"):
        setting.fit(raising_loader(after, Boom("here")), history=history)
    assert history.step == after == len(history.steps()[0] if after else [])
    assert_same(setting.model, setting.by_hand(after), **CLOSE)


@pytest.mark.parametrize("event", ["on_step_end", "on_step_logs", "on_epoch_end", "on_epoch_start"])
@pytest.mark.parametrize("kind", [Boom, KeyboardInterrupt])
def test_an_exception_of_a_callback(setting, event, kind):
    seen, history = [], train.History()

    def fail(*args):
        seen.append(event)
        if len(seen) == 2:
            raise kind

    ended = []
    callback = train.LambdaCallback(
        **{event: fail},
        on_exception=lambda run, error: ended.append(type(error)),
        on_fit_end=lambda run: ended.append(run.failed),
    )
    with pytest.raises(kind):
        setting.fit(epochs=3, callbacks=callback, history=history)
    assert ended == [kind, True] and setting.model.training
    assert_same(setting.model, setting.by_hand(history.step), **CLOSE)
    assert history.steps()[0].tolist() == list(range(1, history.step + 1))
    assert history["step"] == [3, 6][: len(history)] if len(history) else history.step <= 3


@pytest.mark.parametrize("place", ["before", "after", "read", "schedule"])
def test_an_interrupt_between_any_two_parts_of_a_step(setting, monkeypatch, place):
    """Wherever it comes: the number of steps, the model and the schedule agree."""
    calls = []

    def interrupting(function, when):
        def wrapped(*args, **kwargs):
            calls.append(1)
            if len(calls) == 5 and when == "before":
                raise KeyboardInterrupt
            out = function(*args, **kwargs)
            if len(calls) == 5 and when == "after":
                raise KeyboardInterrupt
            return out

        return wrapped

    scheduler = lr_scheduler.ConstantLR(setting.optimizer, 1.0)
    history = train.History()
    options = {"scheduler": scheduler, "scheduler_every": "step", "epochs": 3, "history": history}
    setting.fit(epochs=1)  # so that the compiled step is there
    setting.reset()
    kept = next(row for row in setting.optimizer._fit_steps.rows if row[1].guard)
    target, name = {
        "before": (kept[1], "run"),
        "after": (kept[1], "run"),
        "read": (runs.Run, "_read"),
        "schedule": (type(scheduler), "step"),
    }[place]
    when = "before" if place != "after" else "after"
    monkeypatch.setattr(target, name, interrupting(getattr(target, name), when))
    with pytest.raises(KeyboardInterrupt):
        setting.fit(**options)
    monkeypatch.undo()
    steps = history.step
    assert 4 <= steps <= 7 and history.steps()[0].tolist() == list(range(1, steps + 1))
    assert scheduler.last_epoch == steps
    assert_same(setting.model, setting.by_hand(steps), **CLOSE)


def test_a_callback_stops_the_training(setting):
    stop = train.LambdaCallback(
        on_step_end=lambda run: run.stop("enough") if run.step == 5 else None
    )
    history = setting.fit(epochs=9, callbacks=stop)
    assert history["step"] == [3, 5]
    assert_same(setting.model, setting.by_hand(5), **CLOSE)


def test_a_loader_is_put_back_to_what_was_used(setting):
    loader = train.ArrayLoader(data(), batch_size=4)
    stop = train.LambdaCallback(on_step_end=lambda run: run.stop())
    setting.fit(loader, epochs=2, callbacks=stop, prefetch=2)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 1)
    assert next(iter(loader))[0].tolist() == batches()[1][0].tolist()


def test_a_wrong_batch_changes_nothing(setting):
    x, y = data(4)
    with pytest.raises(ValueError, match="Linear"):
        setting.fit([(x[:, :2], y)])
    assert_same(setting.model, setting.start)
