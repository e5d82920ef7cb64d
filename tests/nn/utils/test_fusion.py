"""Merging batch normalisation, against PyTorch's."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import nn
from funcnets.errors import ArgumentError
from funcnets.nn import utils


def both(kind, args, kwargs, norm, features, norm_kwargs):
    theirs = torch.nn.Sequential(
        getattr(torch.nn, kind)(*args, **kwargs), getattr(torch.nn, norm)(features, **norm_kwargs)
    )
    ours = nn.Sequential(
        getattr(nn, kind)(*args, **kwargs), getattr(nn, norm)(features, **norm_kwargs)
    )
    with torch.no_grad():
        for value in theirs.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize(
    ("kind", "args", "kwargs", "norm", "norm_kwargs", "shape"),
    [
        ("Conv2d", (3, 4, 3), {}, "BatchNorm2d", {}, (2, 3, 5, 5)),
        ("Conv2d", (2, 4, 1), {"bias": False, "groups": 2}, "BatchNorm2d", {}, (2, 2, 3, 3)),
        ("Conv1d", (3, 4, 3), {}, "BatchNorm1d", {"affine": False, "eps": 1e-3}, (2, 3, 5)),
        ("ConvTranspose2d", (3, 4, 2), {}, "BatchNorm2d", {}, (2, 3, 4, 4)),
        ("Linear", (3, 4), {}, "BatchNorm1d", {}, (2, 3)),
        ("Linear", (3, 4), {"bias": False}, "BatchNorm1d", {}, (2, 3)),
    ],
)
def test_equals_torch(kind, args, kwargs, norm, norm_kwargs, shape):
    ours, theirs = both(kind, args, kwargs, norm, 4, norm_kwargs)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    name, more = ("linear", ()) if kind == "Linear" else ("conv", ("Transpose" in kind,))
    fused = getattr(utils, f"fuse_{name}_bn_eval")(*ours, *more)
    expected = getattr(torch.nn.utils, f"fuse_{name}_bn_eval")(*theirs, *more)
    assert repr(fused) == repr(expected)
    for n, p in expected.named_parameters():
        cell = fused.get_parameter(n)
        assert cell.requires_grad == p.requires_grad
        np.testing.assert_allclose(cell.data, p.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fused(x), ours(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), rtol=1e-4, atol=1e-5)


def test_a_single_feature_is_spread():
    ours, _ = both("Linear", (3, 4), {}, "BatchNorm1d", 1, {})
    fused = utils.fuse_linear_bn_eval(*ours)
    assert fused.bias.shape == (4,)


def test_weights_of_mixed_precision():
    rng = np.random.default_rng(0)
    arrays = [rng.random((4, 3, 2, 2)), rng.random(4), *(rng.random(4) for _ in range(2))]
    w, b, mean, var = (np.asarray(a, np.float32) for a in arrays)
    weight, bias = utils.fuse_conv_bn_weights(
        jnp.asarray(w, jnp.bfloat16), jnp.asarray(b, jnp.bfloat16), mean, var, 1e-5, None, None
    )
    assert weight.dtype == bias.dtype == jnp.bfloat16
    expected, _ = torch.nn.utils.fuse_conv_bn_weights(
        *(torch.nn.Parameter(torch.from_numpy(a)) for a in (w, b, mean, var)), 1e-5, None, None
    )
    np.testing.assert_allclose(weight.data.astype(jnp.float32), expected.detach(), rtol=0.02)


def test_what_is_refused():
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    for first, second in ((conv, norm.eval()), (nn.Conv2d(3, 4, 3).eval(), nn.BatchNorm2d(4))):
        with pytest.raises(ArgumentError, match="Fusion only for eval"):
            utils.fuse_conv_bn_eval(first, second)
    without = nn.BatchNorm2d(4, track_running_stats=False).eval()
    with pytest.raises(ArgumentError, match="running statistics"):
        utils.fuse_conv_bn_eval(conv.eval(), without)
    with pytest.raises(ArgumentError, match=r"out_features=4 and bn.num_features=3"):
        utils.fuse_linear_bn_eval(nn.Linear(3, 4).eval(), nn.BatchNorm1d(3).eval())
    with pytest.raises(ArgumentError, match="Fusion only for eval"):
        utils.fuse_linear_bn_eval(nn.Linear(3, 4), nn.BatchNorm1d(4))
