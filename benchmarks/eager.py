"""Calls that nothing compiles, as in a notebook: ``python -m benchmarks.eager [rounds]``.

``model(x)``, and the gradients of a loss, of models of the kind that a first tutorial has, against torch.
Both libraries run one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import funcnets as fn
from benchmarks import harness
from funcnets import nn


def mlp(nn: Any) -> Any:
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)
    )


def lenet(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def cnn(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 10),
    )


def encoder(nn: Any) -> Any:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def lstm(nn: Any) -> Any:
    return nn.LSTM(16, 32, 2, batch_first=True)


CASES: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "MLP 8-16-32-4": (mlp, (4, 8)),
    "LeNet": (lenet, (4, 1, 32, 32)),
    "CNN 3-16-32": (cnn, (4, 3, 28, 28)),
    "2 encoder layers of 32": (encoder, (4, 10, 32)),
    "2-layer LSTM of 32": (lstm, (4, 10, 16)),
}


def first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) else out


def contenders(make: Callable[[Any], Any], shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    import torch

    torch.set_num_threads(1)
    fn.manual_seed(0)
    ours, theirs = make(nn), make(torch.nn)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    array, tensor = jnp.asarray(x), torch.from_numpy(x)

    def gradients() -> Any:
        return fn.value_and_grad(lambda model: (first(model(array)) ** 2).mean())(ours)

    def backward() -> Any:
        theirs.zero_grad()
        loss = (first(theirs(tensor)) ** 2).mean()
        loss.backward()
        return loss.detach()

    def forward() -> Any:
        return first(theirs(tensor)).detach()

    return {
        "forward": {"torch, eager": forward, "funcnets, eager": lambda: ours(array)},
        "gradients": {"torch, eager": backward, "funcnets, eager": gradients},
    }


def main(rounds: int = 40) -> str:
    """The tables, which are also printed as they are made."""
    tables = []
    for title, (make, shape) in CASES.items():
        for what, calls in contenders(make, shape).items():
            waiting = {
                name: (lambda call=call: jax.block_until_ready(call()))
                for name, call in calls.items()
            }
            times = harness.interleave(waiting, rounds=rounds, target=0.01)
            tables.append(harness.table(f"{title}, batch {shape[0]}: {what}", times))
            print("\n" + tables[-1], flush=True)
    return "\n\n".join(tables)


if __name__ == "__main__":
    print(harness.machine(), flush=True)
    main(*harness.arguments()[:1])
