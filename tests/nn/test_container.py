"""The containers of modules against PyTorch: contents, printed text, names, refusals."""

from __future__ import annotations

import copy
import pickle
import types
import warnings
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, FuncnetsError

LIBRARIES = (torch.nn, nn)


def sequential(lib):
    return lib.Sequential(lib.Linear(2, 3), lib.ReLU(), lib.Linear(3, 1))


def named(lib):
    return lib.Sequential(OrderedDict(fc=lib.Linear(2, 3), act=lib.ReLU()))


def module_list(lib):
    return lib.ModuleList([lib.Linear(2, 3), lib.ReLU(), lib.Linear(3, 1)])


def module_dict(lib):
    return lib.ModuleDict({"b": lib.Linear(2, 3), "a": lib.ReLU()})


def change(module, action):
    """What ``action`` returns, or the changed container."""
    out = action(module)
    return module if out is None else out


def text(value):
    """The printed form of whatever an action gives; views and iterators by their contents."""
    if isinstance(value, (str, int, bool)) or hasattr(value, "state_dict"):
        return repr(value)
    return repr(list(value))


# Each is given the library and does the same in both.
SAME = {
    "sequential": lambda lib: sequential(lib),
    "sequential named": lambda lib: named(lib),
    "sequential empty": lambda lib: lib.Sequential(),
    "sequential one dict, ordered": lambda lib: lib.Sequential(OrderedDict()),
    "getitem": lambda lib: sequential(lib)[0],
    "getitem negative": lambda lib: sequential(lib)[-1],
    "getitem numpy": lambda lib: sequential(lib)[np.int64(1)],
    "slice": lambda lib: sequential(lib)[1:],
    "slice step": lambda lib: sequential(lib)[::2],
    "slice reversed": lambda lib: sequential(lib)[::-1],
    "slice named": lambda lib: named(lib)[:1],
    "slice of nothing": lambda lib: sequential(lib)[5:],
    "setitem": lambda lib: change(sequential(lib), lambda m: m.__setitem__(-1, lib.Tanh())),
    "setitem none": lambda lib: change(sequential(lib), lambda m: m.__setitem__(1, None)),
    "setitem named": lambda lib: change(named(lib), lambda m: m.__setitem__(1, lib.Tanh())),
    "delitem": lambda lib: change(sequential(lib), lambda m: m.__delitem__(0)),
    "delitem slice": lambda lib: change(sequential(lib), lambda m: m.__delitem__(slice(0, 2))),
    "delitem named": lambda lib: change(named(lib), lambda m: m.__delitem__(0)),
    "len": lambda lib: len(sequential(lib)),
    "iter": lambda lib: list(sequential(lib)),
    "reversed": lambda lib: list(reversed(sequential(lib))),
    "contains": lambda lib: lib.ReLU() in sequential(lib),
    "append": lambda lib: sequential(lib).append(lib.Tanh()),
    "append named": lambda lib: named(lib).append(lib.Tanh()),
    "insert": lambda lib: sequential(lib).insert(1, lib.Tanh()),
    "insert negative": lambda lib: sequential(lib).insert(-1, lib.Tanh()),
    "insert first": lambda lib: lib.Sequential().insert(0, lib.Tanh()),
    "insert last named": lambda lib: named(lib).insert(2, lib.Tanh()),
    "extend": lambda lib: sequential(lib).extend(module_list(lib)),
    "extend iterator": lambda lib: named(lib).extend(iter([lib.Tanh()])),
    "pop": lambda lib: sequential(lib).pop(-1),
    "pop changes": lambda lib: change(sequential(lib), lambda m: [m.pop(0), m][1]),
    "pop slice": lambda lib: sequential(lib).pop(slice(0, 2)),
    "add": lambda lib: named(lib) + sequential(lib),
    "iadd": lambda lib: sequential(lib).__iadd__(named(lib)),
    "iadd named": lambda lib: named(lib).__iadd__(named(lib)),
    "mul": lambda lib: named(lib) * 2,
    "mul true": lambda lib: sequential(lib) * True,
    "rmul": lambda lib: 2 * sequential(lib),
    "imul": lambda lib: sequential(lib).__imul__(3),
    "imul one": lambda lib: sequential(lib).__imul__(1),
    "dir": lambda lib: "0" in dir(sequential(lib)),
    "list": lambda lib: module_list(lib),
    "list empty": lambda lib: lib.ModuleList(),
    "list of an iterator": lambda lib: lib.ModuleList(lib.ReLU() for _ in range(3)),
    "list with none": lambda lib: lib.ModuleList([None, lib.ReLU()]),
    "list runs": lambda lib: lib.ModuleList(
        [lib.ReLU(), *(sequential(lib) for _ in range(3)), lib.ReLU(), lib.ReLU(), lib.Tanh()]
    ),
    "list in list": lambda lib: lib.ModuleList([module_list(lib), module_list(lib)]),
    "list twelve": lambda lib: lib.ModuleList(lib.Linear(1, 1) for _ in range(12)),
    "list getitem": lambda lib: module_list(lib)[-3],
    "list slice": lambda lib: module_list(lib)[1:],
    "list setitem": lambda lib: change(module_list(lib), lambda m: m.__setitem__(-1, lib.Tanh())),
    "list delitem": lambda lib: change(module_list(lib), lambda m: m.__delitem__(-2)),
    "list delitem slice": lambda lib: change(module_list(lib), lambda m: m.__delitem__(slice(0, 3, 2))),
    "list append": lambda lib: module_list(lib).append(lib.Tanh()),
    "list append none": lambda lib: module_list(lib).append(None),
    "list insert": lambda lib: change(module_list(lib), lambda m: m.insert(0, lib.Tanh())),
    "list insert last": lambda lib: change(module_list(lib), lambda m: m.insert(3, lib.Tanh())),
    "list insert returns": lambda lib: module_list(lib).insert(0, lib.Tanh()) is None,
    "list extend": lambda lib: module_list(lib).extend(sequential(lib)),
    "list pop": lambda lib: module_list(lib).pop(1),
    "list pop slice": lambda lib: module_list(lib).pop(slice(1, 3)),
    "list add": lambda lib: module_list(lib).__add__([lib.Tanh()]),
    "list iadd": lambda lib: module_list(lib).__iadd__([lib.Tanh()]),
    "list dir": lambda lib: "0" in dir(module_list(lib)),
    "dict": lambda lib: module_dict(lib),
    "dict empty": lambda lib: lib.ModuleDict(),
    "dict pairs": lambda lib: lib.ModuleDict([["x", lib.ReLU()], ("y", lib.Tanh())]),
    "dict with none": lambda lib: lib.ModuleDict({"a": None}),
    "dict getitem": lambda lib: module_dict(lib)["b"],
    "dict setitem": lambda lib: change(module_dict(lib), lambda m: m.__setitem__("b", lib.Tanh())),
    "dict delitem": lambda lib: change(module_dict(lib), lambda m: m.__delitem__("b")),
    "dict len": lambda lib: len(module_dict(lib)),
    "dict iter": lambda lib: list(module_dict(lib)),
    "dict contains": lambda lib: ("a" in module_dict(lib), "z" in module_dict(lib), 3 in module_dict(lib)),
    "dict clear": lambda lib: change(module_dict(lib), lambda m: m.clear()),
    "dict pop": lambda lib: module_dict(lib).pop("a"),
    "dict pop changes": lambda lib: change(module_dict(lib), lambda m: [m.pop("b"), m][1]),
    "dict keys": lambda lib: module_dict(lib).keys(),
    "dict items": lambda lib: module_dict(lib).items(),
    "dict values": lambda lib: module_dict(lib).values(),
    "dict update": lambda lib: change(module_dict(lib), lambda m: m.update({"z": lib.ReLU(), "c": lib.ReLU()})),
    "dict update dict": lambda lib: change(module_dict(lib), lambda m: m.update(lib.ModuleDict({"c": lib.ReLU()}))),
    "dict update pairs": lambda lib: change(module_dict(lib), lambda m: m.update([("c", lib.ReLU())])),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_same_as_torch(name):
    theirs, ours = map(SAME[name], LIBRARIES)
    assert text(ours) == text(theirs)
    if hasattr(theirs, "state_dict"):
        assert list(ours.state_dict()) == list(theirs.state_dict())


REFUSED = {
    "index": lambda lib: sequential(lib)[3],
    "index negative": lambda lib: sequential(lib)[-4],
    "index text": lambda lib: sequential(lib)["0"],
    "index float": lambda lib: sequential(lib)[1.0],
    "setitem index": lambda lib: sequential(lib).__setitem__(3, lib.ReLU()),
    "setitem slice": lambda lib: sequential(lib).__setitem__(slice(0, 1), lib.ReLU()),
    "setitem value": lambda lib: sequential(lib).__setitem__(0, 3),
    "delitem": lambda lib: sequential(lib).__delitem__(3),
    "pop": lambda lib: sequential(lib).pop(3),
    "constructor": lambda lib: lib.Sequential(3),
    "constructor list": lambda lib: lib.Sequential([lib.ReLU()]),
    "constructor dict": lambda lib: lib.Sequential({"a": lib.ReLU()}),
    "name": lambda lib: lib.Sequential(OrderedDict({"a.b": lib.ReLU()})),
    "name taken": lambda lib: lib.Sequential(OrderedDict({"forward": lib.ReLU()})),
    "append": lambda lib: sequential(lib).append(3),
    "insert index": lambda lib: sequential(lib).insert(4, lib.ReLU()),
    "insert named": lambda lib: named(lib).insert(0, lib.ReLU()),
    "extend": lambda lib: sequential(lib).extend(3),
    "extend value": lambda lib: sequential(lib).extend([3]),
    "add": lambda lib: sequential(lib) + 3,
    "add list": lambda lib: sequential(lib).__add__([lib.ReLU()]),
    "iadd": lambda lib: sequential(lib).__iadd__([lib.ReLU()]),
    "mul": lambda lib: sequential(lib) * 2.0,
    "mul zero": lambda lib: sequential(lib) * 0,
    "rmul": lambda lib: "a" * sequential(lib),
    "imul": lambda lib: sequential(lib).__imul__(-1),
    "imul float": lambda lib: sequential(lib).__imul__(1.5),
    "imul named": lambda lib: named(lib).__imul__(2),
    "list index": lambda lib: module_list(lib)[3],
    "list index text": lambda lib: module_list(lib)["0"],
    "list setitem": lambda lib: module_list(lib).__setitem__(9, lib.ReLU()),
    "list setitem value": lambda lib: module_list(lib).__setitem__(0, 3),
    "list delitem": lambda lib: module_list(lib).__delitem__(9),
    "list pop": lambda lib: module_list(lib).pop(9),
    "list append": lambda lib: module_list(lib).append(3),
    "list extend": lambda lib: module_list(lib).extend(3),
    "list extend value": lambda lib: module_list(lib).extend([3]),
    "list constructor": lambda lib: lib.ModuleList(lib.ReLU()),
    "list of a dict": lambda lib: lib.ModuleList({"a": lib.ReLU()}),
    "list add": lambda lib: module_list(lib) + 3,
    "list add value": lambda lib: module_list(lib).__add__([3]),
    "list call": lambda lib: module_list(lib)(1),
    "dict key": lambda lib: module_dict(lib)["z"],
    "dict key number": lambda lib: module_dict(lib)[0],
    "dict delitem": lambda lib: module_dict(lib).__delitem__("z"),
    "dict pop": lambda lib: module_dict(lib).pop("z"),
    "dict update": lambda lib: module_dict(lib).update(3),
    "dict update element": lambda lib: module_dict(lib).update([3]),
    "dict update length": lambda lib: module_dict(lib).update([[1]]),
    "dict update value": lambda lib: module_dict(lib).update({"c": 3}),
    "dict update name": lambda lib: module_dict(lib).update({3: lib.ReLU()}),
    "dict name dot": lambda lib: lib.ModuleDict({"a.b": lib.ReLU()}),
    "dict name empty": lambda lib: lib.ModuleDict({"": lib.ReLU()}),
    "dict name taken": lambda lib: lib.ModuleDict({"keys": lib.ReLU()}),
    "dict call": lambda lib: module_dict(lib)(1),
    "dict or": lambda lib: module_dict(lib) | module_dict(lib),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_by_torch(name):
    with pytest.raises(Exception) as theirs:
        REFUSED[name](torch.nn)
    with pytest.raises(theirs.type) as ours:
        REFUSED[name](nn)
    if name != "dict or":  # Python itself refuses that
        assert isinstance(ours.value, FuncnetsError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("index", "index 3 is out of range"),
        ("index text", "an index must be an integer"),
        ("constructor list", "is not a Module subclass"),
        ("insert index", "Index out of range: 4"),
        ("insert named", "insert needs modules named 0, 1, 2, .* they are fc, act"),
        ("add", "add operator supports only objects of Sequential class"),
        ("mul", "unsupported operand type"),
        ("mul zero", "Non-positive multiplication factor 0"),
        ("list extend", "ModuleList.extend should be called with an iterable, but got int"),
        ("dict key", "'z' is not among the keys of this ModuleDict: 'b', 'a'"),
        ("dict update", "ModuleDict.update should be called with an iterable"),
        ("dict update element", "#0 should be Iterable; is int"),
        ("dict update length", "#0 has length 1; 2 is required"),
        ("list call", "missing the required"),
    ],
)
def test_messages(name, message):
    with pytest.raises(FuncnetsError, match=message):
        REFUSED[name](nn)


# --- where PyTorch breaks its own container ---------------------------------------------------


def test_append_to_a_slice_replaces_nothing():
    part = sequential(nn)[1:]
    with pytest.raises(ArgumentError, match="'2', which another has"):
        part.append(nn.Tanh())
    assert len(nn.Sequential(*part).append(nn.Tanh())) == 3


def test_list_insert_takes_the_positions_of_sequential():
    layers = module_list(nn)
    layers.insert(-1, nn.Tanh())
    assert [type(m).__name__ for m in layers] == ["Linear", "ReLU", "Tanh", "Linear"]
    with pytest.raises(IndexError, match="Index out of range: 9"):
        layers.insert(9, nn.Tanh())
    with pytest.raises(DTypeError, match="module should be of type"):
        layers.insert(0, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DTypeError, match="module should be of type"):
        sequential(nn).insert(0, 3)  # pyright: ignore[reportArgumentType]


def test_a_failed_change_changes_nothing():
    for make in (sequential, module_list):
        container = make(nn)
        before = repr(container)
        with pytest.raises(DTypeError):
            container.extend([nn.Tanh(), 3])
        assert repr(container) == before
    unbroken = named(nn)
    with pytest.raises(KeyError):
        unbroken.insert(0, nn.Tanh())
    assert list(unbroken._modules) == ["fc", "act"]


def test_a_container_extends_itself():
    layers = sequential(nn)
    layers += layers
    assert len(layers) == 6
    assert layers[3] is layers[0]


# --- in the two faces -------------------------------------------------------------------------


def test_sequential_computes_what_torch_does():
    theirs, ours = sequential(torch.nn), sequential(nn)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    np.testing.assert_allclose(
        ours(jnp.asarray(x)), theirs(torch.tensor(x)).detach(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        ours[:2](x), theirs[:2](torch.tensor(x)).detach(), rtol=1e-5, atol=1e-6
    )
    assert nn.Sequential()(x) is x


def test_shared_modules_are_stored_once():
    twice = sequential(nn) * 2
    assert len(list(twice.parameters())) == 4
    assert len(twice.state_dict()) == 8
    params, _ = fn.functionalize(twice).init(jax.random.key(0))
    assert sorted(params) == ["0", "2"]


class Choice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.acts = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})

    def forward(self, x, act):
        for i, layer in enumerate(self.layers):
            x = self.acts[act](layer(x)) + self.layers[i // 2](x)
        return self.layers[-1:][0](x)


def test_lists_and_dicts_in_a_forward():
    model = Choice()
    init, apply = fn.functionalize(model)
    params, state = init(jax.random.key(0))
    assert sorted(params["layers"]) == ["0", "1", "2"]
    x = jnp.ones((2, 3))
    out, _ = apply(params, state, x, "tanh")
    compiled = jax.jit(lambda p, x: apply(p, state, x, "tanh")[0])(params, x)
    np.testing.assert_allclose(out, compiled, rtol=1e-5, atol=1e-6)
    assert jax.grad(lambda p: apply(p, state, x, "relu")[0].sum())(params)["layers"]["0"][
        "bias"
    ].shape == (3,)


@pytest.mark.parametrize("read", [list, lambda m: [m[i] for i in range(len(m))]])
def test_a_compiled_function_sees_that_the_list_has_changed(read):
    # Held by a plain object's object, so that nothing but reading it tells that it is used.
    holder = types.SimpleNamespace(inner=types.SimpleNamespace(layers=nn.ModuleList([nn.ReLU()])))

    @fn.jit
    def step(x):
        for layer in read(holder.inner.layers):
            x = layer(x)
        return x

    assert step(jnp.ones(2)).tolist() == [1, 1]
    holder.inner.layers.append(nn.Threshold(2.0, 5.0))
    assert step(jnp.ones(2)).tolist() == [5, 5]
    holder.inner.layers.pop(0)
    holder.inner.layers[0] = nn.Identity()
    assert step(jnp.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("make", [sequential, named, module_list, module_dict])
def test_copies_and_pickles(make):
    container = make(nn)
    for twin in (copy.deepcopy(container), pickle.loads(pickle.dumps(container))):
        assert repr(twin) == repr(container)
        for name, value in container.state_dict().items():
            np.testing.assert_array_equal(twin.state_dict()[name], value)


def test_container_is_deprecated():
    for lib in LIBRARIES:
        with pytest.warns(FutureWarning, match="`nn.Container` is deprecated"):
            module = lib.Container(a=lib.ReLU())
        assert repr(module) == "Container(\n  (a): ReLU()\n)"
        with pytest.raises(NotImplementedError, match="missing the required"):
            module(1)
        with pytest.warns(FutureWarning, match="`nn.Container` is deprecated"):
            mine = type("Mine", (lib.Container,), {})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert repr(mine(b=lib.ReLU())) == "Mine(\n  (b): ReLU()\n)"
    with pytest.warns(FutureWarning), pytest.raises(DTypeError, match="not a Module subclass"):
        nn.Container(a=3)
