"""Outside of any compilation a call of a function is one program, and nobody can tell but by its speed."""

from __future__ import annotations

import gc
import inspect
import pickle
import warnings
import weakref
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import functional as F
from funcnets import nn
from funcnets.errors import ShapeError
from funcnets.functional import _one_program

X = jnp.linspace(-1, 1, 24).reshape(2, 3, 4)


@contextmanager
def compilations():
    """The names of the programs that are lowered while this is open."""
    names: list[str] = []
    handler = _Collect(names)
    logger = jax._src.interpreters.pxla.logger
    before = logger.level
    logger.addHandler(handler)
    with jax.log_compiles():
        yield names
    logger.removeHandler(handler)
    logger.setLevel(before)


class _Collect:
    """A handler of ``logging`` that keeps what is compiled."""

    level = 0

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def handle(self, record) -> None:
        text = record.getMessage()
        if text.startswith("Compiling"):
            self.names.append(text.split()[1])


def model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Softmax(-1), nn.LSTM(5, 3, batch_first=True)
    )


def test_a_call_of_a_model_compiles_each_layer_once_and_then_nothing():
    net = model()
    with compilations() as first:
        net(X)
    assert [name for name in first if name.startswith("jit(")] == [
        f"jit({name})" for name in ("linear", "layer_norm", "gelu", "softmax", "lstm")
    ]
    with compilations() as second:
        net(X + 0)
    assert second in ([], ["jit(add)"])


def test_an_eager_gradient_is_compiled_once():
    net = model()

    def step():
        return fn.value_and_grad(lambda m: F.mse_loss(m(X)[0], jnp.zeros((2, 3, 3))))(net)

    step()
    with compilations() as second:
        step()
    assert second == []


def test_nothing_is_left_in_a_traced_program():
    weight = jnp.ones((5, 4))
    for trace in (
        lambda: jax.make_jaxpr(F.linear)(X, weight),
        lambda: jax.make_jaxpr(lambda x: F.linear(x, weight))(X),
        lambda: jax.make_jaxpr(jax.grad(lambda x: F.linear(x, weight).sum()))(X),
        lambda: jax.make_jaxpr(jax.vmap(lambda x: F.linear(x, weight)))(X),
    ):
        assert "linear" not in str(trace())
    # Nothing of the trace passes through a call of constants, which remains a call.
    assert "name=linear" in str(jax.make_jaxpr(lambda: F.linear(X, weight))())
    np.testing.assert_array_equal(jax.jit(lambda: F.linear(X, weight))(), F.linear(X, weight))


def test_under_vmap_and_forward_mode():
    weight = jnp.arange(20.0).reshape(5, 4)
    expected = jnp.einsum("bni,oi->bno", X, weight)
    np.testing.assert_allclose(jax.vmap(F.linear, (0, None))(X, weight), expected, rtol=1e-5)
    out, tangent = jax.jvp(F.linear, (X, weight), (X, jnp.zeros_like(weight)))
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    np.testing.assert_allclose(tangent, expected, rtol=1e-5)
    hessian = jax.hessian(lambda x: jnp.sum(F.softmax(x, -1) ** 2))(X[0, 0])
    assert hessian.shape == (4, 4) and np.abs(hessian).max() > 0


def test_options_that_are_equal_but_not_the_same():
    x = jnp.array([-1, 2])
    assert F.threshold(x, 1, 0).dtype == x.dtype
    one = F.leaky_relu(jnp.array([-1.0]), 0.0)
    other = F.leaky_relu(jnp.array([-1.0]), -0.0)
    assert np.signbit(one) != np.signbit(other)


def test_the_precision_of_the_surroundings_counts():
    weight = jnp.ones((5, 4))
    assert F.linear(X, weight).dtype == jnp.float32
    with fn.autocast(jnp.bfloat16):
        assert F.linear(X, weight).dtype == jnp.bfloat16
    assert F.linear(X, weight).dtype == jnp.float32


def test_a_new_number_at_every_call_is_not_compiled_forever():
    for i in range(_one_program.LIMIT + 3):
        expected = np.where(X > 0, X, i / 7 * X)
        np.testing.assert_allclose(F.leaky_relu(X, i / 7), expected, rtol=1e-6)
    with compilations() as more:
        F.leaky_relu(X, 100.5)
        F.leaky_relu(X, 101.5)
    assert "jit(leaky_relu)" not in more


def test_a_warning_comes_at_every_call_and_points_at_the_caller():
    for _ in range(3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            F.mse_loss(jnp.ones((2, 1)), jnp.ones(2)), F.softmax(X)
        lines = {(w.filename, w.lineno) for w in caught}
        here = inspect.currentframe()
        assert here is not None
        assert lines == {(__file__, here.f_lineno - 4)}, [str(w) for w in caught]
        assert len(caught) == 2


def test_errors_are_those_of_the_function_every_time():
    for _ in range(2):
        with pytest.raises(ShapeError, match=r"expected input of shape \(\*, 3\)"):
            F.linear(X, jnp.ones((5, 3)))


def test_parameters_and_numpy_arrays_as_arguments():
    layer = nn.Linear(4, 5)
    expected = layer(X)
    np.testing.assert_array_equal(F.linear(X, layer.weight, layer.bias), expected)
    weight, bias = np.asarray(layer.weight.data), np.asarray(layer.bias.data)
    np.testing.assert_allclose(F.linear(np.asarray(X), weight, bias), expected, rtol=1e-6)


def test_no_array_is_kept():
    big = jnp.ones((7, 4))
    seen = weakref.ref(big)
    F.linear(X, big)
    del big
    gc.collect()
    assert seen() is None


def test_functions_are_pickled_by_name():
    for function in (F.relu, F.linear, F.dropout, nn.functional.dropout):
        assert pickle.loads(pickle.dumps(function)) is function
    assert inspect.signature(F.leaky_relu).parameters["negative_slope"].default == 0.01


def test_without_compilation():
    with jax.disable_jit():
        np.testing.assert_array_equal(F.relu(X), jnp.maximum(X, 0))


def test_an_error_has_no_remarks_of_jax_in_it():
    with pytest.raises(ShapeError) as caught:
        F.linear(X, jnp.ones((5, 3)))
    assert not getattr(caught.value, "__notes__", [])
    assert caught.value.__context__ is None


def test_a_function_that_looks_at_values_runs_as_it_is_written():
    calls = []

    @_one_program.one_program
    def count(x):
        calls.append(x)
        return int(x.sum()) * x

    for _ in range(3):
        np.testing.assert_array_equal(count(jnp.ones(2)), [2, 2])
    assert sum(isinstance(x, jax.core.Tracer) for x in calls) == 1
