"""Parameters as one vector, against PyTorch's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import nn
from funcnets.errors import DTypeError, ShapeError
from funcnets.nn.utils import parameters_to_vector, vector_to_parameters


def both():
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    ours = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def test_there_and_back_equals_torch():
    theirs, ours = both()
    expected = torch.nn.utils.parameters_to_vector(theirs.parameters()).detach()
    vector = parameters_to_vector(ours.parameters())
    np.testing.assert_array_equal(vector, expected)
    torch.nn.utils.vector_to_parameters(2 * expected + 1, theirs.parameters())
    assert vector_to_parameters(2 * vector + 1, ours.parameters()) is None
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(ours.get_parameter(name).data, p.detach(), rtol=1e-6)


def test_trees_of_arrays():
    _, ours = both()
    params, _ = fn.get_variables(ours)
    vector = parameters_to_vector(params)
    np.testing.assert_array_equal(
        vector, np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    )
    back = vector_to_parameters(2 * vector, params)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 2 * b), back, params)
    gradient = jax.jit(
        jax.grad(lambda v: parameters_to_vector(vector_to_parameters(v**2, params)).sum())
    )(vector)
    np.testing.assert_allclose(gradient, 2 * vector, rtol=1e-6)


def test_dtypes_are_those_of_the_parameters():
    cells = [nn.Parameter(jnp.ones(2, jnp.bfloat16)), nn.Parameter(jnp.ones((1, 2)))]
    vector = parameters_to_vector(cells)
    assert vector.dtype == jnp.float32
    vector_to_parameters(3 * vector, cells)
    assert cells[0].dtype == jnp.bfloat16
    assert cells[0].tolist() == [3.0, 3.0]


def test_inside_a_compiled_step():
    _, ours = both()
    vector = parameters_to_vector(ours.parameters())
    np.testing.assert_array_equal(fn.jit(lambda: parameters_to_vector(ours.parameters()))(), vector)

    @fn.jit
    def halve(cells):
        vector_to_parameters(parameters_to_vector(cells) / 2, cells)

    cells = list(ours.parameters())
    fn.jit(lambda: vector_to_parameters(parameters_to_vector(cells) / 2, cells))()
    np.testing.assert_array_equal(parameters_to_vector(cells), vector / 2)


def test_what_is_refused():
    _, ours = both()
    with pytest.raises(DTypeError, match="vec must be an array"):
        vector_to_parameters([1.0, 2.0], ours.parameters())
    for size in (23, 25):
        with pytest.raises(ShapeError, match=r"\(24,\)"):
            vector_to_parameters(jnp.ones(size), ours.parameters())
    with pytest.raises(ShapeError, match=r"\(24,\)"):
        vector_to_parameters(jnp.ones((4, 6)), ours.parameters())
    with pytest.raises(ShapeError, match="at least one"):
        parameters_to_vector([])
    with pytest.raises(DTypeError, match="parameters"):
        parameters_to_vector(ours)
    with pytest.raises(DTypeError, match="Parameters or arrays"):
        parameters_to_vector(["a"])
    with pytest.raises(DTypeError, match="both"):
        vector_to_parameters(jnp.ones(2), [nn.Parameter((1,)), jnp.ones(1)])
