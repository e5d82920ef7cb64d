"""What goes in comes out: containers, numbers, dtypes bit for bit, ties, keys; and what is refused."""

from __future__ import annotations

import collections
import enum
import json
import math
import pathlib
import struct
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import NamedSharding, PartitionSpec

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, MissingExtraError
from funcnets.io import load, save

FORMATS = ["x.safetensors", "x.pt"]


def same(a, b):
    """Equal in type and value; arrays in dtype, shape and bits."""
    if isinstance(a, (jax.Array, np.ndarray, np.generic)):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return a.dtype == b.dtype and same(jax.random.key_data(a), jax.random.key_data(b))
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b) if isinstance(a, (float, complex)) else a == b


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(3)


# --- containers and plain values --------------------------------------------------------------


PLAIN = {
    "nothing": None,
    "numbers": [True, 0, -(10**40), 0.1, -0.0, math.inf, -math.inf, math.nan, 1e-310],
    "complex": complex(math.nan, -0.0),
    "text": ["", "\u00e9\n\"\\", "\U0001f600", "\ud800"],
    "bytes": bytes(range(256)),
    "nested": ({"a": ({},), 7: [[]]}, ()),
    "order": {"z": 1, "a": 2, "m": 3},
    0: "int",
    1.5: "float",
    None: "none",
    ("a", (1, None)): "tuple",
    "set": {1, "a", None, (2, 3)},
    "counter": collections.Counter({30: 1, 80: 2}),
    "ordered": collections.OrderedDict(b=1, a=collections.OrderedDict()),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_plain_values_come_back_as_they_were(tmp_path, name):
    assert save(PLAIN, tmp_path / name) is None
    assert same(load(tmp_path / name), PLAIN)
    for obj in (None, 3, "text", [], {}, (1, [2])):
        save(obj, tmp_path / name)
        assert same(load(tmp_path / name), obj)


def test_keys_that_differ_in_type_only_stay_what_they_are(tmp_path):
    saved = {False: "bool", "0": "str", "False": np.ones(1, np.float32), ("0",): 1}
    save(saved, tmp_path / "x.safetensors")
    found = load(tmp_path / "x.safetensors")
    assert list(map(type, found)) == [bool, str, str, tuple]


def test_other_mappings_and_sequences_come_back_as_dict_list_and_tuple(tmp_path):
    saved = [
        types.MappingProxyType({"a": 1}),
        collections.defaultdict(list, b=[2]),
        type("Mine", (list,), {})([3]),
    ]
    save(saved, tmp_path / "x.safetensors")
    assert same(load(tmp_path / "x.safetensors"), [{"a": 1}, {"b": [2]}, [3]])


# --- arrays -----------------------------------------------------------------------------------

SMALL = ["int2", "int4", "uint2", "uint4", "float4_e2m1fn"]
FLOAT8 = ["e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"]
JAX_DTYPES = [
    *SMALL,
    *(f"float8_{kind}" for kind in FLOAT8),
    *(np.dtype(code).name for code in "?bhiBHIefF"),
    "bfloat16",
]


def every_bit_pattern(name):
    """All patterns of dtypes of up to 16 bits, NaNs and denormals among them, else random ones."""
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    if name == "bool":
        return np.array([False, True])
    if name in SMALL:  # a byte each in memory, with the number in its lower bits
        return np.arange(-8, 8).astype(dtype)
    if dtype.itemsize <= 2:
        patterns = np.arange(256**dtype.itemsize, dtype=f"uint{8 * dtype.itemsize}")
        return patterns.view(dtype)
    random = np.random.default_rng(0).bytes(64 * dtype.itemsize)
    return np.frombuffer(random, dtype)


def test_every_dtype_is_kept_bit_for_bit(tmp_path):
    names = [*JAX_DTYPES, "int64", "uint64", "float64", "complex128"]
    saved = {name: every_bit_pattern(name) for name in names}
    # Shapes of rank 0 and 2 and an empty one take other ways through the format.
    saved |= {f"{name} empty": saved[name][:0].reshape(0, 3) for name in ("int4", "float32")}
    saved |= {f"{name} scalar": saved[name][1] for name in ("int4", "bfloat16", "complex128")}
    saved["table"] = saved["bfloat16"].reshape(256, 256)
    saved |= {f"jax {name}": jnp.asarray(saved[name]) for name in JAX_DTYPES}
    save(saved, tmp_path / "x.safetensors")
    found = load(tmp_path / "x.safetensors")
    assert same(saved, found)
    for name in names:  # what JAX would cut to 32 bits stays NumPy's
        assert isinstance(found[name], np.ndarray if name in names[-4:] else jax.Array)
    with jax.enable_x64(True):
        wide = load(tmp_path / "x.safetensors")
        assert all(isinstance(wide[name], jax.Array) for name in names)
        assert same(saved, wide)


def test_memory_layout_does_not_matter(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    saved = {
        "transposed": base.T,
        "strided": base[::2, ::-3],
        "broadcast": np.broadcast_to(base[0], (3, 6)),
        "fortran": np.asfortranarray(base),
        "swapped": base.astype(">f4"),
        "readonly": np.frombuffer(b"\1\2\3", np.uint8),
        "matrix": jnp.asarray(base).T,
    }
    save(saved, tmp_path / "x.safetensors")
    found = load(tmp_path / "x.safetensors")
    for name, array in saved.items():
        assert np.array_equal(found[name], array)
    assert found["swapped"].dtype == np.float32


def test_arrays_over_devices_are_gathered(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
    x = jnp.arange(32.0).reshape(8, 4)
    parts = [PartitionSpec("a", "b"), PartitionSpec("b"), PartitionSpec()]
    saved = {str(p): jax.device_put(x, NamedSharding(mesh, p)) for p in parts}
    path = tmp_path / "x.safetensors"
    save(saved, path)
    plain = safetensors.numpy.load_file(path)
    assert all(np.array_equal(plain[name], x) for name in saved)
    place = NamedSharding(mesh, PartitionSpec("a"))
    found = load(path, device=place)
    assert all(y.sharding == place and np.array_equal(y, x) for y in found.values())
    assert next(iter(load(path, device="cpu:3").values())).devices() == {jax.devices()[3]}


def test_prng_keys_keep_data_algorithm_and_shape(tmp_path):
    key = jax.random.key(7)
    saved = {
        "one": key,
        "again": key,
        "many": jax.random.split(jax.random.key(1), (2, 3)),
        "rbg": jax.random.key(2, impl="rbg"),
        "raw": jax.random.key_data(key),
    }
    for name in FORMATS:
        save(saved, tmp_path / name)
        found = load(tmp_path / name)
        assert same(found, saved)
        assert jax.random.normal(found["one"]) == jax.random.normal(key)


def test_nothing_of_the_callers_is_changed(tmp_path):
    weight, numbers = jnp.ones(2), np.arange(3.0)
    saved = {"a": weight, "b": numbers, "c": [weight], "d": nn.Parameter(jnp.ones(1))}
    before = dict(saved)
    for name in FORMATS:
        save(saved, tmp_path / name)
        assert saved.keys() == before.keys() and all(saved[k] is before[k] for k in saved)
        assert saved["c"][0] is weight and not weight.is_deleted()
        assert isinstance(load(tmp_path / name)["d"], jax.Array)


# --- ties and state_dicts ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_tied_weight_is_stored_once_and_comes_back_tied(tmp_path, name):
    state = Tied().state_dict()
    save({"model": state, "copy": [state["head.weight"]]}, tmp_path / name)
    found = load(tmp_path / name)
    weights = [found["model"][k] for k in ("embed.weight", "head.weight")] + found["copy"]
    assert all(w is weights[0] for w in weights) and same(weights[0], state["embed.weight"])
    model = Tied()
    assert model.load_state_dict(found["model"]).missing_keys == []
    assert model.head.weight is model.embed.weight
    if name.endswith("safetensors"):
        names = set(safetensors.numpy.load_file(tmp_path / name))
        assert names == {f"model.{k}" for k in state} - {"model.head.weight"}


def test_a_state_dict_keeps_names_order_and_versions(tmp_path):
    model = Tied()
    state = model.state_dict()
    for name in FORMATS:
        save(state, tmp_path / name)
        found = load(tmp_path / name)
        assert same(found, state) and found._metadata == state._metadata
        assert repr(model.load_state_dict(found)) == "<All keys matched successfully>"
    lazy = nn.LazyLinear(3)
    save(state, tmp_path / "a.safetensors")
    assert set(safetensors.numpy.load_file(tmp_path / "a.safetensors")) == set(state) - {
        "head.weight"
    }
    with pytest.raises(ArgumentError, match=r"\['weight'\]: .*shape is not known"):
        save(lazy.state_dict(), tmp_path / "b.safetensors")


def test_params_and_state_of_the_pure_face(tmp_path):
    params, state = fn.functionalize(Tied()).init(jax.random.key(0))
    save((params, state), tmp_path / "x.safetensors")
    found = load(tmp_path / "x.safetensors")
    assert jax.tree.structure(found) == jax.tree.structure((params, state))
    assert all(map(same, jax.tree.leaves(found), jax.tree.leaves((params, state))))


def test_names_in_the_file_never_collide(tmp_path):
    one, two = np.float32([1]), np.float32([2])
    saved = {"a.b": one, "a": {"b": two, "b#2": one + two}, 1: one * 4, "1": one * 5}
    saved |= {"__metadata__": one * 6, "": one * 7, "format": one * 8, "\ud800": one * 9}
    save(saved, tmp_path / "x.safetensors")
    assert same(load(tmp_path / "x.safetensors"), saved)
    assert len(safetensors.numpy.load_file(tmp_path / "x.safetensors")) == 9
    save(one, tmp_path / "x.safetensors")
    assert same(load(tmp_path / "x.safetensors"), one)


def test_the_header_says_what_other_libraries_look_for(tmp_path):
    save({"w": np.zeros((2, 3), np.float32)}, tmp_path / "x.safetensors")
    data = (tmp_path / "x.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"]["format"] == "pt"  # transformers refuses files without
    assert header["w"] == {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


# --- refusals ---------------------------------------------------------------------------------

Point = collections.namedtuple("Point", "x")
Color = enum.IntEnum("Color", "RED")
loop: list = []
loop.append({"again": loop})
deep: list = []
for _ in range(100_000):
    deep = [deep]
donated = jnp.ones(2)
donated.delete()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"f": {"g": [print]}}, r"\['f'\]\['g'\]\[0\]: a builtin_function_or_method"),
        (nn.Linear(1, 1), r"the object itself: a Linear: save its state_dict\(\)"),
        ([Point(1)], r"\[0\]: a Point: a NamedTuple .* jax.tree.leaves"),
        ([Color.RED, pathlib.Path()], r"\[0\]: a Color\n\t\[1\]: a (Posix|Windows)Path"),
        ([frozenset()], "a frozenset"),
        ([np.array(["a"])], "<U1.*dtype cannot be saved"),
        ([np.array([None])], "object.*dtype cannot be saved"),
        ([np.array(["2020"], "M8[D]")], "dtype cannot be saved"),
        ({"x": {(1, Point(2)): 3}}, r"\['x'\]: a Point: as a key"),
        ({np.int64(1): 3}, "a int64: as a key"),
        (loop, r"\[0\]\['again'\]: a list: it contains itself"),
        (deep, "nested this deeply"),
        ([donated], r"\[0\]: float32\[2\]: its memory was donated"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path, value, words):
    for name in FORMATS:
        with pytest.raises(ArgumentError, match=words):
            save(value, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_saving_within_a_trace_is_refused(tmp_path):
    @jax.jit
    def traced(x):
        save({"x": x}, tmp_path / "x.safetensors")

    with pytest.raises(ArgumentError, match=r"\['x'\]: float32\[2\]: a tracer; save outside"):
        traced(jnp.ones(2))


def test_arrays_that_span_processes_are_refused(tmp_path, monkeypatch):
    array = jnp.ones(2)
    monkeypatch.setattr(type(array), "is_fully_addressable", property(lambda self: False))
    monkeypatch.setattr(type(array), "is_fully_replicated", property(lambda self: False))
    with pytest.raises(ArgumentError, match="spans several processes; .*process_allgather"):
        save([array], tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("model", {}, "must end in .safetensors, or in .pt"),
        ("model.npz", {}, "must end in .safetensors, or in .pt"),
        ("", {}, "is a folder"),
        (3, {}, "path must be a str or an os.PathLike, but got 3"),
        ("a.safetensors", {"max_shard_size": "much"}, "like '5GB' or '500MiB', but got 'much'"),
        ("a.safetensors", {"max_shard_size": 0}, "max_shard_size must be positive, but got 0"),
        ("a.safetensors", {"max_shard_size": True}, "must be an integer, but got True"),
        ("a.safetensors", {"max_shard_size": "0GB"}, "must be positive"),
        ("a.pt", {"max_shard_size": "1GB"}, "torch's are never split"),
    ],
)
def test_bad_arguments(tmp_path, path, options, words):
    path = path if isinstance(path, int) else tmp_path / path
    with pytest.raises(ArgumentError, match=words):
        save({}, path, **options)
    assert list(tmp_path.iterdir()) == []


def test_folders_and_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder.*nowhere'"):
        save({}, tmp_path / "nowhere" / "x.safetensors")
    with pytest.raises(FileNotFoundError, match=r"no such file.*x\.safetensors"):
        load(tmp_path / "x.safetensors")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors or .*, but notes\.txt"):
        load(tmp_path)
    with pytest.raises(ArgumentError, match="no device 'moon'"):
        load(tmp_path / "x.safetensors", device="moon")


@pytest.mark.parametrize(("package", "name"), [("safetensors", "x.safetensors"), ("torch", "x.pt")])
def test_without_the_optional_package(tmp_path, monkeypatch, package, name):
    save({"a": np.ones(1)}, tmp_path / name)
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"safetensors": "io", "torch": "torch"}[package]
    for action in (lambda: save({"a": 1}, tmp_path / name), lambda: load(tmp_path / name)):
        with pytest.raises(MissingExtraError, match=rf"pip install 'funcnets\[{extra}\]'"):
            action()
    assert [p.name for p in tmp_path.iterdir()] == [name]
