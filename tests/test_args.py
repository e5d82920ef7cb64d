"""The argument checks that all families share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnets import _args, nn
from funcnets.errors import ArgumentError, DTypeError, MissingExtraError, ShapeError

NO_ARRAYS = [[1.0, 2.0], 3.0, "text", None, jnp.float32]


@pytest.mark.parametrize("value", NO_ARRAYS, ids=str)
@pytest.mark.parametrize(
    "check",
    [
        lambda x: _args.require_ndim("input", x, (1, 2), "(N, C) or (C,)"),
        lambda x: _args.channel_axis_check("input", x, 0, 3, "num_features"),
        lambda x: _args.as_array("input", x),
        lambda x: _args.floating("input", x),
        lambda x: _args.integer("input", x),
    ],
    ids=["require_ndim", "channel_axis_check", "as_array", "floating", "integer"],
)
def test_what_is_no_array_is_refused(check, value):
    with pytest.raises(DTypeError, match=r"input must be an array.*jnp\.asarray"):
        check(value)


def test_ranks_and_channels():
    x = np.ones((2, 3), np.float32)
    _args.require_ndim("input", x, (1, 2), "(N, C) or (C,)")
    _args.channel_axis_check("input", nn.Buffer(x), 1, 3, "num_features")
    with pytest.raises(ShapeError, match=r"expected 3D input \(N, C, L\), but got 2D input"):
        _args.require_ndim("input", x, (3,), "(N, C, L)")
    with pytest.raises(ShapeError, match="num_features=4"):
        _args.channel_axis_check("input", x, 1, 4, "num_features")


def test_as_array_gives_the_array_itself_or_makes_one():
    x = jnp.ones((2, 3))
    cell = nn.Parameter(x)
    assert _args.as_array("input", x) is x
    assert _args.as_array("input", cell) is cell.data
    for check in (_args.as_array, _args.floating):
        made = check("input", np.ones(2, np.float32))
        assert isinstance(made, jax.Array)
    assert isinstance(_args.integer("input", nn.Buffer(jnp.arange(3))), jax.Array)
    with pytest.raises(DTypeError, match="floating point"):
        _args.floating("input", jnp.arange(3))
    with pytest.raises(DTypeError, match="array of integers"):
        _args.integer("input", jnp.ones(3, bool))


def test_probability():
    for p in (0, 1, 0.5, True, np.float32(0.25)):
        assert _args.probability("dropout", p) is p
    for p in (-0.1, 1.5, float("nan"), "0.5", None, 1j, jnp.ones(2)):
        with pytest.raises(ArgumentError, match="dropout must be a number between 0 and 1"):
            _args.probability("dropout", p)


def test_optional_says_how_to_install():
    with pytest.raises(
        MissingExtraError,
        match=r"the bar needs no_such_package, which is not installed: pip install 'funcnets\[train\]'",
    ):
        _args.optional("no_such_package.sub", "train", "the bar")
    assert _args.optional("json", "x", "y").loads("1") == 1
