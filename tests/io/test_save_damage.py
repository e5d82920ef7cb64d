"""Files that are cut short, altered or something else: refused, by name, without a crash."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct

import numpy as np
import pytest
import torch

from funcnets.errors import CheckpointError
from funcnets.io import load, save


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "x.safetensors"
    save({"a": np.arange(6, dtype=np.float32), "b": {"c": np.ones(2, complex)}}, path)
    return path, path.read_bytes()


def refused(path, words="file of torch's|run any program"):
    with pytest.raises(CheckpointError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_every_truncation_is_noticed(good):
    path, data = good
    for size in range(len(data)):
        path.write_bytes(data[:size])
        refused(path, "truncated")
    path.write_bytes(data[:-1])
    refused(path, f"is truncated: {len(data)} bytes expected, {len(data) - 1} found")
    path.write_bytes(data + b"more")
    refused(path, "goes on after its end")


def test_every_changed_byte_of_the_header_is_noticed_or_harmless(good):
    path, data = good
    (length,) = struct.unpack("<Q", data[:8])
    random = np.random.default_rng(0)
    noticed = 0
    for _ in range(300):
        broken = bytearray(data)
        broken[random.integers(0, 8 + length)] = random.integers(0, 256)
        path.write_bytes(broken)
        with contextlib.suppress(CheckpointError):
            load(path)
            noticed -= 1
        noticed += 1
    assert noticed > 200


def header(text, data=b""):
    return struct.pack("<Q", len(text)) + text.encode() + data


ENTRY = '{"dtype": "%s", "shape": [%s], "data_offsets": [%d, %d]}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a safetensors file, or it is truncated within its header .0 bytes"),
        (b"hello, this is a text and no model at all", "is not a safetensors file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is not a safetensors file"),
        (b"\xff" * 50, "is not a safetensors file"),
        (header("[]"), "is not a safetensors file"),
        (header('{"a": 1}'), "is not a safetensors file"),
        (header('{"a": %s}' % (ENTRY % ("F32", "3", 0, 8)), bytes(8)), "is damaged: .*tensor"),
        (header('{"a": %s}' % (ENTRY % ("F4", "4", 0, 2)), bytes(2)), "'a' has the dtype F4"),
        (header('{"a": %s}' % (ENTRY % ("X7", "4", 0, 2)), bytes(2)), "is damaged"),
        (header('{"__metadata__": {"funcnets": "1"}}'), "description in its header is damaged"),
        (header('{"__metadata__": {"funcnets": "{\\"version\\": 9}"}}'), "newer funcnets .*is 9"),
    ],
)  # fmt: skip
def test_foreign_content(tmp_path, content, words):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refused(path, words)


def rewrite(path, **changes):
    """Change our description in the header of a file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    ours = json.loads(head["__metadata__"]["funcnets"])
    head["__metadata__"]["funcnets"] = json.dumps(ours | changes)
    path.write_bytes(header(json.dumps(head), data[8 + length :]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tree": {"array": "zzz"}}, "does not fit its arrays .*zzz"),
        (
            {"tree": {"matrix": 1}},
            "it has a 'matrix', which this version of funcnets does not know",
        ),
        ({"tree": {"dict": [1]}}, "does not fit"),
        ({"tree": {"dict": [[{"array": "a"}, 1]]}}, "does not fit"),
        ({"tree": {}}, "does not fit"),
        ({"tree": {"key": ["a", "threefry2x32"]}}, "does not fit"),
        ({"raw": {"a": ["int99", [1]]}}, "the note on 'a' is damaged"),
        ({"raw": {"b.c": ["complex128", [7]]}}, "the note on 'b.c' is damaged"),
    ],
)
def test_a_description_that_does_not_fit(good, changes, words):
    path, _ = good
    rewrite(path, **changes)
    refused(path, words)


# --- torch's files ----------------------------------------------------------------------------


def test_truncated_files_of_torch(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.arange(100)}, path)
    data = path.read_bytes()
    for size in (*range(4, 40), *range(40, len(data), 97), len(data) - 1):
        path.write_bytes(data[:size])
        refused(path, "truncated")


class Evil:
    def __reduce__(self):
        return (open, ("/nonexistent/canary", "w"))


def test_nothing_in_a_file_is_run(tmp_path):
    for name, write in (
        ("zip.pt", torch.save),
        ("pickle.pt", lambda o, p: p.write_bytes(pickle.dumps(o, 2))),
    ):
        path = tmp_path / name
        write({"a": Evil()}, path)
        with pytest.raises(CheckpointError):  # and not FileNotFoundError
            load(path)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    refused(tmp_path / "model.pt", r"could run any program; .*weights_only=False")


def test_other_files_that_look_like_torchs(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    refused(tmp_path / "x.npz", "is not a file of torch's")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": object}, 2))
    refused(tmp_path / "x.pkl")
