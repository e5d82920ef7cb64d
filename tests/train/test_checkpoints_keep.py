"""Which checkpoints are kept, which is the last and the best, and what a damaged one does."""

from __future__ import annotations

import json
import math
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from funcnets import nn
from funcnets.errors import ArgumentError, CheckpointError, StateDictError
from funcnets.train.checkpoints import CheckpointManager


def save(manager: CheckpointManager, step: int, **metrics: float) -> None:
    manager.save(step, {"value": step}, metrics=metrics or None)


def names(manager: CheckpointManager) -> list[str]:
    return sorted(p.name for p in manager.directory.iterdir())


# --- the last and the best ----------------------------------------------------------------------


def test_the_last_and_the_best_are_kept(tmp_path):
    manager = CheckpointManager(tmp_path, keep=2, keep_best=2, monitor="acc", mode="max")
    assert (manager.steps, manager.latest, manager.best) == ([], None, None)
    scores = [0.1, 0.9, 0.3, 0.9, math.nan, 0.2]
    for step, acc in enumerate(scores, 1):
        save(manager, step, acc=acc, loss=step)
    save(manager, 7)  # in the midst of an epoch: there is no metric yet
    assert manager.steps == [2, 4, 6, 7]
    assert names(manager) == ["2", "4", "6", "7"]
    assert (manager.latest, manager.best) == (7, 2)
    assert manager.metrics(4) == {"acc": 0.9, "loss": 4.0}
    assert manager.restore(step="best").step == 2
    assert manager.restore(step=6).metrics["acc"] == 0.2
    lowest = CheckpointManager(tmp_path, monitor="loss")  # others may look at it in other ways
    assert lowest.best == 2
    assert CheckpointManager(tmp_path, monitor="f1").best is None
    with pytest.raises(CheckpointError, match=r"metric 'f1'"):
        CheckpointManager(tmp_path, monitor="f1").restore(step="best")
    with pytest.raises(ArgumentError, match=r"monitored 'acc', but has loss"):
        save(manager, 8, loss=1.0)
    manager.delete(2)
    assert manager.steps == [4, 6, 7]
    for call in (manager.delete, manager.metrics):
        with pytest.raises(CheckpointError, match=r"no checkpoint at .*/2"):
            call(2)


def test_all_are_kept_if_asked(tmp_path):
    with CheckpointManager(tmp_path, keep=None) as manager:
        for step in range(5):
            save(manager, step)
    assert manager.steps == [0, 1, 2, 3, 4]


def test_going_on_from_an_earlier_one(tmp_path):
    """Last is what was saved last: the steps of the abandoned run do not push out the new ones."""
    with CheckpointManager(tmp_path, keep=3) as manager:
        for step in (10, 20, 30):
            save(manager, step)
    manager = CheckpointManager(tmp_path, keep=3)
    assert manager.restore(step=10).step == 10
    save(manager, 15)
    save(manager, 20)
    assert manager.steps == [30, 15, 20]
    assert manager.latest == 20
    assert manager.restore().values == {"value": 20}
    assert names(manager) == ["15", "20", "30"]


def test_what_a_killed_process_leaves(tmp_path):
    with CheckpointManager(tmp_path) as manager:
        save(manager, 1)
        save(manager, 2)
    (tmp_path / "2").rename(tmp_path / "2.replaced")  # killed when it was about to be replaced
    (tmp_path / "3.orbax-checkpoint-tmp" / "value").mkdir(parents=True)
    (tmp_path / "0.removed" / "value").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "7.backup").mkdir()
    manager = CheckpointManager(tmp_path)
    assert manager.steps == [1, 2] and manager.restore().values == {"value": 2}
    before = names(manager)
    assert len(before) == 6  # who reads changes nothing: another process may be writing
    with manager:
        save(manager, 3)
    assert names(manager) == ["1", "2", "3", "7.backup", "notes.txt"]


def test_the_new_one_takes_the_place_of_the_old_one_when_it_is_complete(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path, keep=1)
    manager.save(1, {"value": jnp.ones(2)}, wait=True)
    write = CheckpointManager.save.__globals__["store"].write

    def fail(*args):
        write(*args).result()
        shutil.rmtree(tmp_path / "1")  # as if it had never been
        raise OSError("no space left on device")

    monkeypatch.setattr("funcnets.train._store.write", fail)
    with pytest.raises(OSError, match="no space"):
        manager.save(1, {"value": jnp.zeros(2)})
    monkeypatch.undo()
    assert manager.steps == [1]
    assert manager.restore().values["value"].tolist() == [1.0, 1.0]
    manager.save(1, {"value": jnp.zeros(2)}, wait=True)
    assert manager.restore().values["value"].tolist() == [0.0, 0.0]
    assert names(manager) == ["1"]


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint to be damaged, and what it holds."""
    path = tmp_path_factory.mktemp("good")
    noise = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    values = {"noise": jnp.asarray(noise), "few": jnp.arange(3), "n": 5}
    with CheckpointManager(path) as manager:
        manager.save(4, {"values": values})
    return path, values


def damages(path: Path) -> list[tuple[str, bytes | None]]:
    data = path.read_bytes()
    flipped = bytearray(data)
    for i in range(len(data) // 3, len(data), max(1, len(data) // 50)):
        flipped[i] ^= 1
    return [
        ("gone", None),
        ("empty", b""),
        ("cut", data[: len(data) // 2]),
        ("flipped", bytes(flipped)),
    ]


def test_damage_is_found_or_does_no_harm(good, tmp_path):
    """Every file in turn: what is not refused is what was saved, bit for bit."""
    home, values = good
    files = [p.relative_to(home) for p in sorted(home.rglob("*")) if p.is_file()]
    refused: dict[str, list[str]] = {}
    told: list[bool] = []
    for number, file in enumerate(files):
        for how, data in damages(home / file):
            place = tmp_path / f"{number}{how}"
            shutil.copytree(home, place)
            (place / file).unlink() if data is None else (place / file).write_bytes(data)
            try:
                found = CheckpointManager(place).restore().values["values"]
            except CheckpointError as error:
                refused.setdefault(str(file), []).append(how)
                told.append(str(place / "4") in str(error))
            else:
                assert all(np.array_equal(found[name], values[name]) for name in values)
    assert all(told)  # each message names the checkpoint
    whole = ["gone", "empty", "cut", "flipped"]
    large = max(files, key=lambda file: (home / file).stat().st_size)
    for file in ("4/funcnets/record.json", "4/funcnets/checksums.json", str(large)):
        assert refused[file] == whole, file
    assert {Path(f).parts[1] for f in refused} >= {"funcnets", "values"}


def test_the_previous_good_one_is_used_when_asked(tmp_path):
    with CheckpointManager(tmp_path, keep=None) as manager:
        for step in (1, 2, 3, 4):
            manager.save(step, {"value": jnp.full(500, float(step))}, metrics={"loss": -step})
    for step in (2, 4):
        largest = max(
            (tmp_path / str(step)).rglob("*"), key=lambda p: p.stat().st_size * p.is_file()
        )
        largest.write_bytes(largest.read_bytes()[:-200])
    (tmp_path / "3" / "funcnets" / "record.json").write_text("")
    asked: list[Any] = [{}, {"step": 4}]
    for kwargs in asked:
        with pytest.raises(CheckpointError, match=r"/4 is truncated or damaged .*fallback=True"):
            manager.restore(**kwargs)
        with pytest.warns(UserWarning, match="is truncated or damaged") as told:
            found = manager.restore(fallback=True, **kwargs)
        assert found.step == 1 and float(found.values["value"][0]) == 1.0
        # 3 tells no time, so it counts as one of the first.
        assert [str(tmp_path / n) in str(w.message) for n, w in zip("42", told, strict=True)]
    shutil.rmtree(tmp_path / "1")
    message = r"no checkpoint could be read:\n\t.*/2"
    with pytest.warns(UserWarning, match="/[23] "), pytest.raises(CheckpointError, match=message):
        manager.restore(step=2, fallback=True)
    with pytest.raises(CheckpointError, match=r"/3 is truncated"):
        manager.restore(step=3)
    manager.save(5, {"value": 5}, wait=True)  # the run goes on all the same
    assert manager.restore().step == 5


def test_a_record_that_is_cut_is_the_last_one_if_its_number_is(tmp_path):
    with CheckpointManager(tmp_path) as manager:
        save(manager, 1)
        save(manager, 2)
    (tmp_path / "2" / "funcnets" / "record.json").write_text('{"format"')
    with pytest.raises(CheckpointError, match=r"/2 is truncated or damaged"):
        manager.restore()
    assert (manager.steps, manager.latest) == ([1], 2)
    with pytest.warns(UserWarning, match="/2"):
        assert manager.restore(fallback=True).step == 1
    manager.delete(1)
    assert (manager.steps, manager.latest) == ([], 2)  # so that nobody begins anew in silence


def test_what_does_not_fit_is_no_damage(tmp_path):
    """Fallback is for files: the wrong model is refused at once."""
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, {"model": nn.Linear(2, 2)})
        manager.save(2, {"model": nn.Linear(2, 2)})
    with pytest.raises(StateDictError, match=r"/2 does not fit"):
        manager.restore({"model": nn.Linear(3, 2)}, fallback=True)


def test_foreign_checkpoints_are_refused_and_left_alone(tmp_path):
    empty = CheckpointManager(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*nothing"):
        empty.restore()
    ocp.save(tmp_path / "5", {"w": np.ones(2)})
    (tmp_path / "6").mkdir()
    (tmp_path / "6" / "model.safetensors").write_bytes(b"something")
    manager = CheckpointManager(tmp_path, keep=1)
    assert manager.steps == []
    asked: Any = (({}, 6), ({"step": 5}, 5), ({"step": 6}, 6))
    for kwargs, step in asked:
        with pytest.raises(
            CheckpointError, match=rf"/{step} is not a training checkpoint of funcnets"
        ):
            manager.restore(**kwargs)
    with pytest.raises(CheckpointError, match=r"no checkpoint .*/9; there are 5, 6"):
        manager.restore(step=9)
    with pytest.raises(ArgumentError, match=r"step must be one of 'latest', 'best'"):
        manager.restore(step="last")  # pyright: ignore[reportArgumentType]
    with manager:
        save(manager, 7)
        save(manager, 8)
    assert names(manager) == ["5", "6", "8"]


def test_a_later_format_is_refused(tmp_path):
    with CheckpointManager(tmp_path) as manager:
        save(manager, 1)
    file = tmp_path / "1" / "funcnets" / "record.json"
    head, rest = file.read_text().split("\n", 1)
    text = json.dumps({**json.loads(head), "version": 99}) + "\n" + rest.split("\n")[0] + "\n"
    file.write_text(f"{text}{zlib.crc32(text.encode())}\n")
    with pytest.raises(CheckpointError, match=r"later funcnets \(its format is 99"):
        manager.restore()


def test_no_orbax_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'funcnets\[checkpoint\]'"):
        CheckpointManager(tmp_path)


def test_restoring_makes_no_noise(good, tmp_path, capfd):
    """orbax leaves complaining threads behind when an array cannot be read."""
    shutil.copytree(good[0], tmp_path / "x")
    for file in (tmp_path / "x" / "4" / "values").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:100])
    with warnings.catch_warnings(), pytest.raises(CheckpointError):
        CheckpointManager(tmp_path / "x").restore()
    assert capfd.readouterr() == ("", "")
