"""Batches on their way to the device."""

from __future__ import annotations

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import nn, train
from funcnets.errors import ArgumentError, DTypeError


def threads():
    return [t for t in threading.enumerate() if t.name == "funcnets-prefetch"]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_gives_what_the_data_give_in_their_order(size):
    data = [{"x": np.full((2, 3), n), "n": n, "flag": True} for n in range(7)]
    got = list(train.prefetch(data, size))
    assert [int(batch["n"]) for batch in got] == list(range(7))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(got))
    assert got[0]["x"].dtype == jnp.int32 and got[0]["flag"].dtype == bool
    assert not threads()


def test_runs_ahead_by_no_more_than_its_size():
    taken = []

    def source():
        for n in range(100):
            taken.append(n)
            yield np.float32(n)

    with train.prefetch(source(), 3) as batches:
        assert float(next(batches)) == 0
        deadline = time.monotonic() + 5
        while len(taken) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        # One was handed out, three wait, and one more may be on its way.
        assert len(taken) == 5
    assert not threads()
    assert list(batches) == []
    assert len(taken) <= 6


def test_errors_of_the_data_come_out_in_their_place():
    def source():
        yield np.zeros(1)
        raise KeyError("lost")

    for size in (0, 2):
        batches = train.prefetch(source(), size)
        next(batches)
        with pytest.raises(KeyError, match="lost"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_numpy_memory_is_copied_and_torch_comes_over():
    buffer = np.zeros((4, 1024), np.float32)

    def reusing():
        for n in range(3):
            buffer[:] = n
            yield buffer

    got = list(train.prefetch(reusing(), 1))
    assert [float(batch.min()) for batch in got] == [float(b.max()) for b in got] == [0, 1, 2]
    tensor = torch.arange(3, dtype=torch.bfloat16, requires_grad=True)
    (batch,) = train.prefetch([(tensor, torch.tensor(2), nn.Parameter(jnp.ones(2)))])
    assert batch[0].dtype == jnp.bfloat16 and batch[0].tolist() == [0, 1, 2]
    assert batch[1].shape == () and batch[2].tolist() == [1, 1]


def test_settings_of_the_calling_thread_hold():
    with jax.enable_x64(True), jax.default_device(jax.devices()[2]):
        (batch,) = train.prefetch([np.ones(2)])
    assert batch.dtype == np.float64 and batch.devices() == {jax.devices()[2]}


def test_a_sharding_spreads_the_batch():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    (batch,) = train.prefetch([np.arange(8)], device=spread)
    assert batch.sharding == spread and batch.tolist() == list(range(8))


def test_the_position_is_that_of_the_batch_handed_out():
    loader = train.ArrayLoader(np.arange(10), batch_size=2)
    with train.prefetch(loader, 4) as batches:
        assert batches.position is None
        for n in range(1, 4):
            next(batches)
            assert batches.position["batch"] == n
    again = train.ArrayLoader(np.arange(10), batch_size=2)
    again.load_state_dict(batches.position)
    assert next(iter(again)).tolist() == [6, 7]


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ({"x": np.ones(2), "name": ["a", "b"]}, r"batch\['name'\]\[0\] is 'a'"),
        ((np.ones(2), np.array(["a"])), r"batch\[1\] is"),
        ((np.ones(2), object()), r"batch\[1\] is object"),
        ([np.array("2020-01-01", "M8[D]")], r"batch\[0\] is datetime64"),
    ],
)
def test_refuses_what_is_no_array(batch, match):
    for size in (0, 2):
        with pytest.raises(DTypeError, match=match):
            next(train.prefetch([batch], size))


def test_refuses_other_arguments():
    with pytest.raises(DTypeError, match="data must be an iterable"):
        train.prefetch(3)
    with pytest.raises(ArgumentError, match="size must be non-negative"):
        train.prefetch([], -1)
    with pytest.raises(ArgumentError, match="there is no device"):
        train.prefetch([], device="tpu:7")
