"""The same small regression in torch and here, stepped side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from funcnets import nn, optim

#: Constructors by name, in torch and here.
NAMES = ("SGD", "Adam", "AdamW")


class Net(nn.Module):
    """Two layers, so that there are parameters to freeze and to group."""

    def __init__(self, dtype: Any = None) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4, dtype=dtype)
        self.head = nn.Linear(4, 2, dtype=dtype)

    def forward(self, x: jax.Array) -> jax.Array:
        return self.head(jnp.tanh(self.body(x)))


class TorchNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(3, 4)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(self.body(x)))


def pair(dtype: Any = jnp.float64) -> tuple[Net, TorchNet]:
    """Both models with the same values."""
    torch.manual_seed(0)
    theirs = TorchNet().to(getattr(torch, jnp.dtype(dtype).name))
    ours = Net(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def batches(count: int, dtype: Any = np.float64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.standard_normal((4, 3)).astype(dtype), rng.standard_normal((4, 2)).astype(dtype)


def torch_step(model: Any, optimizer: Any, x: np.ndarray, y: np.ndarray) -> None:
    optimizer.zero_grad()
    dtype = next(model.parameters()).dtype
    loss = ((model(torch.from_numpy(x).to(dtype)) - torch.from_numpy(y).to(dtype)) ** 2).mean()
    loss.backward()
    optimizer.step()


def assert_equal_torch(
    ours: nn.Module, theirs: Any, rtol: float = 1e-6, atol: float = 1e-9
) -> None:
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(
            np.asarray(ours.state_dict()[name], np.float64),
            value.detach().double().numpy(),
            rtol=rtol,
            atol=atol,
            err_msg=name,
        )


def snapshot(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in model.state_dict().items()}


def memory_shapes(optimizer: optim.Optimizer) -> list[tuple[int, ...]]:
    """The shapes of all arrays that the optimizer keeps."""
    return sorted(cell.shape for name, cell in optimizer._cells() if "memory" in name)
