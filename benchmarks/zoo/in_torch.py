"""Torch: eager on all cores of this process, or compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.zoo.recipes import RATE
from benchmarks.zoo.torch_names import TorchNames


class Done:
    """What the harness waits for: the work that was sent to the device, and the loss."""

    def __init__(self, loss: torch.Tensor) -> None:
        self.loss = loss

    def block_until_ready(self) -> Done:
        if self.loss.is_cuda:
            torch.cuda.synchronize()
        return self

    def __float__(self) -> float:
        return float(self.loss)


class Torch(TorchNames):
    def __init__(self, device: str = "cpu", dtype: str = "float32") -> None:
        super().__init__(nn, nn.functional)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.manual_seed(0)
        self.device, self.dtype = device, getattr(torch, dtype)

    def array(self, a: np.ndarray) -> torch.Tensor:
        dtype = self.dtype if a.dtype == np.float32 else torch.int64
        return torch.from_numpy(a).to(self.device, dtype)

    def build(self, recipe: Callable[[Any], nn.Module], x: np.ndarray) -> Any:
        return recipe(self).to(self.device, self.dtype)

    def output(self, model: Any, x: np.ndarray) -> Callable[[], Any]:
        given = self.array(x)

        def call() -> Any:
            with torch.inference_mode():
                return Done(model(given).sum())

        return call

    def train(self, model: Any, x: np.ndarray, y: np.ndarray, loss: str) -> Callable[[], Any]:
        fused = self.device != "cpu"
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=fused or None)
        given, target = self.array(x), self.array(y)
        if target.is_floating_point():
            target = target.float()

        def step() -> Done:
            optimizer.zero_grad()
            value = self.loss(loss, model(given).float(), target)
            value.backward()
            optimizer.step()
            return Done(value.detach())

        return step


class Compiled(Torch):
    def build(self, recipe: Callable[[Any], nn.Module], x: np.ndarray) -> Any:
        return torch.compile(super().build(recipe, x))
