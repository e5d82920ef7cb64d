"""A save that is killed, fails or meets another one leaves a whole file, the old or the new one."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import funcnets.io
from funcnets.errors import ArgumentError
from funcnets.io import atomic, load, save

from .killed import state


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def value_of(path):
    """The one number in a file that :func:`tests.io.killed.state` filled, which must be in all of it."""
    values = {float(v) for array in load(path).values() for v in np.unique(array)}
    assert len(values) == 1
    return values.pop()


class Killed:
    """The process that saves and dies."""

    def __init__(self):
        root = pathlib.Path(__file__).parent.parent.parent
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.io.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        self.loaded = json.loads(self.process.stdout.readline())

    def __call__(self, **request):
        """Have one child do it; its exit code."""
        request = {"limit": None, "count": 3, "size": 50} | request
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def killed():
    process = Killed()
    yield process
    process.process.communicate()
    assert process.process.returncode == 0


def test_importing_loads_no_optional_package(killed):
    assert killed.loaded == []


KINDS = {"one file": None, "shards": 200}


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        *((*pair, "model.safetensors") for pair in itertools.product(KINDS, KINDS)),
        ("one file", "one file", "model.pt"),
    ],
)
def test_killed_at_every_step(tmp_path, killed, before, after, name):
    path, seen = tmp_path / name, []
    options = {} if name.endswith("pt") else {"max_shard_size": KINDS[before]}
    for step in itertools.count(1):
        save(state(1.0, 3, 50), path, **options)  # over what the last kill left
        clean = names(tmp_path)
        assert not any(n.startswith(".") for n in clean)
        assert len(clean) == (1 if before == "one file" else 4)
        code = killed(kind="step", step=step, path=path, value=2.0, limit=KINDS[after])
        seen.append(value_of(path))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert len(seen) > (5 if after == "one file" else 10)  # steps
    assert seen == sorted(seen) and seen[0] == 1.0 and seen[-1] == 2.0  # old, and then new
    assert len(names(tmp_path)) == (1 if after == "one file" else 4)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(tmp_path, killed, kind):
    path, random = tmp_path / "model.safetensors", np.random.default_rng(0)
    limit = None if kind == "one file" else 1_000_000
    save(state(0.0, 3, 250_000), path, max_shard_size=limit)
    last = 0.0
    for _ in range(15):
        code = killed(
            kind="loop",
            wait=float(random.uniform(0, 2)),
            path=path,
            value=last,
            limit=limit,
            size=250_000,
        )
        assert code == -signal.SIGKILL
        value = value_of(path)
        assert value > last  # nothing that was saved is undone
        last = value
    save(state(-1.0, 3, 10), path)
    assert names(tmp_path) == ["model.safetensors"] and value_of(path) == -1.0


def test_a_full_disk_leaves_the_old_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, limit in (("a.safetensors", 1_000_000), ("b.safetensors", 100_000), ("c.pt", "5GB")):
        path = tmp_path / name
        save(state(1.0, 3, 10), path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(OSError, match="File too large|torch could not write") as caught:
                save(state(2.0, 3, 20_000), path, max_shard_size=limit)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert name in str(caught.value)
        assert value_of(path) == 1.0
    assert names(tmp_path) == ["a.safetensors", "b.safetensors", "c.pt"]


def test_an_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save(state(1.0, 3, 50), path, max_shard_size=200)
    clean = names(tmp_path)
    replace = os.replace

    def interrupted(source, target):
        if target.endswith("00003-of-00003.safetensors"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(state(2.0, 3, 50), path, max_shard_size=200)
    assert names(tmp_path) == clean and value_of(path) == 1.0


@pytest.mark.parametrize("limit", [None, 200])
def test_several_threads_may_save_at_once(tmp_path, limit):
    path, errors = tmp_path / "model.safetensors", []
    start = threading.Barrier(6)

    def work(number):
        try:
            start.wait()
            for _ in range(4):
                save(state(number, 3, 50), path, max_shard_size=limit)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and 0 <= value_of(path) <= 5
    assert len(names(tmp_path)) == (1 if limit is None else 4)


def test_reading_while_another_thread_saves(tmp_path):
    path, done, seen = tmp_path / "model.safetensors", threading.Event(), set()
    save(state(0.0, 3, 50), path)

    def work():
        for number in range(40):
            save(state(float(number), 3, 50), path, max_shard_size=(None, 200, 400)[number % 3])
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        seen.add(value_of(path))
    thread.join()
    assert len(seen) > 1 and value_of(path) == 39.0


def test_a_folder_in_use_is_left_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    with atomic.staging(str(path)) as stage:
        (pathlib.Path(stage.folder) / "half").write_text("written")
        save(state(1.0, 3, 50), path, max_shard_size=200)
        assert (pathlib.Path(stage.folder) / "half").exists()
        assert any("-00001-of-00003" in n and len(n) > 33 for n in names(tmp_path))
    save(state(2.0, 3, 50), path)
    assert names(tmp_path) == ["model.safetensors"]


def test_a_save_within_a_save_does_not_wait_for_ever(tmp_path, monkeypatch):
    """As when a signal handler saves while the program saves."""
    monkeypatch.setattr(atomic, "_PATIENCE", 0.05)
    path = tmp_path / "model.safetensors"
    with atomic.staging(str(path)) as stage, stage.turn():
        save(state(1.0, 3, 50), path, max_shard_size=200)
    assert value_of(path) == 1.0 and len(names(tmp_path)) == 4


def test_links_are_followed_and_modes_kept(tmp_path):
    path, link = tmp_path / "model.safetensors", tmp_path / "latest.safetensors"
    link.symlink_to(path.name)
    save(state(1.0, 1, 5), link)
    assert not path.is_symlink() and link.is_symlink() and value_of(link) == value_of(path) == 1.0
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    path.chmod(0o640)
    save(state(2.0, 1, 5), link)
    assert path.stat().st_mode & 0o777 == 0o640
    save(state(3.0, 3, 50), link, max_shard_size=200)
    assert value_of(link) == 3.0 and not path.exists()


@pytest.mark.parametrize(
    "name", ["we[i]rd*.safetensors", "no.dots.here.safetensors", "\u00fc \n.pt"]
)
def test_odd_names(tmp_path, name):
    for limit in ("5GB",) if name.endswith("pt") else (200, None, 200):
        save(state(1.0, 3, 50), tmp_path / name, max_shard_size=limit)
        assert value_of(tmp_path / name) == 1.0
    assert not any(n.startswith(".") for n in names(tmp_path))


def test_relative_and_bytes_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(state(1.0, 1, 5), "a.safetensors")
    save(state(2.0, 1, 5), b"b.safetensors")
    assert [value_of(n) for n in ("a.safetensors", b"b.safetensors")] == [1.0, 2.0]
    with atomic.replacing("c.txt") as temporary:
        pathlib.Path(temporary).write_text("x")
    assert names(tmp_path) == ["a.safetensors", "b.safetensors", "c.txt"]
    with pytest.raises(ArgumentError, match="path must be a str"):
        load(3)


def test_where_files_cannot_be_locked(tmp_path, monkeypatch):
    """Nothing is swept, and nothing breaks."""
    monkeypatch.setattr(funcnets.io.atomic, "fcntl", None)
    path = tmp_path / "model.safetensors"
    (tmp_path / ".model.safetensors.left.saving").mkdir()
    for value, limit in ((1.0, None), (2.0, 200), (3.0, 200)):
        save(state(value, 3, 50), path, max_shard_size=limit)
        assert value_of(path) == value
    assert ".model.safetensors.left.saving" in names(tmp_path)
