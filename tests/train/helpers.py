"""A small regression for the tests of ``fit``, and what torch makes of it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import funcnets as fn
from funcnets import nn, optim, train


class Net(nn.Module):
    """Two layers; ``traces`` counts how often the forward pass was traced or run."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, outputs)
        self.traces: list[Any] = []

    def forward(self, x: jax.Array) -> jax.Array:
        self.traces.append(x.shape)
        return self.head(jax.nn.relu(self.body(x)))


def data(samples: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, 3)).astype(np.float32)
    return x, (x @ np.array([[1.0], [-2.0], [0.5]], np.float32)).astype(np.float32)


def batches(size: int = 4, samples: int = 10, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = data(samples, seed)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, samples, size)]


def snapshot(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in model.state_dict().items()}


def assert_same(model: nn.Module, expected: dict[str, np.ndarray], **tolerance: float) -> None:
    for name, value in snapshot(model).items():
        if tolerance:
            np.testing.assert_allclose(value, expected[name], err_msg=name, **tolerance)
        else:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


class Setting:
    """A model, its optimizer and criterion, which can be put back to the beginning.

    A training with the same three finds its compiled step again, so many tests cost one compilation.
    """

    def __init__(self, outputs: int = 1, lr: float = 0.05, **options: Any) -> None:
        fn.manual_seed(0)
        self.model = Net(outputs)
        self.optimizer = optim.SGD(self.model.parameters(), lr=lr, **options)
        self.criterion = nn.MSELoss()
        self.start = snapshot(self.model)
        self.lr = lr

    def reset(self) -> Setting:
        self.model.load_state_dict(self.start)
        self.model.train()
        self.optimizer.param_groups[0]["lr"] = self.lr
        return self

    def fit(self, train_data: Any = None, *args: Any, **options: Any) -> train.History:
        options = {"progress": False} | options
        chosen = batches() if train_data is None else train_data
        return train.fit(self.model, self.optimizer, self.criterion, chosen, *args, **options)

    def by_hand(self, steps: int, decay: float = 1.0) -> dict[str, np.ndarray]:
        """The parameters after so many steps of a plain loop in NumPy, from the beginning."""
        w = {name: value.astype(np.float64) for name, value in self.start.items()}
        all_batches = batches()
        for n in range(steps):
            x, y = (a.astype(np.float64) for a in all_batches[n % len(all_batches)])
            before = x @ w["body.weight"].T + w["body.bias"]
            hidden = np.maximum(before, 0)
            error = 2 * (hidden @ w["head.weight"].T + w["head.bias"] - y) / y.size
            back = (error @ w["head.weight"]) * (before > 0)
            grads = {
                "head.weight": error.T @ hidden,
                "head.bias": error.sum(0),
                "body.weight": back.T @ x,
                "body.bias": back.sum(0),
            }
            w = {name: w[name] - self.lr * decay**n * grads[name] for name in w}
        return w
