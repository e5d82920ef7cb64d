"""Torch's files, both ways, and torch's tensors in other files."""

from __future__ import annotations

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import nn
from funcnets.errors import ArgumentError, CheckpointError
from funcnets.io import load, save

DTYPES = [
    *(np.dtype(code).name for code in "?bhiqBHIQefdFD"),
    *(f"float8_{kind}" for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")),
    "bfloat16",
]


def bits(array):
    return np.asarray(array).tobytes()


def tensor_of(name):
    """Random bits; for booleans and for 0 dimensions, too."""
    dtype = getattr(torch, name)
    if name == "bool":
        return torch.tensor([True, False])
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (16 * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    return data.view(dtype)


def build(lib, dtype=None):
    """A tied model with a batch norm, in torch or here."""
    model = lib.Sequential(lib.Embedding(5, 3), lib.BatchNorm1d(3), lib.Linear(3, 5, bias=False))
    model[2].weight = model[0].weight
    return model.to(dtype) if dtype is not None else model


def test_reading_a_state_dict_of_torchs(tmp_path):
    theirs = build(torch.nn, torch.bfloat16)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    found = load(tmp_path / "x.pth")
    assert (
        type(found) is collections.OrderedDict and found._metadata == theirs.state_dict()._metadata
    )
    assert found["0.weight"] is found["2.weight"] and found["0.weight"].dtype == jnp.bfloat16
    assert found["1.num_batches_tracked"].dtype == np.int64
    ours = build(nn, jnp.bfloat16)
    assert repr(ours.load_state_dict(found)) == "<All keys matched successfully>"
    expected = theirs.state_dict()["0.weight"].view(torch.int16).numpy()
    assert bits(ours[2].weight) == bits(expected)


def test_writing_a_state_dict_that_torch_reads(tmp_path):
    ours, theirs = build(nn), build(torch.nn)
    save(ours.state_dict(), tmp_path / "x.pt")
    read = torch.load(tmp_path / "x.pt", weights_only=True)
    assert read["0.weight"].data_ptr() == read["2.weight"].data_ptr()
    assert read._metadata == theirs.state_dict()._metadata
    assert theirs.load_state_dict(read).missing_keys == []
    for name, array in ours.state_dict().items():
        assert np.array_equal(theirs.state_dict()[name].numpy(), array)
    read["0.weight"].add_(1)  # it is torch's own memory
    assert not np.array_equal(read["0.weight"], ours[0].weight)


def test_every_dtype_both_ways(tmp_path):
    tensors = {name: tensor_of(name) for name in DTYPES}
    tensors |= {
        f"{name} scalar": tensor_of(name)[1] for name in ("bfloat16", "float32", "float8_e5m2")
    }
    tensors["empty"] = torch.empty(0, 3, dtype=torch.bfloat16)
    torch.save(tensors, tmp_path / "theirs.pt")
    found = load(tmp_path / "theirs.pt")
    for name, tensor in tensors.items():
        assert str(found[name].dtype) == str(tensor.dtype).removeprefix("torch.")
        assert found[name].shape == tuple(tensor.shape)
        assert bits(found[name]) == bytes(tensor.reshape(-1).view(torch.uint8).tolist())
    save(found, tmp_path / "ours.pt")
    for name, tensor in torch.load(tmp_path / "ours.pt", weights_only=True).items():
        assert tensor.dtype == tensors[name].dtype and tensor.shape == tensors[name].shape
        back, there = (t.reshape(-1).view(torch.uint8) for t in (tensor, tensors[name]))
        assert torch.equal(back, there)


def test_a_training_checkpoint_of_torchs(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 5])
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step(), schedule.step()
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "size": model.weight.shape,
        "parameter": model.weight,
        "kept": [torch.float16, torch.device("cpu")],
    }
    torch.save(saved, tmp_path / "x.pt")
    found = load(tmp_path / "x.pt")
    assert found["schedule"] == schedule.state_dict() and found["size"] == (2, 2)
    assert type(found["schedule"]["milestones"]) is collections.Counter
    assert found["kept"] == saved["kept"] and found["parameter"] is found["model"]["weight"]
    moments = optimizer.state_dict()["state"][0]
    assert np.array_equal(found["optimizer"]["state"][0]["exp_avg"], moments["exp_avg"])
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    # And as safetensors, from which torch gets back what it can continue with.
    del found["kept"]
    save(found, tmp_path / "x.safetensors")
    again = load(tmp_path / "x.safetensors")
    save(again, tmp_path / "y.pt")
    read = torch.load(tmp_path / "y.pt", weights_only=True)
    optimizer.load_state_dict(read["optimizer"])
    schedule.load_state_dict(read["schedule"])
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moments["exp_avg"])


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_torchs_tensors_are_saved_as_they_are(tmp_path, name):
    base = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "transposed": base.T,
        "tied": base.T,
        "row": base[1],
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "negative": torch.tensor([1 + 2j]).conj().imag,
        "trained": torch.nn.Parameter(base.to(torch.bfloat16)),
        "eight": base.to(torch.float8_e4m3fn)[:, 1],
    }
    save(tensors, tmp_path / name)
    found = load(tmp_path / name)
    for key, tensor in tensors.items():
        assert found[key].tolist() == tensor.tolist()
        assert str(found[key].dtype) == str(tensor.dtype).removeprefix("torch.")
    assert found["tied"] is found["transposed"] and found["row"].shape == (3,)


def test_tensors_that_cannot_be_arrays(tmp_path):
    odd = {
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.empty(2, device="meta"),
        "lazy": torch.nn.UninitializedParameter(),
        "packed": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    words = (
        r"\['sparse'\]: a Tensor: it is sparse; call \.to_dense\(\)\n\t\['meta'\]: .*no data\n"
        r"\t\['lazy'\]: .*shape is not known\D+\n\t\['packed'\]: .*JAX has no such dtype"
    )
    with pytest.raises(ArgumentError, match=words):
        save(odd, tmp_path / "x.safetensors")
    torch.save({"a": odd["sparse"]}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt has a tensor .* and it is sparse"):
        load(tmp_path / "x.pt")


def test_dtypes_that_torch_lacks_are_all_named(tmp_path):
    with pytest.raises(
        ArgumentError, match=r"a \(int4\), b\.c \(float8_e4m3\); save as .safetensors"
    ):
        save(
            {"a": jnp.ones(2, jnp.int4), "b": {"c": jnp.ones(2, jnp.float8_e4m3)}},
            tmp_path / "x.pt",
        )
    assert list(tmp_path.iterdir()) == []


def test_prng_keys_are_readable_for_torch(tmp_path):
    save({"key": jax.random.key(3)}, tmp_path / "x.pt")
    read = torch.load(tmp_path / "x.pt", weights_only=True)["key"]
    assert read["__prng_key__"] == "threefry2x32" and read["data"].tolist() == [0, 3]


def test_the_old_format_of_torch(tmp_path):
    state = {"a": torch.arange(3), "b": torch.ones(2).to(torch.bfloat16)}
    torch.save(state, tmp_path / "x.tar", _use_new_zipfile_serialization=False)
    found = load(tmp_path / "x.tar")
    assert found["a"].tolist() == [0, 1, 2] and found["b"].dtype == jnp.bfloat16
