"""The precision of every module and function under autocast, against torch's.

The oracle is ``torch.autocast`` for CUDA. torch built for CPU applies its rules to fake tensors, which have a
device and a dtype but no data. Where a kernel is missing even for those, the rule stands in the table here.
"""

from __future__ import annotations

import logging
import pathlib
import re
import warnings

import jax
import jax.numpy as jnp
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import funcnets as fn
from tests import oracle

logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)

KINDS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.int64: "int32"}

CASES = list({case.name: case for case in reversed(oracle.all_cases())}.values())[::-1]

#: What torch for CUDA does and fake tensors do not tell, for float32 and for bfloat16 inputs. The cells and
#: the recurrent networks are on its list of low precision; logarithms and powers are on that of float32.
UNTOLD = {
    "AdaptiveLogSoftmaxWithLoss": "float32 float32",
    "BatchNorm1d": "float32 bfloat16",
    "BatchNorm2d": "float32 bfloat16",
    "BatchNorm3d": "float32 bfloat16",
    "BCELoss": "float32 float32",
    "CrossMapLRN2d": "float32 bfloat16",
    "CTCLoss": "float32 float32",
    "FractionalMaxPool2d": "float32 bfloat16",
    "GaussianNLLLoss": "float32 float32",
    "GRU": "bfloat16 bfloat16",
    "GRUCell": "bfloat16 bfloat16",
    "InstanceNorm1d": "float32 bfloat16",
    "LSTM": "bfloat16 bfloat16",
    "LSTMCell": "bfloat16 bfloat16",
    "MultiMarginLoss": "float32 float32",
    "RNN": "bfloat16 bfloat16",
    "SyncBatchNorm": "float32 bfloat16",
    "Transformer": "float32 float32",
    "TransformerDecoderLayer": "float32 float32",
    "TransformerEncoderLayer": "float32 float32",
    "Unfold": "float32 bfloat16",
    "affine_grid": "float32 bfloat16",
    "binary_cross_entropy": "float32 float32",
    "fractional_max_pool2d": "float32 bfloat16",
    "fractional_max_pool2d_with_indices": "float32 bfloat16",
    "fractional_max_pool3d": "float32 bfloat16",
    "fractional_max_pool3d_with_indices": "float32 bfloat16",
    "grid_sample": "float32 bfloat16",
    "huber_loss": "float32 float32",
    "l1_loss": "float32 float32",
    "mse_loss": "float32 float32",
    "unfold": "float32 bfloat16",
}


def theirs_on_cuda(theirs, args, kwargs, half: bool):
    """The dtypes of torch's outputs."""
    state = None
    if isinstance(theirs, torch.nn.Module):
        state = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}

    def fake(x):
        x = oracle.to_torch(x)
        if not isinstance(x, torch.Tensor):
            return x
        low = half and x.dtype == torch.float32
        dtype = torch.bfloat16 if low else x.dtype
        return torch.empty(tuple(x.shape), dtype=dtype, device="cuda")

    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args, kwargs = oracle.tree_map(fake, (args, kwargs))
            if state is None:
                out = theirs(*args, **kwargs)
            else:
                cells = {n: torch.empty_like(fake_like(t), device="cuda") for n, t in state.items()}
                out = torch.func.functional_call(theirs, cells, args, kwargs)
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
    return [KINDS[t.dtype] for t in oracle.leaves(out) if isinstance(t, torch.Tensor)]


def fake_like(tensor):
    return torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device="meta")


def our_own(ours, args, kwargs, half: bool):
    def convert(x):
        x = oracle.to_jax(x)
        return x.astype(jnp.bfloat16) if half and oracle.is_float(x) else x

    args, kwargs = oracle.tree_map(convert, (args, kwargs))
    with fn.autocast(jnp.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = fn.eval_shape(ours, *args, **kwargs)
    return [leaf.dtype.name for leaf in jax.tree.leaves(out)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_output_dtypes_are_those_of_torch_for_cuda(case):
    theirs, ours = oracle.build(case)
    args, kwargs = oracle.arguments(case)
    got = [our_own(ours, args, kwargs, half) for half in (False, True)]
    for half in (False, True):
        try:
            expected = theirs_on_cuda(theirs, args, kwargs, half)
        except Exception:
            told = UNTOLD[case.name].split()[half]
            expected = [told if "int" not in dtype else dtype for dtype in got[half]]
        assert got[half] == expected, "bfloat16" if half else "float32"


def test_what_is_said_in_the_table_is_what_torch_has_on_its_lists():
    """The lists of torch's own header, for the entries above that come from it."""
    header = pathlib.Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    lists = dict(re.findall(r"#define AT_FORALL_(\w+)\(_\) *\\\n((?:.*\\\n)*)", header.read_text()))
    low, full = lists["LOWER_PRECISION_FP"], lists["FP32"]
    for name in ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "prelu", "conv_tbc"):
        assert f"_({name})" in low.replace(" ", "")
    for name in ("pow,Tensor_Scalar", "log", "l1_loss", "mse_loss", "huber_loss"):
        assert f"_({name})" in full.replace(" ", "")
    assert not [name for name in ("batch_norm", "max_pool2d", "unfold") if name in low + full]
