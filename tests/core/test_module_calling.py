"""Calling modules: what a call writes, draws and refuses."""

from __future__ import annotations

import copy
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.core import frame as frames
from funcnets.core.version import Version
from funcnets.errors import (
    StateLeakError,
    UnsupportedError,
)
from tests.core.toys import Affine, Counter, Noise

X = jnp.ones((2, 3))


class TestCalling:
    def test_without_forward(self):
        with pytest.raises(
            NotImplementedError,
            match=r'^Module \[Module\] is missing the required "forward" function',
        ):
            nn.Module()(X)

    def test_a_failed_call_writes_nothing(self):
        class Fails(Counter):
            def forward(self, x):
                super().forward(x)
                raise ValueError("no")

        model = Fails()
        with pytest.raises(ValueError, match="no"):
            model(X)
        assert model.count.item() == 0

    def test_reading_what_was_written_in_the_same_call(self):
        class Twice(Counter):
            def forward(self, x):
                super().forward(x)
                super().forward(x)
                return self.count * 10

        model = Twice()
        assert model(X).item() == 20 and model.count.item() == 2

    def test_a_buffer_may_change_shape_and_dtype(self):
        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("last", jnp.zeros(1))

            def forward(self, x):
                self.last = x
                return x

        model = Last()
        model(jnp.ones((2, 3), jnp.bfloat16))
        assert model.last.shape == (2, 3) and model.last.dtype == jnp.bfloat16

    def test_a_layer_made_at_the_first_call(self):
        class Late(nn.Module):
            def forward(self, x):
                if not hasattr(self, "fc"):
                    self.fc = Affine(x.shape[-1], 2)
                return self.fc(x)

        eager, compiled = Late(), Late()
        assert eager(X).shape == (2, 2) and list(eager.state_dict()) == ["fc.weight", "fc.bias"]
        step = fn.jit(lambda x: compiled(x))
        np.testing.assert_array_equal(step(X), step(X))

    def test_calls_nest_across_modules_and_threads_of_control(self):
        inner, outer = Counter(), Counter()
        inner_call = inner.__call__
        outer.register_forward_hook(lambda m, a, out: inner_call(out))
        outer(X)
        assert (inner.count.item(), outer.count.item()) == (1, 1)

    def test_make_rng_outside_of_any_call(self):
        module = Noise()
        a, b = module.make_rng(), module.make_rng()
        assert jnp.issubdtype(a.dtype, jax.dtypes.prng_key) and (a != b).all()

    @pytest.mark.parametrize(
        ("call", "text"),
        [
            (lambda m: m.zero_grad(), "nothing to zero"),
            (lambda m: m.share_memory(), "not shared between processes"),
            (lambda m: m.register_full_backward_hook(print), "no backward pass"),
            (lambda m: m.register_backward_hook(print), "no backward pass"),
            (lambda m: m.register_full_backward_pre_hook(print), "no backward pass"),
            (lambda m: m.compile(), "fn.jit"),
        ],
    )
    def test_what_cannot_be_says_what_to_use(self, call, text):
        with pytest.raises(UnsupportedError, match=text):
            call(Affine(1, 1))

    def test_changing_the_mode_in_a_call(self):
        class Switches(nn.Module):
            def forward(self, x):
                self.eval()
                return x

        model = Switches()
        with pytest.raises(StateLeakError, match="the mode was changed inside a call"):
            model(X)
        assert model.training


def test_paths_below_a_root_are_not_those_of_an_earlier_one_at_its_address():
    """A copy changes no description, and may lie where a module was that has gone."""
    first = nn.Sequential(nn.Linear(2, 2))
    first(jnp.ones((1, 2)))
    known, version, paths = frames._last
    assert known() is first and version == Version.structure and set(paths.values()) == {"", "0"}
    twin = copy.deepcopy(first)
    assert frames._last[1] == Version.structure  # the copy alone would not be noticed
    del first
    gc.collect()
    assert known() is None
    twin(jnp.ones((1, 2)))
    assert frames._last[0]() is twin
    assert set(frames._last[2]) == {id(twin), id(twin[0])}
