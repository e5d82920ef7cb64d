"""The history: its columns, its picture, its way through a file."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest

from funcnets import train
from funcnets.errors import ArgumentError, StateDictError

matplotlib.use("Agg")


@pytest.fixture
def history():
    history = train.History()
    for epoch in (1, 2, 3):
        for step in (2 * epoch - 1, 2 * epoch):
            history.record_step(step, loss=10.0 / step, grad=float(step))
        row = {"epoch": epoch, "step": 2 * epoch, "loss": 10.0 / epoch, "seconds": 1.0}
        row["matrix"] = np.eye(2) * epoch
        if epoch != 2:
            row |= {"val_loss": 20.0 / epoch, "val_accuracy": 0.3 * epoch}
        history.record_epoch(row)
    history.step = 6
    return history


def test_columns(history):
    assert len(history) == 3 and history["loss"] == [10.0, 5.0, 10 / 3]
    assert history["val_loss"] == [20.0, 20 / 3] and "val_loss" in history
    assert history.best("val_accuracy", "max")["epoch"] == 3 == history.best()["epoch"]
    numbers, values = history.steps()
    assert numbers.tolist() == [1, 2, 3, 4, 5, 6] and values[1] == 5.0
    for read, match in [
        (lambda: history["los"], "it has epoch, step, loss"),
        (lambda: history.steps("lr"), "there is loss, grad"),
        (lambda: train.History()["loss"], "no epoch yet"),
    ]:
        with pytest.raises(KeyError, match=match):
            read()
    with pytest.raises(ArgumentError, match="mode must be"):
        history.best("loss", "least")
    history.epochs[2]["val_loss"] = math.nan
    assert history.best()["epoch"] == 1


def test_text(history):
    lines = repr(history).splitlines()
    assert lines[0] == "History: 3 epochs, 6 steps"
    assert lines[1].split() == ["epoch", "loss", "val_loss", "val_accuracy"]
    assert lines[3].split() == ["2", "5", "-", "-"] and len({map(len, lines[1:])}) == 1
    for epoch in range(4, 40):
        history.record_epoch({"epoch": epoch, "loss": 1.0})
    assert len(repr(history).splitlines()) == 13
    assert repr(train.History()) == "History: 0 epochs, 0 steps"


def test_saving(history):
    other = train.History()
    other.load_state_dict(history.state_dict())
    assert repr(other) == repr(history) and other.step == 6
    np.testing.assert_array_equal(other.steps("grad"), history.steps("grad"))
    np.testing.assert_array_equal(other["matrix"], history["matrix"])
    # What comes back are numbers, also if a file made arrays of them.
    state = history.state_dict()
    state["epochs"] = [{k: np.asarray(v) for k, v in row.items()} for row in state["epochs"]]
    other.load_state_dict(state)
    assert isinstance(other["loss"][0], float) and isinstance(other["epoch"][0], int)
    for bad in (3, {"step": 1}, {"step": 1, "epochs": 3, "steps": {}}):
        with pytest.raises(StateDictError, match="state of a History"):
            other.load_state_dict(bad)
    assert len(other) == 3


def test_plot(history):
    axes = history.plot()
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["loss", "val_loss"] and axes.get_xlabel() == "epoch"
    steps, loss, val = axes.get_lines()
    assert val.get_xdata().tolist() == [1, 3] and val.get_ydata()[0] == 20.0
    assert loss.get_color() == steps.get_color()
    np.testing.assert_allclose(steps.get_xdata(), [0.5, 1, 1.5, 2, 2.5, 3])
    assert axes.get_yscale() == "linear"
    again = history.plot("val_accuracy", "grad", ax=axes.figure.subplots(), log=True)
    assert again is not axes and len(again.get_lines()) == 2 and again.get_yscale() == "log"
    history.record_epoch({"epoch": 4, "step": 8, "loss": 1e-4})
    history.record_step(9, loss=1e-4)
    history.record_step(10, loss=1e-5)  # an epoch that is not finished
    wide = history.plot("loss")
    assert wide.get_yscale() == "log" and wide.get_lines()[0].get_xdata()[-1] == 5.0
    for names, match in [(("lss",), "no 'lss' to plot"), (("matrix",), "only numbers make a")]:
        with pytest.raises(ArgumentError, match=match):
            history.plot(*names)
    matplotlib.pyplot.close("all")


def test_forgetting_steps(history):
    history.forget_after(4)
    assert history.steps()[0].tolist() == [1, 2, 3, 4] == history.steps("grad")[1].tolist()
