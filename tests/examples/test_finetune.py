"""The fine-tuning example: what is frozen stays bit for bit, what is learned before helps."""

from __future__ import annotations

import re

import numpy as np
import pytest

from funcnets.examples import digits, finetune


@pytest.fixture(scope="module")
def figures():
    return finetune.run(progress=False)


def test_the_frozen_trunk_is_unchanged_bit_for_bit(figures):
    names = list(figures["file"])
    assert list(figures["before"]) == list(figures["after"]) == names
    # The weights, and the running statistics of the BatchNorm.
    assert {"0.weight", "1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(names)
    for name in names:
        loaded = np.asarray(figures["file"][name])
        assert figures["before"][name].tobytes() == loaded.tobytes(), name
        assert figures["after"][name].tobytes() == loaded.tobytes(), name
    assert np.abs(figures["after"]["1.running_mean"]).max() > 0  # it was trained


def test_what_was_learned_before_helps(figures):
    assert figures["pretrained"] >= 0.96
    assert figures["transferred"] >= 0.85
    assert figures["transferred"] >= figures["random"] + 0.03


def test_the_other_question():
    data = digits.load(0)[0]
    other = finetune.odd(data, 100)
    assert len(other.images) == 100
    np.testing.assert_array_equal(other.labels, data.labels[:100] % 2)


def test_as_a_program(capsys):
    finetune.main(["--epochs", "1"])  # and two for each head
    out = capsys.readouterr().out
    assert "8 of 8 arrays of the trunk are the same, bit for bit" in out
    assert len(re.findall(r"[\d.]+ %", out)) == 3
