"""One row of the table that drives the parity, transformation, precision and printing tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Spec:
    """How to make one input array; ``make`` is deterministic for a given generator."""

    shape: tuple[int, ...]
    kind: str
    low: float = 0.0
    high: float = 1.0

    def make(self, rng: np.random.Generator) -> np.ndarray:
        if self.kind == "normal":
            return (rng.standard_normal(self.shape) * self.high).astype(np.float32)
        if self.kind == "uniform":
            return rng.uniform(self.low, self.high, self.shape).astype(np.float32)
        if self.kind == "ints":
            return rng.integers(int(self.low), int(self.high), self.shape).astype(np.int32)
        return rng.uniform(size=self.shape) < self.high


def Normal(*shape: int, scale: float = 1.0) -> Spec:
    return Spec(shape, "normal", high=scale)


def Uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Spec:
    return Spec(shape, "uniform", low, high)


def Ints(*shape: int, low: int = 0, high: int = 10) -> Spec:
    return Spec(shape, "ints", low, high)


def Bools(*shape: int, p: float = 0.5) -> Spec:
    return Spec(shape, "bools", high=p)


@dataclass(frozen=True)
class Case:
    """One construction and call, given alike to torch.nn and to funcnets.nn."""

    name: str
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: tuple = ()
    call: dict[str, Any] = field(default_factory=dict)
    fn: bool = False
    train: bool = True
    grad: bool = True
    vmap: bool = True
    half: bool = True
    steps: int = 1
    second: bool = False
    rtol: float = 1e-5
    atol: float = 1e-5
    id: str = ""

    def __str__(self) -> str:
        parts = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        parts += [f"{k}=" for k in self.call]
        text = f"{self.name}({','.join(parts)})"
        return (text + (f"-{self.id}" if self.id else "")).replace(" ", "")[:120]
