"""The names of ``torch.nn.utils``, and the small functions among them."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
import torch

from funcnets import nn
from funcnets.errors import DTypeError, UnsupportedError


@pytest.mark.parametrize("room", ["", "parametrizations", "parametrize", "stateless"])
def test_every_public_name_of_torch_is_there(room):
    theirs, ours = torch.nn.utils, nn.utils
    if room:
        theirs, ours = getattr(theirs, room), getattr(ours, room)
    assert sorted(ours.__all__) == sorted(theirs.__all__)
    for name in theirs.__all__:
        assert hasattr(ours, name)


def test_skip_init():
    layer = nn.utils.skip_init(nn.Linear, 5, out_features=1, bias=False)
    assert repr(layer) == repr(torch.nn.utils.skip_init(torch.nn.Linear, 5, 1, bias=False))
    assert not layer.weight.has_value
    assert nn.utils.skip_init(nn.Linear, 5, 1, device="cpu")(jnp.ones(5)).shape == (1,)
    for wrong in (int, nn.functional.relu, nn.Linear(2, 2)):
        with pytest.raises(DTypeError, match="Expected a Module"):
            nn.utils.skip_init(wrong)


@pytest.mark.parametrize("n", [2, 3])
def test_there_are_no_memory_formats(n):
    convert = getattr(nn.utils, f"convert_conv{n}d_weight_memory_format")
    with pytest.raises(
        UnsupportedError, match=f"convert_conv{n}d_weight_memory_format: JAX arrays"
    ):
        convert(nn.Conv2d(1, 1, 1), "channels_last")
