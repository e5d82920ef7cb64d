"""Epochs out of loaders, iterators and functions, and going on in the middle of one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from funcnets import train
from funcnets.errors import ArgumentError
from funcnets.train.batches import Batches


def opened(data, per_epoch=None, size=2):
    return Batches("train_data", data, per_epoch, size, None)


def epoch(batches, number, **options):
    return [np.asarray(batch).tolist() for batch, _ in batches.epoch(number, **options)]


ROWS = [np.int32(n) for n in range(5)]


def grain_set():
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(list(range(10))).seed(3).shuffle().batch(2)


LOADERS = {
    "list": lambda: ROWS,
    "function": lambda: lambda: iter(ROWS),
    "array_loader": lambda: train.ArrayLoader(np.arange(10), 2, shuffle=True, seed=1),
    "grain": lambda: grain_set().to_iter_dataset(),
}


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("used", [1, 3, 5])
@pytest.mark.parametrize("name", LOADERS)
def test_goes_on_within_an_epoch(name, used, size):
    whole = opened(LOADERS[name](), size=size)
    expected = [epoch(whole, n) for n in (1, 2)]
    assert len(expected[0]) == 5
    broken = opened(LOADERS[name](), size=size)
    position = list(itertools.islice(broken.epoch(1), used))[-1][1]
    broken.close()
    again = opened(LOADERS[name](), size=size)
    options = {"used": used, "resumed": True, "position": position}
    assert epoch(again, 1, **options) == expected[0][used:]
    assert epoch(again, 2) == expected[1]


def test_goes_on_at_the_beginning_of_an_epoch():
    loader = LOADERS["array_loader"]()
    whole = opened(loader)
    expected = [epoch(whole, n) for n in (1, 2, 3)]
    assert expected[0] != expected[1]
    broken = opened(LOADERS["array_loader"]())
    epoch(broken, 1)
    again = opened(LOADERS["array_loader"]())
    assert epoch(again, 2, resumed=True, position=broken.position) == expected[1]
    assert epoch(again, 3) == expected[2]


@pytest.mark.parametrize(("number", "used"), [(1, 2), (2, 0), (3, 2)])
@pytest.mark.parametrize("name", ["list", "grain"])
def test_epochs_of_a_given_length(name, number, used):
    whole = opened(LOADERS[name](), per_epoch=3)
    expected = [epoch(whole, n) for n in (1, 2, 3)]
    whole.close()
    if name == "list":
        assert expected == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]
    broken = opened(LOADERS[name](), per_epoch=3)
    counts = [3] * (number - 1) + [used]
    pairs = [p for n, c in enumerate(counts, 1) for p in itertools.islice(broken.epoch(n), c)]
    position = pairs[-1][1]
    broken.close()
    again = opened(LOADERS[name](), per_epoch=3)
    options = {"used": used, "resumed": True, "position": position}
    assert epoch(again, number, **options) == expected[number - 1][used:]
    if number < 3:
        assert epoch(again, number + 1) == expected[number]
    again.close()


def test_how_many_there_are():
    assert opened(ROWS).total == 5 and opened(iter(ROWS)).total is None
    assert opened(itertools.count(), per_epoch=7).total == 7
    assert opened(lambda: ROWS).total is None
    endless = pytest.importorskip("grain").MapDataset.source([1, 2]).repeat()
    assert opened(endless).total is None


def test_an_iterator_is_used_up():
    once = opened(iter(ROWS))
    assert epoch(once, 1) == [0, 1, 2, 3, 4]
    with pytest.raises(ArgumentError, match="no batch in epoch 2: it is an iterator"):
        epoch(once, 2)
    by_number = opened(lambda number: ROWS[:number])
    assert [epoch(by_number, n) for n in (1, 2)] == [[0], [0, 1]]
