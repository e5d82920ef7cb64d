"""The program behind ``make demo``: it learns, both faces end alike, and it runs as a program."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

import funcnets as fn
from funcnets.examples import digits

ROOT = pathlib.Path(__file__).parent.parent.parent
PNG = b"\x89PNG\r\n\x1a\n"


def test_the_images_are_split_once():
    splits = digits.load(seed=0)
    assert [len(s.labels) for s in splits] == [1297, 200, 300]
    for split in splits:
        assert split.images.shape[1:] == (1, 8, 8)
        assert split.images.min() >= 0
        assert split.images.max() <= 1
        assert set(split.labels) == set(range(10))
    again = digits.load(seed=0)
    np.testing.assert_array_equal(splits[2].labels, again[2].labels)
    assert (splits[2].labels != digits.load(seed=1)[2].labels).any()


def test_both_faces_end_with_the_same_parameters(capsys):
    """As far as single precision carries: the two programs are compiled apart."""
    short = {"epochs": 1, "progress": False}
    stateful, figures, (_, labels, predicted) = digits.run(**short)
    text = capsys.readouterr().out
    pure, pure_figures, (_, pure_labels, pure_predicted) = digits.run(pure=True, **short)
    pure_text = capsys.readouterr().out
    params, state = fn.get_variables(stateful.model)
    for ours, other in ((params, pure.params), (state, pure.state)):
        assert jax.tree.structure(ours) == jax.tree.structure(other)
        for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert figures["loss"] == pytest.approx(pure_figures["loss"], abs=1e-5)
    np.testing.assert_array_equal(labels, pure_labels)
    np.testing.assert_array_equal(predicted, pure_predicted)
    timeless = lambda printed: re.sub(r"[\d.]+ s\n", "s\n", printed)  # noqa: E731
    assert timeless(text) == timeless(pure_text)
    assert "DigitNet(\n  (conv1): Conv2d(1, 16, kernel_size=(3, 3)" in text
    assert "6,122 parameters" in text


def test_the_default_run_recognises_97_5_per_cent(capsys):
    _, figures, (images, labels, predicted) = digits.run(progress=False)
    assert figures["accuracy"] >= 0.975
    assert figures["accuracy"] == pytest.approx((predicted == labels).mean())
    assert images.shape == (300, 1, 8, 8)
    assert f"accuracy {100 * figures['accuracy']:.1f} % of 300 images" in capsys.readouterr().out


@pytest.mark.parametrize("batch", [0, 1298])
def test_a_batch_that_cannot_be(batch):
    with pytest.raises(SystemExit, match="1 to 1297 images"):
        digits.run(batch=batch, progress=False)


def test_the_picture_shows_every_mistake(tmp_path):
    _, _, test = digits.load(seed=0)
    predicted = test.labels.copy()
    predicted[:3] = (predicted[:3] + 1) % 10
    path = tmp_path / "new" / "digits.png"
    digits.picture(path, test.images, test.labels, predicted)
    assert path.read_bytes().startswith(PNG)


@pytest.mark.parametrize("face", [[], ["--pure"]], ids=["stateful", "pure"])
def test_it_runs_as_a_program(face, tmp_path):
    path = tmp_path / "digits.png"
    command = [sys.executable, "-W", "error", "-m", "funcnets.examples.digits"]
    run = subprocess.run(
        [*command, "--epochs", "1", "--picture", str(path), *face],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "epoch  1  train loss" in run.stdout
    assert f"picture saved to {path}" in run.stdout
    assert path.read_bytes().startswith(PNG)
    assert run.stderr == ""
