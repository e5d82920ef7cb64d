"""The containers of parameters against PyTorch: contents, printed text, names, refusals."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, FuncnetsError


class Torch:
    """The few things that the two libraries call differently."""

    nn = torch.nn
    ones = staticmethod(
        lambda *shape, dtype="float32": torch.ones(shape, dtype=getattr(torch, dtype))
    )


class Ours:
    nn = nn
    ones = staticmethod(lambda *shape, dtype="float32": jnp.ones(shape, dtype))


def parameter_list(lib):
    return lib.nn.ParameterList([lib.ones(2, 3), lib.nn.Parameter(lib.ones()), 3])


def parameter_dict(lib):
    return lib.nn.ParameterDict({"b": lib.ones(2, 3), "a": 3})


def change(module, action):
    action(module)
    return module


def ints(lib):
    return lib.nn.Parameter(lib.ones(2, dtype="int32"), requires_grad=False)


SAME = {
    "list": lambda lib: parameter_list(lib),
    "list empty": lambda lib: lib.nn.ParameterList(),
    "list of one": lambda lib: lib.nn.ParameterList(iter([lib.ones(4)])),
    "list of empty": lambda lib: lib.nn.ParameterList([lib.nn.Parameter(lib.ones(0, 2))]),
    "list of objects": lambda lib: lib.nn.ParameterList(["x", None, lib.nn.Linear(1, 2), 2.0, [lib.ones(1)]]),
    "list of a dict": lambda lib: lib.nn.ParameterList({"a": lib.ones(2)}),
    "list frozen": lambda lib: lib.nn.ParameterList([lib.nn.Parameter(lib.ones(2), requires_grad=False), ints(lib)]),
    "list of a buffer": lambda lib: lib.nn.ParameterList([lib.nn.Buffer(lib.ones(2))]),
    "list half": lambda lib: lib.nn.ParameterList([lib.ones(1, dtype="bfloat16"), lib.ones(1, dtype="float16")]),
    "list getitem": lambda lib: parameter_list(lib)[-3].shape,
    "list getitem object": lambda lib: parameter_list(lib)[2],
    "list slice": lambda lib: parameter_list(lib)[1:],
    "list slice reversed": lambda lib: parameter_list(lib)[::-1],
    "list len": lambda lib: len(parameter_list(lib)),
    "list iter": lambda lib: [type(p).__name__ for p in parameter_list(lib)],
    "list setitem": lambda lib: change(parameter_list(lib), lambda m: m.__setitem__(-1, lib.ones(4))),
    "list setitem none": lambda lib: change(parameter_list(lib), lambda m: m.__setitem__(0, None)),
    "list setitem object": lambda lib: change(parameter_list(lib), lambda m: m.__setitem__(2, "x")),
    "list append": lambda lib: parameter_list(lib).append(lib.ones(1)),
    "list extend": lambda lib: parameter_list(lib).extend([lib.ones(1), 4]),
    "list extend list": lambda lib: parameter_list(lib).extend(parameter_list(lib)),
    "list iadd": lambda lib: parameter_list(lib).__iadd__((lib.ones(1),)),
    "list dir": lambda lib: "0" in dir(parameter_list(lib)),
    "list in a module": lambda lib: lib.nn.ModuleList([parameter_list(lib), parameter_dict(lib)]),
    "dict": lambda lib: parameter_dict(lib),
    "dict empty": lambda lib: lib.nn.ParameterDict(),
    "dict ordered": lambda lib: lib.nn.ParameterDict(OrderedDict(b=lib.ones(1), a=lib.ones(2))),
    "dict pairs": lambda lib: lib.nn.ParameterDict([["x", lib.ones(1)], ("a", None)]),
    "dict of objects": lambda lib: lib.nn.ParameterDict({"a": None, "m": lib.nn.ReLU(), "s": "text"}),
    "dict complex": lambda lib: lib.nn.ParameterDict({"a": lib.ones(2, dtype="complex64")}),
    "dict half": lambda lib: lib.nn.ParameterDict({"a": lib.ones(2, dtype="float16"), "b": lib.ones(1, dtype="bfloat16")}),
    "dict getitem": lambda lib: parameter_dict(lib)["b"].shape,
    "dict attribute": lambda lib: parameter_dict(lib).b.shape,
    "dict attribute as key": lambda lib: change(parameter_dict(lib), lambda m: setattr(m, "c", lib.nn.Parameter(lib.ones(1))))["c"].shape,
    "dict setitem": lambda lib: change(parameter_dict(lib), lambda m: m.__setitem__("c", lib.ones(1))),
    "dict setitem none": lambda lib: change(parameter_dict(lib), lambda m: m.__setitem__("b", None)),
    "dict delitem": lambda lib: change(parameter_dict(lib), lambda m: m.__delitem__("b")),
    "dict delitem object": lambda lib: change(parameter_dict(lib), lambda m: m.__delitem__("a")),
    "dict len": lambda lib: len(parameter_dict(lib)),
    "dict iter": lambda lib: list(parameter_dict(lib)),
    "dict reversed": lambda lib: list(reversed(parameter_dict(lib))),
    "dict contains": lambda lib: ("b" in parameter_dict(lib), "z" in parameter_dict(lib), 3 in parameter_dict(lib)),
    "dict copy": lambda lib: parameter_dict(lib).copy(),
    "dict setdefault": lambda lib: change(parameter_dict(lib), lambda m: m.setdefault("c", lib.ones(1))),
    "dict setdefault there": lambda lib: parameter_dict(lib).setdefault("b", 4).shape,
    "dict setdefault none": lambda lib: parameter_dict(lib).setdefault("c"),
    "dict clear": lambda lib: change(parameter_dict(lib), lambda m: m.clear()),
    "dict pop": lambda lib: parameter_dict(lib).pop("b").shape,
    "dict pop changes": lambda lib: change(parameter_dict(lib), lambda m: m.pop("a")),
    "dict popitem": lambda lib: parameter_dict(lib).popitem()[0],
    "dict popitem changes": lambda lib: change(parameter_dict(lib), lambda m: m.popitem()),
    "dict get": lambda lib: (parameter_dict(lib).get("a"), parameter_dict(lib).get("z"), parameter_dict(lib).get("z", 5)),
    "dict fromkeys": lambda lib: parameter_dict(lib).fromkeys(["v", "u"], lib.ones(2)),
    "dict fromkeys none": lambda lib: parameter_dict(lib).fromkeys(["v", "u"]),
    "dict keys": lambda lib: list(parameter_dict(lib).keys()),
    "dict items": lambda lib: [k for k, _ in parameter_dict(lib).items()],
    "dict values": lambda lib: [type(v).__name__ for v in parameter_dict(lib).values()],
    "dict update": lambda lib: change(parameter_dict(lib), lambda m: m.update({"z": 1, "c": lib.ones(1)})),
    "dict update dict": lambda lib: change(parameter_dict(lib), lambda m: m.update(lib.nn.ParameterDict([("z", 1), ("c", 2)]))),
    "dict or": lambda lib: parameter_dict(lib) | {"q": lib.ones(1)},
    "dict ror": lambda lib: sorted({"q": 1} | parameter_dict(lib)),
    "dict ior": lambda lib: parameter_dict(lib).__ior__({"q": lib.ones(1), "p": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_same_as_torch(name):
    theirs, ours = SAME[name](Torch), SAME[name](Ours)
    if isinstance(theirs, torch.Size):
        assert tuple(theirs) == ours
        return
    assert repr(ours) == repr(theirs)
    if hasattr(theirs, "state_dict"):
        assert list(ours.state_dict()) == list(theirs.state_dict())


REFUSED = {
    "list index": lambda lib: parameter_list(lib)[3],
    "list index text": lambda lib: parameter_list(lib)["0"],
    "list setitem": lambda lib: parameter_list(lib).__setitem__(5, lib.ones(1)),
    "list setitem object": lambda lib: parameter_list(lib).__setitem__(0, 3),
    "list constructor": lambda lib: lib.nn.ParameterList(3),
    "list constructor array": lambda lib: lib.nn.ParameterList(lib.ones(3)),
    "list ints": lambda lib: lib.nn.ParameterList([lib.ones(1, dtype="int32")]),
    "list call": lambda lib: parameter_list(lib)(1),
    "dict key": lambda lib: parameter_dict(lib)["z"],
    "dict key number": lambda lib: parameter_dict(lib)[3],
    "dict number": lambda lib: lib.nn.ParameterDict({3: lib.ones(1)}),
    "dict delitem": lambda lib: parameter_dict(lib).__delitem__("z"),
    "dict setitem object": lambda lib: parameter_dict(lib).__setitem__("b", 3),
    "dict pop": lambda lib: parameter_dict(lib).pop("z"),
    "dict popitem": lambda lib: lib.nn.ParameterDict().popitem(),
    "dict constructor": lambda lib: lib.nn.ParameterDict(3),
    "dict element": lambda lib: lib.nn.ParameterDict([3]),
    "dict element length": lambda lib: lib.nn.ParameterDict([[3]]),
    "dict name dot": lambda lib: lib.nn.ParameterDict({"a.b": lib.ones(1)}),
    "dict name empty": lambda lib: lib.nn.ParameterDict({"": lib.ones(1)}),
    "dict name taken": lambda lib: lib.nn.ParameterDict({"keys": lib.ones(1)}),
    "dict or": lambda lib: parameter_dict(lib) | 3,
    "dict call": lambda lib: parameter_dict(lib)(1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_by_torch(name):
    with pytest.raises(Exception) as theirs:
        REFUSED[name](Torch)
    with pytest.raises(theirs.type) as ours:
        REFUSED[name](Ours)
    assert isinstance(ours.value, FuncnetsError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("list index", "index 3 is out of range"),
        ("list constructor array", "should be called with an iterable.* use append"),
        ("list call", "ParameterList should not be called"),
        ("dict key", "'z' is not among the keys of this ParameterDict: 'a', 'b'"),
        ("dict number", "a key of ParameterDict must be a string, but got"),
        ("dict popitem", "dictionary is empty"),
        ("dict constructor", "should be called with an iterable of key/value pairs, but got int"),
        ("dict element length", "#0 has length 1; 2 is required"),
        ("dict name taken", "attribute 'keys' already exists"),
        ("dict call", "ParameterDict should not be called"),
    ],
)
def test_messages(name, message):
    with pytest.raises(FuncnetsError, match=message):
        REFUSED[name](Ours)


def test_numpy_arrays_are_arrays():
    values = nn.ParameterList([np.ones(3, np.float32)])
    assert isinstance(values[0], nn.Parameter)
    assert isinstance(nn.ParameterDict({"a": np.ones(3, np.float32)})["a"], nn.Parameter)


@pytest.mark.parametrize("key", ["keys", "training", "_keys", "forward"])
def test_a_key_hides_no_attribute(key):
    with pytest.raises(ArgumentError, match="already exists"):
        nn.ParameterDict({key: 3})
    with pytest.raises(KeyError, match="not among the keys"):
        nn.ParameterDict({"a": 3})[key]


def test_a_failed_assignment_leaves_no_trace():
    values, named = parameter_list(Ours), parameter_dict(Ours)
    with pytest.raises(DTypeError):
        values.append(jnp.ones(2, jnp.int32))
    with pytest.raises(DTypeError):
        named["c"] = jnp.ones(2, jnp.int32)
    assert len(values) == 3
    assert list(named) == ["a", "b"]


# --- in the two faces -------------------------------------------------------------------------


class Scales(nn.Module):
    def __init__(self):
        super().__init__()
        self.scales = nn.ParameterList([jnp.ones(3), nn.Parameter((3,)), 2.0])
        self.shifts = nn.ParameterDict(
            {"a": jnp.ones(3), "b": nn.Parameter((3,), fn.init.normal())}
        )

    def forward(self, x):
        first, second, factor = self.scales
        for array in (
            first,
            second,
            self.scales[0],
            *self.shifts.values(),
            *self.shifts.copy().values(),
        ):
            assert isinstance(array, jax.Array)
        assert [type(v) for v in self.scales[1:][:1]] == [type(first)]
        assert "Parameter containing: [torch.float32 of size 3]" in repr(self.scales)
        for scale in self.scales[:2]:
            x = x + scale
        return x * factor + self.shifts["a"] + self.shifts.get("b")


def test_elements_are_arrays_inside_a_call():
    model = Scales()
    assert isinstance(model.scales[0], nn.Parameter)
    assert isinstance(model.shifts["a"], nn.Parameter)
    assert model(jnp.ones(3)).shape == (3,)
    init, apply = fn.functionalize(model)
    params, state = init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == {
        "scales": {"0": (3,), "1": (3,)},
        "shifts": {"a": (3,), "b": (3,)},
    }
    out = jax.jit(lambda p, x: apply(p, state, x)[0])(params, jnp.ones(3))
    np.testing.assert_allclose(out, 4 + 1 + params["shifts"]["b"], rtol=1e-5)
    grads = fn.grad(lambda m: m(jnp.ones(3)).sum())(model)
    assert grads["scales"]["1"].tolist() == [2.0, 2.0, 2.0]


def test_slices_and_copies_share_the_parameters():
    model = Scales()
    assert model.scales[:1][0] is model.scales[0]
    assert model.shifts.copy()["a"] is model.shifts["a"]
    assert nn.ParameterList(model.scales)[1] is model.scales[1]


@pytest.mark.parametrize("make", [parameter_list, parameter_dict])
def test_deep_copies_and_pickles(make):
    container = make(Ours)
    for twin in (copy.deepcopy(container), pickle.loads(pickle.dumps(container))):
        assert repr(twin) == repr(container)
        assert list(twin.state_dict()) == list(container.state_dict())
        assert not any(a is b for a, b in zip(twin.parameters(), container.parameters()))
