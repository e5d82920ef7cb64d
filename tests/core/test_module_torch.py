"""The same code with torch.nn and with funcnets.nn: the same results, or the same exception and text."""

from __future__ import annotations

import copy

import jax.numpy as jnp
import pytest
import torch

from funcnets import nn


def tree(lib):
    """A small tree of modules of either library."""

    class Leaf(lib.Module):
        def __init__(self, n):
            super().__init__()
            self.weight = lib.Parameter(array(lib, n))
            self.register_parameter("bias", None)
            self.register_buffer("table", array(lib, n))
            self.register_buffer("scratch", array(lib, 1), persistent=False)

    class Root(lib.Module):
        def __init__(self):
            super(Root, self).__init__()
            self.a = Leaf(2)
            self.b = lib.Module()
            self.b.c = Leaf(3)
            self.b.again = self.a
            self.own = lib.Parameter(array(lib, 4))
            self.gone = None
            self.hyper = 3

    return Root()


def array(lib, n):
    return torch.ones(n) if lib is torch.nn else jnp.ones(n)


def both(scenario):
    """What a scenario gives, or the exception it raises, in torch and here."""
    results = []
    for lib in (torch.nn, nn):
        try:
            results.append(scenario(lib, tree(lib)))
        except Exception as error:  # the comparison is the test
            results.append(error)
    return results


def names(pairs):
    return [name for name, _ in pairs]


VALUES = {
    "named_parameters": lambda lib, m: names(m.named_parameters()),
    "named_parameters prefix": lambda lib, m: names(m.named_parameters(prefix="p")),
    "named_parameters here": lambda lib, m: names(m.named_parameters(recurse=False)),
    "named_parameters all": lambda lib, m: names(m.named_parameters(remove_duplicate=False)),
    "named_buffers": lambda lib, m: names(m.named_buffers()),
    "named_buffers all": lambda lib, m: names(m.named_buffers("q", True, False)),
    "named_modules": lambda lib, m: names(m.named_modules()),
    "named_modules all": lambda lib, m: names(m.named_modules(prefix="p", remove_duplicate=False)),
    "named_children": lambda lib, m: names(m.b.named_children()),
    "count": lambda lib, m: [
        len(list(x)) for x in (m.parameters(), m.buffers(), m.modules(), m.children())
    ],
    "state_dict": lambda lib, m: list(m.state_dict()),
    "state_dict prefix": lambda lib, m: list(m.state_dict(prefix="x.")),
    "metadata": lambda lib, m: {k: dict(v) for k, v in m.state_dict()._metadata.items()},
    "repr": lambda lib, m: repr(m),
    "dir": lambda lib, m: {"a", "b", "own", "gone", "hyper", "weight"} & set(dir(m)),
    "delete": lambda lib, m: delattr(m, "a") or names(m.named_parameters()),
    "delete buffer": lambda lib, m: delattr(m.a, "table") or list(m.state_dict()),
    "replace": lambda lib, m: setattr(m, "own", None) or names(m.named_parameters()),
    "replace module": lambda lib, m: setattr(m, "a", None) or names(m.named_modules()),
    "parameter over module": lambda lib, m: (
        setattr(m, "a", lib.Parameter(array(lib, 1))) or list(m.state_dict())
    ),
    "module over plain": lambda lib, m: (
        setattr(m, "hyper", lib.Module()) or names(m.named_modules())
    ),
    "buffer stays not persistent": lambda lib, m: (
        setattr(m.a, "scratch", array(lib, 3)) or list(m.state_dict())
    ),
    "buffer cell": lambda lib, m: (
        setattr(m, "n", lib.Buffer(array(lib, 1), persistent=False)) or list(m.state_dict())
    ),
    "none then parameter": lambda lib, m: (
        setattr(m.a, "bias", lib.Parameter(array(lib, 1))) or list(m.state_dict())
    ),
    "deepcopy": lambda lib, m: list(copy.deepcopy(m).state_dict()),
    "train": lambda lib, m: [x.training for x in m.b.train(False) and m.modules()],
    "get_submodule": lambda lib, m: m.get_submodule("b.c") is m.b.c,
    "set_submodule": lambda lib, m: (
        m.set_submodule("b.new", lib.Module()) or names(m.named_modules())
    ),
    "extra_repr lines": lambda lib, m: setattr(m, "extra_repr", lambda: "one\ntwo") or repr(m),
    "apply": lambda lib, m: (
        (seen := []) or (m.apply(lambda x: seen.append(type(x).__name__)) and seen)
    ),
}

ERRORS = {
    "early parameter": lambda lib, m: object.__new__(type(m)).__setattr__(
        "x", lib.Parameter(array(lib, 1))
    ),
    "early module": lambda lib, m: object.__new__(type(m)).__setattr__("x", lib.Module()),
    "early register": lambda lib, m: object.__new__(type(m)).register_parameter("x", None),
    "early buffer": lambda lib, m: object.__new__(type(m)).register_buffer("x", None),
    "parameter dot": lambda lib, m: m.register_parameter("x.y", None),
    "parameter empty": lambda lib, m: m.register_parameter("", None),
    "parameter exists": lambda lib, m: m.register_parameter("hyper", None),
    "parameter over module": lambda lib, m: m.register_parameter("a", None),
    "buffer dot": lambda lib, m: m.register_buffer("x.y", None),
    "buffer empty": lambda lib, m: m.register_buffer("", None),
    "buffer exists": lambda lib, m: m.register_buffer("own", None),
    "module dot": lambda lib, m: m.add_module("x.y", None),
    "module empty": lambda lib, m: m.add_module("", None),
    "module exists": lambda lib, m: m.register_module("forward", None),
    "name not a string": lambda lib, m: m.register_parameter(3, None),
    "buffer name not a string": lambda lib, m: m.register_buffer(3, None),
    "module name not a string": lambda lib, m: m.add_module(3, None),
    "no attribute": lambda lib, m: m.nothing,
    "delete nothing": lambda lib, m: delattr(m, "nothing"),
    "get_submodule": lambda lib, m: m.get_submodule("b.x.y"),
    "get_submodule parameter": lambda lib, m: m.get_submodule("a.weight"),
    "get_parameter": lambda lib, m: m.get_parameter("a.none"),
    "get_parameter buffer": lambda lib, m: m.get_parameter("a.table"),
    "get_buffer": lambda lib, m: m.get_buffer("a.none"),
    "get_buffer parameter": lambda lib, m: m.get_buffer("a.weight"),
    "set_submodule nowhere": lambda lib, m: m.set_submodule("", lib.Module()),
    "set_submodule strict": lambda lib, m: m.set_submodule("b.new", lib.Module(), strict=True),
    "set_submodule int": lambda lib, m: m.set_submodule("b.new", 3),
    "set_submodule over": lambda lib, m: m.set_submodule("a.weight", lib.Module()),
    "train": lambda lib, m: m.train("yes"),
    "forward": lambda lib, m: m(),
    "int as child": lambda lib, m: m.a.add_module("x", 3),
    "load": lambda lib, m: m.load_state_dict(3),
    "module as parameter": lambda lib, m: setattr(m, "own", 3),
    "int as module": lambda lib, m: setattr(m, "a", 3),
    "str as buffer": lambda lib, m: setattr(m.a, "table", "x"),
}

#: Ours go on (a remedy), or name the value and the types as this library does.
OWN_WORDS = {
    "get_submodule", "get_submodule parameter", "module as parameter", "int as module", "str as buffer",
    "parameter dot", "buffer dot",
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_the_same_values(name):
    theirs, ours = both(VALUES[name])
    assert not isinstance(theirs, Exception), theirs
    assert ours == theirs


@pytest.mark.parametrize("name", ERRORS)
def test_the_same_exceptions(name):
    theirs, ours = both(ERRORS[name])
    assert isinstance(theirs, Exception)
    assert isinstance(ours, type(theirs)), f"{ours!r} against torch's {theirs!r}"
    expected = theirs.args[0]
    if name in OWN_WORDS:
        first = " ".join(expected.split(" ")[:2]).replace("'int'", "3")
        assert str(ours).startswith(first)
    else:
        assert str(ours) == expected
