"""Shards and their index: Hugging Face's layout, written and read, and what replaces what."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from funcnets import nn
from funcnets.errors import CheckpointError
from funcnets.io import load, save


def numbered(n, value=0.0, size=100):
    """``n`` arrays of ``4 * size`` bytes."""
    return {f"w{i}": np.full(size, value + i, np.float32) for i in range(n)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def equal(a, b):
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) for k in a)


def shards(n, stem="model"):
    files = [f"{stem}-{i:05d}-of-{n:05d}.safetensors" for i in range(1, n + 1)]
    return [*files, f"{stem}.safetensors.index.json"]


# --- what is written --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "groups"),
    [
        (400, [["w0"], ["w1"], ["w2"], ["big"], ["w3"]]),
        (800, [["w0", "w1"], ["w2"], ["big"], ["w3"]]),
        ("1.2KB", [["w0", "w1", "w2"], ["big", "w3"]]),
        ("1.2KiB", [["w0", "w1", "w2"], ["big", "w3"]]),
        (1999, [["w0", "w1", "w2"], ["big", "w3"]]),
        (2000, [["w0", "w1", "w2", "big"], ["w3"]]),
    ],
)
def test_arrays_fill_files_in_their_order(tmp_path, limit, groups):
    state = numbered(3) | {"big": np.zeros(200, np.float32), "w3": np.ones(100, np.float32)}
    state["tied"] = state["w1"]
    save(state, tmp_path / "model.safetensors", max_shard_size=limit)
    assert names(tmp_path) == shards(len(groups))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2400
    files = shards(len(groups))[:-1]
    assert index["weight_map"] == {n: f for f, group in zip(files, groups) for n in group}
    for file, group in zip(files, groups):  # each is a safetensors file of its own
        assert equal(
            safetensors.numpy.load_file(tmp_path / file), {n: state[n] for n in sorted(group)}
        )
    found = load(tmp_path / "model.safetensors")
    assert equal(found, state) and found["tied"] is found["w1"]


def test_what_fits_is_one_file(tmp_path):
    for limit in (1200, "1.2kb", None, "5GB"):
        save(numbered(3), tmp_path / "model.safetensors", max_shard_size=limit)
        assert names(tmp_path) == ["model.safetensors"]


def test_checkpoints_with_other_things_than_arrays(tmp_path):
    obj = {"model": numbered(3), "epoch": 3, "raw": [np.ones((2, 2), complex)], 1: (None, "x")}
    save(obj, tmp_path / "all.safetensors", max_shard_size=500)
    assert names(tmp_path) == shards(3, "all")
    for path in ("all.safetensors", "all.safetensors.index.json"):
        found = load(tmp_path / path)
        assert equal(found.pop("model"), obj["model"])
        assert np.array_equal(found.pop("raw")[0], obj["raw"][0])
        assert found == {"epoch": 3, 1: (None, "x")}


# --- what replaces what -----------------------------------------------------------------------


def test_each_save_leaves_only_its_own_files(tmp_path):
    path = tmp_path / "model.safetensors"
    others = [
        "model-best.safetensors",
        "model-00001-of-00002.txt",
        "other-00001-of-00002.safetensors",
    ]
    for name in others:
        (tmp_path / name).write_text("mine")
    for round_ in range(2):
        for count in (3, 3, 2, 1, 4):
            state = numbered(count, 10.0 * round_)
            save(state, path, max_shard_size=None if count == 1 else 400)
            assert equal(load(path), state)
            assert len(names(tmp_path)) == len(others) + (count + 1 if count > 1 else 1)
    assert all((tmp_path / name).read_text() == "mine" for name in others)


def test_shards_of_a_second_save_do_not_touch_those_of_the_first(tmp_path):
    path = tmp_path / "model.safetensors"
    save(numbered(2), path, max_shard_size=400)
    first = {name: (tmp_path / name).stat().st_ino for name in shards(2)[:-1]}
    save(numbered(2, 5.0), path, max_shard_size=400)
    assert not first.keys() & set(names(tmp_path))
    assert equal(load(path), numbered(2, 5.0))
    save(numbered(2, 7.0), path, max_shard_size=400)  # now the plain names are free again
    assert names(tmp_path) == shards(2)


def test_an_index_of_somebody_elses_is_replaced_without_deleting_other_files(tmp_path):
    foreign(tmp_path, numbered(2), ["part-a.safetensors", "model-00002-of-00002.safetensors"])
    save(numbered(1, 9.0), tmp_path / "model.safetensors")
    assert names(tmp_path) == ["model.safetensors", "part-a.safetensors"]
    (tmp_path / "model.safetensors.index.json").write_text("no index")
    save(numbered(1, 8.0), tmp_path / "model.safetensors")
    assert names(tmp_path) == ["model.safetensors", "part-a.safetensors"]
    assert equal(load(tmp_path), numbered(1, 8.0))


# --- what others wrote ------------------------------------------------------------------------


def foreign(folder, state, files, suffix=".safetensors"):
    """The files and the index that transformers' ``save_pretrained`` writes."""
    weight_map = dict(zip(state, files))
    for name, file in weight_map.items():
        if suffix == ".bin":
            torch.save({name: torch.from_numpy(state[name])}, folder / file)
        else:
            safetensors.numpy.save_file({name: state[name]}, folder / file, {"format": "pt"})
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    index = {"metadata": {"total_size": 800}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index, indent=2, sort_keys=True))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_index_and_shards_of_hugging_faces(tmp_path, suffix):
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    state = numbered(2)
    foreign(tmp_path, state, [f"{stem}-0000{i}-of-00002{suffix}" for i in (1, 2)], suffix)
    for path in (tmp_path, tmp_path / f"{stem}{suffix}", tmp_path / f"{stem}{suffix}.index.json"):
        assert equal(load(path), state)


def test_files_of_the_safetensors_package(tmp_path):
    path = tmp_path / "a.safetensors"
    state = {
        "half": torch.arange(3).to(torch.bfloat16),
        "eight": torch.ones(2).to(torch.float8_e5m2),
    }
    safetensors.torch.save_file(state, path)
    found = load(path)
    assert type(found) is dict and found["half"].dtype == jnp.bfloat16
    assert found["eight"].dtype == jnp.float8_e5m2 and found["half"].tolist() == [0, 1, 2]
    back = {"half": found["half"], "eight": found["eight"]}
    save(back, path)
    for name, tensor in safetensors.torch.load_file(path).items():
        assert tensor.dtype == state[name].dtype and torch.equal(
            tensor.float(), state[name].float()
        )


def test_ties_that_safetensors_notes(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(2, 2, bias=False)
            self.b = torch.nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

    theirs = Model()
    safetensors.torch.save_model(theirs, str(tmp_path / "a.safetensors"))
    found = load(tmp_path / "a.safetensors")
    assert found.keys() == {"a.weight", "b.weight"} and found["a.weight"] is found["b.weight"]
    ours = nn.Sequential(nn.Linear(2, 2, bias=False))
    ours.load_state_dict({"0.weight": found["b.weight"]})
    save({"a.weight": ours[0].weight}, tmp_path / "b.safetensors")
    safetensors.torch.load_model(Model(), str(tmp_path / "b.safetensors"))


def test_symbolic_links_as_in_hugging_faces_cache(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir(), snapshot.mkdir()
    save(numbered(2), blobs / "model.safetensors", max_shard_size=400)
    for number, name in enumerate(names(blobs)):
        (blobs / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(blobs / str(number))
    assert equal(load(snapshot), numbered(2))


# --- what does not belong together ------------------------------------------------------------


def test_missing_shards_are_all_named(tmp_path):
    save(numbered(4), tmp_path / "model.safetensors", max_shard_size=400)
    for i in (2, 4):
        (tmp_path / f"model-0000{i}-of-00004.safetensors").unlink()
    words = (
        r"model.safetensors.index.json needs 4 files, and these are missing: .*00002-of-.*00004-of-"
    )
    with pytest.raises(CheckpointError, match=words):
        load(tmp_path)


def test_shards_of_two_saves_are_not_mixed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(numbered(2), tmp_path / name / "model.safetensors", max_shard_size=400)
    wrong = "model-00002-of-00002.safetensors"
    (tmp_path / "b" / wrong).replace(tmp_path / "a" / wrong)
    with pytest.raises(
        CheckpointError, match=r"00002-of-00002.*index\.json are not of the same save"
    ):
        load(tmp_path / "a")


def test_shards_that_lack_an_array(tmp_path):
    foreign(tmp_path, numbered(2), ["a.safetensors", "b.safetensors"])
    safetensors.numpy.save_file({"w0": np.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors lacks what .*index\.json.*: w1"):
        load(tmp_path)


def test_one_shard_alone_gives_its_arrays(tmp_path):
    save(
        numbered(2) | {"c": np.ones(50, complex)},
        tmp_path / "model.safetensors",
        max_shard_size=400,
    )
    assert equal(load(tmp_path / "model-00002-of-00003.safetensors"), {"w1": numbered(2)["w1"]})
    assert load(tmp_path / "model-00003-of-00003.safetensors")["c"].dtype == complex


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an index of shards, or it is truncated"),
        ('{"weight_map": {"a": "b', "truncated"),
        ("[]", "no readable weight_map"),
        ('{"weight_map": ["a"]}', "no readable weight_map"),
        ('{"weight_map": {"a": 3}}', "no readable weight_map"),
        ('{"config": 1}', "no readable weight_map"),
        ('{"weight_map": {"a": "../secret"}}', "outside its own folder: '../secret'"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "outside its own folder"),
        (
            '{"weight_map": {}, "metadata": {"funcnets": "{\\"version\\": 2}"}}',
            "by a newer funcnets",
        ),
        (
            '{"weight_map": {}, "metadata": {"funcnets": "{"}}',
            "description in its header is damaged",
        ),
    ],
)
def test_a_damaged_index(tmp_path, text, words):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)
