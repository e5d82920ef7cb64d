"""The program behind ``make demo``: it learns, both faces end alike, and it runs as a program."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

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
    ours, figures, (_, labels, predicted) = digits.run(epochs=2, progress=False)
    text = capsys.readouterr().out
    pure, pure_figures, (_, pure_labels, pure_predicted) = digits.run(
        digits.pure, epochs=2, progress=False
    )
    for one, other in ((ours.params, pure.params), (ours.state, pure.state)):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(ours.rows) == len(pure.rows) == 2
    for one, other in zip(ours.rows, pure.rows, strict=True):
        for name, value in other.items():
            assert one[name] == pytest.approx(value, rel=1e-4), name
    assert figures == pytest.approx(pure_figures, abs=1e-5)
    np.testing.assert_array_equal(labels, pure_labels)
    np.testing.assert_array_equal(predicted, pure_predicted)
    assert "DigitNet(\n  (conv1): Conv2d(1, 16, kernel_size=(3, 3)" in text
    assert "6,106 parameters" in text


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


def test_it_runs_as_a_program(tmp_path):
    path = tmp_path / "digits.png"
    command = [sys.executable, "-W", "error", "-m", "funcnets.examples.digits"]
    run = subprocess.run(
        [*command, "--epochs", "1", "--picture", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    check_printed(run.stdout, path)
    assert run.stderr == ""


def test_the_pure_face_as_a_program(tmp_path, capsys):
    path = tmp_path / "digits.png"
    digits.main(["--pure", "--epochs", "1", "--picture", str(path)])
    check_printed(capsys.readouterr().out, path)


def check_printed(text, path):
    assert re.search(r"^epoch 1.*loss [\d.]+ .*accuracy [\d.]+", text, re.MULTILINE)
    assert re.search(r"test loss [\d.]+  accuracy [\d.]+ % of 300 images", text)
    assert f"picture saved to {path}" in text
    assert path.read_bytes().startswith(PNG)
