"""A training run in a process of its own, for ``test_checkpoints_killed.py``: whole, or killed and resumed.

``python checkpoint_run.py DIRECTORY SEED`` forks, so that what is imported here is imported once. Each run
trains to ``STEPS`` with a checkpoint at every step and leaves its final parameters in a file.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import funcnets as fn
from funcnets import nn, optim
from funcnets.optim.lr_scheduler import StepLR
from funcnets.train.checkpoints import CheckpointManager
from funcnets.train.data import ArrayLoader

STEPS, KILLS = 24, 5


def train(directory: Path, result: Path, report: int) -> None:
    """Train to the end, from the last checkpoint if there is one."""
    fn.manual_seed(7)
    rng = np.random.default_rng(0)
    data = rng.normal(size=(40, 4)).astype(np.float32), rng.normal(size=(40, 1)).astype(np.float32)
    model: Any = nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1)
    )
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    schedule = StepLR(optimizer, step_size=7)
    loader = ArrayLoader(data, batch_size=8, shuffle=True, seed=3)

    @fn.jit
    def train_step(x, y):
        loss, grads = fn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.step(grads)
        return loss

    items = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
    # Nothing waits for the last checkpoint: the end of the program does.
    manager = CheckpointManager(directory, keep=2)
    step = 0
    if manager.latest is not None:
        restored = manager.restore({**items, "step": None})
        step = restored.values["step"]
        assert step == restored.step
    while step < STEPS:
        for x, y in loader:
            train_step(x, y)
            schedule.step()
            step += 1
            manager.save(step, {**items, "step": step})
            os.write(report, bytes([step]))
            if step == STEPS:
                break
    # Drawn last, it tells whether the random stream and the tickets are where they should be.
    drawn = {"layer": nn.Linear(3, 3).weight.data, "mask": nn.Dropout(0.5)(np.ones(64, np.float32))}
    state = {**{n: np.asarray(a) for n, a in model.state_dict().items()}, **drawn}
    np.savez(result, rates=np.array(schedule.get_last_lr()), **state)


def start(directory: Path, result: Path) -> tuple[int, int]:
    """Fork a run; returns its process and a pipe that tells its steps."""
    steps, report = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(steps)
        train(directory, result, report)
        sys.exit(0)
    os.close(report)
    return process, steps


def main(home: Path, seed: int) -> None:
    draw = random.Random(seed)
    process, steps = start(home / "whole", home / "whole.npz")
    assert os.waitpid(process, 0)[1] == 0
    os.close(steps)
    kills = 0
    while True:
        process, steps = start(home / "killed", home / "killed.npz")
        if kills < KILLS:
            for _ in range(draw.randint(1, 4)):
                os.read(steps, 1)
            time.sleep(draw.uniform(0, 0.1))
            os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        os.close(steps)
        if status == 0:
            break
        assert status == signal.SIGKILL, status
        kills += 1
        left = sorted(p.name for p in (home / "killed").iterdir())
        print(f"killed; left: {' '.join(left)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
