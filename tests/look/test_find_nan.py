"""``fn.find_nan``: the first module whose output is not finite, and what was wrong before it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.errors import DTypeError, StateLeakError


class Log(nn.Module):
    def forward(self, x, shift=0.0):
        return jnp.log(x + shift)


def network():
    model = nn.Sequential(
        nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)), Log(), nn.Dropout(0.5)
    )
    model[0][0].weight.data = jnp.eye(2)
    return model


GOOD, BAD = jnp.array([[2.0, 3.0], [1.0, 1.0]]), jnp.array([[2.0, -3.0], [1.0, 1.0]])


def test_the_module_what_it_was_given_and_its_parameters():
    model = network().eval()
    assert fn.find_nan(model, GOOD) is None
    found = fn.find_nan(model, BAD)
    assert (found.path, found.type, found.module) == ("1", "Log", model[1])
    assert (found.output, found.args, found.kwargs) == ("float32[2, 2]", ("float32[2, 2]",), {})
    assert not found.inputs_bad and found.parameters_bad == ()
    assert "'1' (Log): float32[2, 2]" in str(found) and "which was finite" in str(found)
    given = fn.find_nan(model, GOOD.at[0, 0].set(jnp.nan))
    assert (given.path, given.inputs_bad) == ("0.0", True)
    model[0][1].weight.data = jnp.array([1.0, jnp.inf])
    own = fn.find_nan(model, GOOD)
    assert (own.path, own.inputs_bad, own.parameters_bad) == ("0.1", False, ("weight",))
    assert "not finite is also its weight" in repr(own)


def test_the_pure_face_and_keyword_arguments():
    model = network().eval()
    layer, (params, state) = fn.functionalize(model), fn.get_variables(model)
    assert fn.find_nan(layer, params, state, GOOD, training=False) is None
    assert fn.find_nan(layer, params, state, BAD, training=False).path == "1"
    params["0"]["1"]["bias"] = jnp.array([0.0, jnp.nan])
    found = fn.find_nan(layer, params, state, GOOD, training=False)
    assert (found.path, found.parameters_bad) == ("0.1", ("bias",))
    assert fn.find_nan(Log(), BAD, shift=jnp.float32(9)) is None
    only = fn.find_nan(Log(), BAD, shift=jnp.float32(1))
    assert only.path == "" and "shift=float32[]" in str(only)


def test_the_model_is_left_as_it_was():
    model = network()
    before = {k: v.copy() for k, v in model.state_dict().items()}
    fn.manual_seed(4)
    expected = nn.Dropout(0.5)(GOOD)
    fn.manual_seed(4)
    assert fn.find_nan(model, BAD) is not None
    assert (nn.Dropout(0.5)(GOOD) == expected).all()
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    lazy = nn.Sequential(nn.LazyLinear(2), Log())
    assert fn.find_nan(lazy, -1e9 * GOOD) is not None


def test_in_a_loop_the_earlier_step_comes_first():
    class Down(nn.Module):
        def forward(self, x):
            return x - 1.0

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.log = Down(), Log()

        def forward(self, x):
            # In the first step the logarithm fails; its output then goes into `down`.
            return fn.scan(lambda c, _: (self.log(self.down(c)), None), x, length=3)[0]

    found = fn.find_nan(Loop(), jnp.array([0.5]))
    assert (found.path, found.inputs_bad) == ("log", False)


def test_it_needs_numbers():
    model = network().eval()
    with pytest.raises(StateLeakError, match="looks at numbers"):
        jax.jit(lambda x: fn.find_nan(model, x))(GOOD)
    with pytest.raises(DTypeError, match="takes a Module"):
        fn.find_nan(jnp.log, GOOD)
