"""The loader's orders, positions and refusals; grain beside it in a compiled loop."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import funcnets as fn
from funcnets import errors, nn, optim
from funcnets.train import ArrayLoader

N = 23


def loader(**options):
    options = {"batch_size": 4, "shuffle": True, "seed": 3} | options
    return ArrayLoader(np.arange(N), **options)


def epochs(source, count):
    return [[batch.tolist() for batch in source] for _ in range(count)]


# --- batches ----------------------------------------------------------------------------------


def test_in_order_it_is_torchs_loader():
    x, y = np.arange(2 * N, dtype=np.float32).reshape(N, 2), np.arange(N)
    for drop_last in (False, True):
        ours = ArrayLoader((x, y), 4, drop_last=drop_last)
        dataset = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
        theirs = torch.utils.data.DataLoader(dataset, 4, drop_last=drop_last)
        assert len(ours) == len(theirs) == (5 if drop_last else 6)
        for (a, b), (c, d) in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, c.numpy())
            np.testing.assert_array_equal(b, d.numpy())


def test_every_sample_comes_once_an_epoch_in_another_order_each():
    seen = epochs(loader(), 3)
    flat = [[i for batch in epoch for i in batch] for epoch in seen]
    assert all(sorted(order) == list(range(N)) for order in flat)
    assert len({tuple(order) for order in flat} | {tuple(range(N))}) == 4
    assert [len(batch) for batch in seen[0]] == [4, 4, 4, 4, 4, 3]
    assert [len(batch) for batch in epochs(loader(drop_last=True), 1)[0]] == [4] * 5


def test_the_order_depends_on_the_seed_alone():
    assert epochs(loader(), 3) == epochs(loader(), 3)
    assert epochs(loader(), 1) != epochs(loader(seed=4), 1)
    # The batch size cuts the same order elsewhere.
    flat = [list(chain(*epochs(loader(batch_size=size), 1)[0])) for size in (1, 5)]
    assert flat[0] == flat[1]
    fn.manual_seed(7)
    first = epochs(loader(seed=None), 1)
    fn.manual_seed(7)
    assert epochs(loader(seed=None), 1) == first
    fn.manual_seed(8)
    assert epochs(loader(seed=None), 1) != first


def test_the_order_never_changes():
    """A resumed run must meet the order of the first one, on another machine and years later."""
    assert epochs(loader(batch_size=N), 1)[0][0] == ORDER_OF_SEED_3


def test_the_structure_of_the_arrays_is_that_of_a_batch():
    arrays = {
        "image": np.ones((N, 2, 2), np.float32),
        "label": (np.arange(N), jnp.arange(N)),
        "mask": torch.ones(N, dtype=torch.bool),
    }
    batch = next(iter(ArrayLoader(arrays, 4)))
    assert jax.tree.structure(batch) == jax.tree.structure(arrays)
    assert batch["image"].shape == (4, 2, 2)
    assert isinstance(batch["image"], np.ndarray)
    assert isinstance(batch["label"][1], jax.Array)
    assert batch["mask"].dtype == np.bool_


def test_rows_stay_together_and_devices_are_kept():
    device = jax.devices()[1]
    x = jax.device_put(jnp.arange(N), device)
    for a, b in ArrayLoader((x, np.arange(N)), 5, shuffle=True):
        assert a.devices() == {device}
        np.testing.assert_array_equal(a, b)


def test_changing_a_batch_leaves_the_arrays_alone():
    x = np.zeros(N)
    for shuffle in (False, True):
        for batch in ArrayLoader(x, 4, shuffle=shuffle):
            batch += 1
    assert not x.any()


# --- positions --------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 5, 6, 7, 9, 12])
def test_resuming_gives_what_would_have_come(stop):
    """From every batch, at the ends of epochs too, through a file and in another process's loader."""
    source, batches, positions = loader(), [], []
    for _ in range(3):
        for batch in source:
            batches.append(batch.tolist())
            positions.append(json.dumps(source.state_dict()))
    start = json.dumps(loader().state_dict())
    resumed = loader(seed=99)
    resumed.load_state_dict(json.loads(([start, *positions])[stop]))
    rest = []
    while resumed.epoch < 3:
        rest += [batch.tolist() for batch in resumed]
    assert rest == batches[stop:]


def test_positions_between_and_within_epochs():
    source = loader()
    say = lambda: (source.state_dict()["epoch"], source.state_dict()["batch"])  # noqa: E731
    assert say() == (0, 0)
    batches = iter(source)
    assert say() == (0, 0)
    for i in range(6):
        next(batches)
        assert say() == (0, i + 1)
    with pytest.raises(StopIteration):
        next(batches)
    assert say() == (1, 0)
    assert source.epoch == 1


def test_a_loop_left_early_is_not_gone_on_with():
    source = loader()
    for _ in source:
        break
    assert source.epoch == 0
    assert epochs(source, 1) == epochs(loader(), 2)[1:]
    source.set_epoch(0)
    assert epochs(source, 2) == epochs(loader(), 2)


def test_a_position_that_came_back_as_arrays():
    """As checkpoint libraries return numbers."""
    source = loader()
    next(iter(source))
    state = {name: np.asarray(value) for name, value in source.state_dict().items()}
    other = loader(seed=0)
    other.load_state_dict(state)
    assert other.state_dict() == source.state_dict()


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((np.ones(3), np.ones(4)), {}, r"\[0\]: float64\[3\], \[1\]: float64\[4\]"),
        (np.ones(()), {}, "share a first axis"),
        (np.ones((0, 2)), {}, "share a first axis"),
        ((), {}, "but got none"),
        ([1, 2, 3], {}, "np.asarray"),
        (np.ones(3), {"batch_size": 0}, "batch_size must be positive"),
        (np.ones(3), {"batch_size": 4, "drop_last": True}, "no batch of 4 is full"),
        (np.ones(3), {"seed": -1}, "seed must be non-negative"),
        (np.ones(3), {"seed": 0.5}, "seed must be an integer"),
    ],
)
def test_bad_arguments(arrays, options, message):
    with pytest.raises(errors.FuncnetsError, match=message):
        ArrayLoader(arrays, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 24}, "num_samples is 23, and was 24"),
        ({"batch_size": 5, "shuffle": False}, "batch_size is 4, and was 5; shuffle is True"),
        ({"batch": 7}, "there are 6 batches, and the position is 7"),
        ({"batch": -1}, "position is -1"),
        ({"epoch": -1}, "epoch is -1"),
        ({"epoch": "two"}, "damaged: epoch must be an integer"),
        ({"place": 1}, "has the entries epoch, batch"),
    ],
)
def test_positions_of_other_loaders(change, message):
    source = loader()
    next(iter(source))
    before = source.state_dict()
    with pytest.raises(errors.StateDictError, match=message):
        source.load_state_dict({**loader().state_dict(), **change})
    assert source.state_dict() == before
    for other in (None, {}, [1]):
        with pytest.raises(errors.StateDictError, match="has the entries"):
            source.load_state_dict(other)  # pyright: ignore


def test_it_prints_what_it_holds():
    text = repr(ArrayLoader((np.zeros((3, 2)), np.zeros(3)), batch_size=2, seed=0))
    assert "('float64[3, 2]', 'float64[3]'), batch_size=2, shuffle=False, seed=0" in text


# --- in a loop --------------------------------------------------------------------------------


def training():
    fn.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    @fn.jit
    def step(x, y):
        loss, grads = fn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.step(grads)
        return loss

    return model, step


def test_a_compiled_loop_with_grain_and_with_the_loader():
    """grain shuffles, batches and resumes by itself; its batches are NumPy arrays like ours."""
    import grain

    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    y = x @ np.array([[1.0], [-2.0], [3.0]], np.float32)
    rows = list(zip(x, y, strict=True))
    dataset = grain.MapDataset.source(rows).seed(0).shuffle().repeat(30).batch(8).to_iter_dataset()
    for source in (dataset, [b for _ in range(30) for b in ArrayLoader((x, y), 8, shuffle=True)]):
        model, step = training()
        losses = [float(step(*batch)) for batch in source]
        assert len(losses) == 120
        assert losses[-1] < 1e-3 * losses[0]
        np.testing.assert_allclose(model.weight.data, [[1, -2, 3]], atol=0.05)
    batches = iter(dataset)
    next(batches)
    position, second = batches.get_state(), next(batches)
    batches.set_state(position)
    np.testing.assert_array_equal(next(batches)[0], second[0])


def test_it_needs_no_optional_dependency():
    code = "import funcnets.train.data, sys; print([m for m in ('torch', 'grain') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


ORDER_OF_SEED_3 = [
    21, 0, 16, 1, 2, 10, 12, 14, 15, 13, 20, 19, 22, 7, 5, 18, 17, 6, 11, 9, 8, 4, 3,
]  # fmt: skip
