"""Flatten and Unflatten beyond the shared table: refusals."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
import torch

from funcnets import nn
from funcnets.errors import ArgumentError, ShapeError
from funcnets.nn import functional as F

X = jnp.ones((2, 6, 4))


@pytest.mark.parametrize(("start", "end"), [(3, 3), (0, 3), (-4, 1), (1, -4)])
def test_flatten_refuses_axes_that_are_not_there(start, end):
    with pytest.raises(ShapeError, match="_dim"):
        nn.Flatten(start, end)(X)


def test_flatten_refuses_the_wrong_order_and_what_is_no_integer():
    with pytest.raises(ArgumentError, match="start_dim must not come after end_dim"):
        nn.Flatten(2, 1)(X)
    with pytest.raises(ArgumentError, match="start_dim"):
        nn.Flatten("a")
    with pytest.raises(ArgumentError, match="end_dim"):
        nn.Flatten(0, 1.0)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_flatten_of_what_has_no_axis_1(shape):
    with pytest.raises(ShapeError, match="start_dim"):
        nn.Flatten()(jnp.ones(shape))
    with pytest.raises(IndexError):
        torch.nn.Flatten()(torch.ones(shape))


def test_the_function_merges_everything_by_default():
    assert F.flatten(X).shape == (48,)
    assert F.flatten(jnp.ones(())).shape == (1,)


@pytest.mark.parametrize(
    ("dim", "sizes", "error", "match"),
    [
        (1, (2, 2), ShapeError, "multiply to 6"),
        (1, (4, -1), ShapeError, "multiply to 6"),
        (2, (0,), ShapeError, "multiply to 4"),
        (3, (1,), ShapeError, "dim"),
        (-4, (1,), ShapeError, "dim"),
        (1, (), ArgumentError, "sizes"),
        (1, (-1, -1), ArgumentError, "at most one of them -1"),
        (1, (-2, -3), ArgumentError, "non-negative"),
    ],
)
def test_unflatten_refuses_sizes_that_do_not_fit(dim, sizes, error, match):
    with pytest.raises(error, match=match):
        nn.Unflatten(dim, sizes)(X)
    with pytest.raises((RuntimeError, IndexError)):
        torch.nn.Unflatten(dim, sizes)(torch.ones(X.shape))


def test_unflatten_does_not_infer_a_size_next_to_zero():
    with pytest.raises(ShapeError, match="sizes"):
        nn.Unflatten(0, (0, -1))(jnp.ones((0, 2)))


def test_unflatten_refuses_an_array_without_axes():
    with pytest.raises(ShapeError, match="at least one axis"):
        nn.Unflatten(0, (1,))(jnp.ones(()))


@pytest.mark.parametrize("sizes", [6, (2.0, 3), (("b", 2), ("c", 3)), "23", (True, 6)])
def test_unflatten_refuses_what_is_no_tuple_of_integers(sizes):
    with pytest.raises(ArgumentError, match="unflattened_size"):
        nn.Unflatten(1, sizes)


def test_unflatten_refuses_the_name_of_an_axis():
    with pytest.raises(ArgumentError, match="dim"):
        nn.Unflatten("features", (2, 3))
