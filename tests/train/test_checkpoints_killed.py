"""A run that is killed again and again, and resumed, is bit for bit the run that was not."""

from __future__ import annotations

import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

from funcnets.train.checkpoints import CheckpointManager

SCRIPT = pathlib.Path(__file__).with_name("checkpoint_run.py")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork, and no signal that kills")
def test_killed_at_random_points_and_resumed(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    command = [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path), str(seed)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parents[2])
    told = f"seed {seed}\n{run.stdout}\n{run.stderr}"
    assert run.returncode == 0, told
    assert run.stdout.count("killed") >= 2, told
    whole, killed = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "killed.npz")
    assert sorted(whole) == sorted(killed)
    for name in whole:
        np.testing.assert_array_equal(killed[name], whole[name], err_msg=f"{name}, {told}")
    for home in ("whole", "killed"):
        # The last checkpoint was written although the program ended right after it began.
        assert CheckpointManager(tmp_path / home).steps == [23, 24], told
        left = {path.name for path in (tmp_path / home).iterdir()}
        assert left == {"23", "24"}, told
