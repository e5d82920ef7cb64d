"""Means over the batches of an epoch, modes of modules, and a pass in evaluation mode."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from funcnets.core.module import Module
from funcnets.train.step import ValidationStep

__all__ = ["LAG", "Means", "evaluating", "modes_kept", "validate"]

#: How many steps may be under way before the oldest one's result is read.
LAG = 2


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Give every module its own mode back at the end."""
    before = [(module, module._training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode, and every module's own mode afterwards."""
    with modes_kept(model):
        model.eval()
        yield


class Means:
    """Means over an epoch, weighted by the counts of the batches, in double precision."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, weight: float, values: Mapping[str, float]) -> None:
        """Take in the values of a batch."""
        for name, value in values.items():
            total = self.sums.setdefault(name, [0.0, 0.0])
            total[0] += weight * value
            total[1] += weight

    def compute(self) -> dict[str, float]:
        """The means; NaN where all weights were zero."""
        return {n: s / w if w else float("nan") for n, (s, w) in self.sums.items()}


def validate(step: ValidationStep, batches: Iterable[Any]) -> dict[str, Any]:
    """The mean loss and the metrics over ``batches``, in evaluation mode.

    Args:
        step: the compiled step.
        batches: pairs of a batch and the position of the data.

    Returns:
        Numbers by name.
    """
    means, pending = Means(), deque()

    def read() -> None:
        report, logs, names = pending.popleft()
        loss, count, _ = (float(v) for v in np.asarray(report))
        named = dict(zip(names, map(float, np.asarray(logs)), strict=True))
        means.add(count, {"loss": loss, **named})

    step.tally.begin_epoch()
    with evaluating(step.model):
        for batch, _ in batches:
            pending.append(step.run(batch))
            if len(pending) > LAG:
                read()
        while pending:
            read()
    return means.compute() | step.tally.compute()
