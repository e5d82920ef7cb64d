"""Every public name of torch.nn, torch.nn.functional, torch.nn.init and torch.nn.utils is here."""

from __future__ import annotations

import pytest

from benchmarks import coverage
from funcnets import nn

ROWS = coverage.rows()
RANKED = {
    "LazyConv3d": (2, 2),
    "LazyConvTranspose1d": (2, 2),
    "LazyConvTranspose2d": (2, 2),
    "LazyConvTranspose3d": (2, 2),
    "LazyBatchNorm3d": (),
    "LazyInstanceNorm3d": (),
}


@pytest.mark.parametrize("room", sorted({row.room for row in ROWS}))
def test_every_name_is_present_and_tested(room):
    assert [row.name for row in ROWS if row.room == room and not row.present] == []
    assert [row.name for row in ROWS if row.room == room and not row.tested] == []


def test_there_are_163_classes():
    assert sum(row.room == "nn" for row in ROWS) == 163


@pytest.mark.parametrize("name", RANKED)
def test_lazy_layers_know_the_class_they_become(name):
    layer = getattr(nn, name)(*RANKED[name])
    assert layer.cls_to_become is getattr(nn, name.removeprefix("Lazy"))


def test_the_base_of_the_cells_is_public():
    assert issubclass(nn.LSTMCell, nn.RNNCellBase)
