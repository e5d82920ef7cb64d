"""Text: arrays, cells and modules are printed as torch prints them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import funcnets as fn
from funcnets import nn
from funcnets.core.printing import array_text
from tests.core.toys import Affine, Chain, Counter, Net

INF, NAN = float("inf"), float("nan")

FLOATS = {
    "scalar": 3.0,
    "fraction": 0.1,
    "negative zero": -0.0,
    "nan": NAN,
    "inf": -INF,
    "tiny": 1e-40,
    "huge": 3e38,
    "row": [1.0, -2.5, 3.25],
    "whole": [1.0, -20.0, 300.0],
    "whole with nan": [1.0, NAN, -INF, 7.0],
    "fractions with nan": [1.5, NAN, INF, -0.0],
    "zeros": [0.0, -0.0],
    "only nan": [NAN, INF, -INF],
    "ratio of 1000": [1.0, 1000.0],
    "ratio over 1000": [1.0, 1001.0],
    "fraction ratio": [0.5, 501.0],
    "1e8": [1e8, 1.0],
    "over 1e8": [1.1e8, 5e7],
    "under 1e-4": [1e-4, 9e-5],
    "at 1e-4": [1e-4, 2e-4],
    "rounds up": [0.99999, 0.5],
    "scientific nan": [1e-9, NAN, 1e9, -INF, 0.0],
    "many digits": [123456.789, 1.0],
    "empty": np.zeros((0,)),
    "empty 2d": np.zeros((3, 0)),
    "empty 3d": np.zeros((0, 2, 5)),
    "one": [[[[1.0]]]],
    "2d": np.arange(6).reshape(2, 3) - 2.5,
    "3d": np.arange(24).reshape(2, 3, 4) / 8,
    "4d": np.arange(16).reshape(2, 2, 2, 2),
    "long row": np.linspace(-1, 1, 40),
    "exactly 1000": np.arange(1000.0),
    "over 1000": np.arange(1001.0),
    "wide": np.arange(2.0 * 600).reshape(2, 600),
    "tall": np.arange(2.0 * 600).reshape(600, 2),
    "cube": np.arange(20.0**3).reshape(20, 20, 20),
    "six columns": np.arange(6.0 * 200).reshape(200, 6),
    "outlier in the middle": np.where(np.arange(2000) == 1000, 1e20, 1.0),
}


def text_of(value, dtype):
    """Ours and torch's text of the same numbers."""
    with np.errstate(all="ignore"):
        array = np.asarray(value).astype(dtype)
    return array_text(array), repr(torch.from_numpy(array))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", FLOATS)
def test_floats(name, dtype):
    ours, theirs = text_of(FLOATS[name], dtype)
    assert ours == theirs


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "complex128"]
)
@pytest.mark.parametrize("name", [n for n, v in FLOATS.items() if np.isfinite(v).all()])
def test_other_dtypes(name, dtype):
    value = np.clip(np.abs(FLOATS[name]), 0, 100)
    if dtype[0] == "c":
        value = value - 0.5j * value[..., ::-1] if np.ndim(value) else value + 0j
    ours, theirs = text_of(value, dtype)
    assert ours == theirs


@pytest.mark.parametrize("name", FLOATS)
def test_bfloat16(name):
    tensor = torch.tensor(np.asarray(FLOATS[name], np.float64)).to(torch.bfloat16)
    array = jnp.asarray(tensor.float().numpy()).astype(jnp.bfloat16)
    assert array_text(array) == repr(tensor)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8(dtype):
    tensor = torch.tensor([0.5, 1.0, -2.0]).to(dtype)
    array = jnp.asarray([0.5, 1.0, -2.0]).astype(str(dtype).removeprefix("torch."))
    assert array_text(array) == repr(tensor)


@pytest.mark.parametrize(
    "value",
    [
        1 + 2j,
        complex(NAN, 1),
        complex(0.0, -0.0),
        [1 + 1e9j, 0.5 - 3j],
        [complex(-INF, INF)],
        [1j] * 30,
        [[1 - 1j]] * 2,
    ],
)
def test_complex(value):
    ours, theirs = text_of(value, "complex64")
    assert ours == theirs


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["float32", "float64", "float16"]),
    st.lists(st.integers(1, 8), max_size=3),
    st.lists(st.floats(width=32), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_any_floats(dtype, shape, pool, seed):
    values = np.random.default_rng(seed).choice(pool, shape)
    ours, theirs = text_of(values, dtype)
    assert ours == theirs


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=3), st.integers(-10, 6), st.integers(0, 2**32 - 1))
def test_any_shapes(shape, exponent, seed):
    values = np.random.default_rng(seed).normal(size=shape) * 10.0**exponent
    ours, theirs = text_of(values, "float32")
    assert ours == theirs


@pytest.mark.parametrize("shape", [(2,), (2, 3), (0,), (), (12,), (3, 9), (40, 40)])
@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_parameters(shape, requires_grad, dtype):
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    tensor = torch.tensor(value).to(getattr(torch, dtype))
    theirs = torch.nn.Parameter(tensor, requires_grad)
    ours = nn.Parameter(jnp.asarray(value, dtype), requires_grad)
    assert repr(ours) == str(ours) == repr(theirs)


def test_buffers_and_format():
    assert repr(nn.Buffer(jnp.arange(3))) == repr(
        torch.nn.Buffer(torch.arange(3, dtype=torch.int32))
    )
    assert f"{nn.Parameter(jnp.ones(2))}" == f"{torch.nn.Parameter(torch.ones(2))}"


def test_a_parameter_in_a_call_shows_what_is_known():
    model, seen = Affine(2, 2), []
    weight = model.weight
    fn.jit(lambda: seen.append(repr(weight)) or model.weight.sum())()
    assert seen[-1] == "Parameter containing:\ntensor(..., size=(2, 2), dtype=float32)"


def both(build):
    return repr(build(nn)), repr(build(torch.nn))


def leaf(lib, extra=""):
    class Leaf(lib.Module):
        def extra_repr(self):
            return extra

    return Leaf()


def holder(lib, extra, *children):
    class Holder(lib.Module):
        def extra_repr(self):
            return extra

    module = Holder()
    for i, child in enumerate(children):
        module.add_module(f"c{i}", child)
    return module


MODULES = {
    "empty": lambda lib: leaf(lib),
    "one line": lambda lib: leaf(lib, "3, bias=True"),
    "two lines": lambda lib: leaf(lib, "a=1\nb=2"),
    "child": lambda lib: holder(lib, "", leaf(lib)),
    "one line and child": lambda lib: holder(lib, "size=2", leaf(lib, "x")),
    "two lines and child": lambda lib: holder(lib, "a\nb", leaf(lib, "x\ny"), leaf(lib)),
    "deep": lambda lib: holder(lib, "", holder(lib, "a", holder(lib, "b\nc", leaf(lib, "d\ne")))),
    "none": lambda lib: holder(lib, "", None, leaf(lib)),
    "blank line": lambda lib: holder(lib, "a\n\nb", leaf(lib, "c\n\nd")),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    ours, theirs = both(MODULES[name])
    assert ours == theirs


def test_printing_allocates_nothing():
    model = Chain(Affine(10**6, 10**6), Net())
    assert repr(model).split("\n")[1] == "  (0): Affine(1000000, 1000000)"
    assert not any(p.has_value for p in model.parameters())


def test_str_and_get_name():
    assert str(Counter()) == "Counter()" and Counter()._get_name() == "Counter"


def test_large_arrays_are_cut_before_they_are_printed():
    assert array_text(jnp.zeros((3000, 3000))).count("\n") == 6
    assert array_text(jax.device_put(np.zeros((1, 2000)))).startswith(
        "tensor([[0., 0., 0.,  ..., 0., 0., 0.]]"
    )
