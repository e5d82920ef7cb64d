"""Packs: small cells that a compiled step replaces cross its boundary in few arrays, and nobody notices."""

from __future__ import annotations

import copy
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import funcnets as fn
from funcnets import nn, optim
from funcnets.core import pack
from funcnets.core.cell import Parameter
from tests.core.toys import stepper


def deep(layers: int) -> nn.Sequential:
    return nn.Sequential(*itertools.chain(*[(nn.Linear(3, 3), nn.Tanh()) for _ in range(layers)]))


X = jnp.linspace(-1, 1, 6).reshape(2, 3)


def shapes(step) -> list[list[tuple[int, ...]]]:
    return [[cell.shape for cell in packed.cells] for packed in step._last.packs]


@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 60), st.integers(0, 5))
def test_parts_hold_every_cell_once_in_order(period, count, rest):
    cells = [Parameter((size + 1,)) for size in [*period * count, *range(rest)]]
    parts = pack._parted(cells)
    assert pack.same([cell for part in parts for cell in part], cells)
    assert all(0 < len(part) < pack.PERIODS.stop for part in parts)


def test_equal_layers_are_at_equal_places_of_equal_packs():
    """XLA compiles a loop over a piece of a pack once for each place of the piece."""
    step = stepper(model := deep(25), optim.Adam(model.parameters()))
    step(X, 0.0)
    *equal, last = shapes(step)
    assert len(equal) == 3
    assert all(each == equal[0] for each in equal)
    assert len(last) < len(equal[0])
    assert sum(map(len, shapes(step))) == 3 * 50  # with both moments of each


def test_what_an_optimizer_keeps_is_in_the_pack_of_its_parameter():
    models = [deep(13), deep(14)]
    optimizers = [optim.Adam(model.parameters()) for model in models]

    @fn.jit
    def step(x):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.step(fn.grad(lambda m: (m(x) ** 2).mean())(model))

    step(X)
    for packed in step._last.packs:
        owned = [cell for cell in packed.cells if isinstance(cell, Parameter)]
        assert len(packed.cells) == 3 * len(owned)
    assert sum(len(packed.cells) for packed in step._last.packs) == 3 * 54


def test_a_packed_step_gives_the_numbers_of_optax():
    fn.manual_seed(0)
    model = deep(20)
    params, state = jax.tree.map(jnp.array, fn.get_variables(model))
    _, apply = fn.functionalize(model)
    tx = optax.adam(1e-3)
    memory = tx.init(params)
    step = stepper(model, optim.Adam(model.parameters(), lr=1e-3))
    for _ in range(3):
        step(X, 0.0)
        grads = jax.grad(lambda p: (apply(p, state, X)[0] ** 2).mean())(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, memory = tx.update(grads, memory, params)
        params = optax.apply_updates(params, updates)
    expected = {
        jax.tree_util.keystr(path, simple=True, separator="."): value
        for path, value in jax.tree_util.tree_leaves_with_path(params)
    }
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-7, err_msg=name)


def test_reading_and_writing_a_packed_cell_between_steps():
    fn.manual_seed(0)
    model, twin = deep(4), deep(4)
    twin.load_state_dict(model.state_dict())
    step = stepper(model, optim.SGD(model.parameters(), lr=0.1))
    other = stepper(twin, optim.SGD(twin.parameters(), lr=0.1))
    for run in (step, other):
        run(X, 0.0)
    assert model[0].weight._pack is not None
    held = model[0].weight.data
    before = np.array(held)
    model[2].bias.data = jnp.full(3, 0.5)
    twin[2].bias.data = jnp.full(3, 0.5)
    for run in (step, other):
        run(X, 0.0)
    np.testing.assert_array_equal(held, before)  # whoever holds an old value keeps it
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, twin.state_dict()[name], err_msg=name)


def test_a_copy_of_a_packed_model_goes_its_own_way():
    model = deep(4)
    step = stepper(model, optim.SGD(model.parameters(), lr=0.1))
    step(X, 0.0)
    twin = copy.deepcopy(model)
    before = {name: np.array(value) for name, value in twin.state_dict().items()}
    step(X, 0.0)
    for name, value in twin.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert any(
        not np.array_equal(value, before[name]) for name, value in model.state_dict().items()
    )


@pytest.mark.parametrize("count", [0, 1, pack.FEW - 1])
def test_few_cells_are_not_worth_a_pack(count):
    assert pack.grouped([Parameter(jnp.ones(3)) for _ in range(count)]) == []


def test_large_arrays_stay_apart():
    cells = [Parameter(jnp.ones(pack.SMALL + 1)) for _ in range(pack.FEW)]
    assert pack.grouped(cells) == []
