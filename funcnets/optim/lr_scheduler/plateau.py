"""``ReduceLROnPlateau``: the learning rate falls when a metric no longer improves."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import numpy as np
from jax.core import Tracer

from funcnets._args import choice, describe
from funcnets.errors import ArgumentError, ShapeError, StateLeakError
from funcnets.optim.lr_scheduler.base import (
    EPOCH_WARNING,
    LRScheduler,
    all_or_nothing,
    per_group,
    require_optimizer,
    values,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(LRScheduler):
    r"""Multiply the rates by a factor when a metric has not improved for some epochs.

    Args:
        optimizer: the optimizer whose rates are set.
        mode: ``"min"`` if the metric should fall, ``"max"`` if it should rise.
        factor: by what the rates are multiplied, below 1.
        patience: how many epochs without improvement are allowed.
        threshold: by how much the best value must be beaten to count.
        threshold_mode: ``"rel"``: by this share of the best value; ``"abs"``: by this amount.
        cooldown: epochs after a reduction in which nothing counts as bad.
        min_lr: the rates do not fall below it; a number, or a list of one for each group.
        eps: a reduction by less than this is left out.

    Raises:
        ArgumentError: a factor that is not below 1, an unknown mode, or a list of another length
            than the groups.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        >>> for validation_loss in (1.0, 1.0, 1.0):
        ...     scheduler.step(validation_loss)
        >>> scheduler.get_last_lr()
        [0.05]

    References:
        torch.optim.lr_scheduler.ReduceLROnPlateau
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: list[float] | float = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1.0:
            raise ArgumentError(f"Factor should be < 1.0, but got {factor}")
        self.factor = factor
        self.optimizer = require_optimizer(optimizer)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.min_lrs = per_group("min_lr", optimizer, min_lr)
        self.patience = patience
        self.cooldown = cooldown
        self.eps = eps
        self.last_epoch = 0
        self._last_lr = values(optimizer, "lr")
        self.mode = choice("mode", mode, ("min", "max"))
        self.threshold = threshold
        self.threshold_mode = choice("threshold_mode", threshold_mode, ("rel", "abs"))
        self.mode_worse = math.inf if mode == "min" else -math.inf
        self.best = self.mode_worse
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Note the metric of an epoch, and reduce the rates if it is time.

        Args:
            metrics: the value of the metric, a number or an array of one.
            epoch: the number of the epoch; deprecated.

        Raises:
            ShapeError: not one number.
            StateLeakError: called inside a compiled function, where it would happen only once.
        """
        with all_or_nothing(self):
            current = _one_number(metrics)
            if epoch is not None:
                warnings.warn(EPOCH_WARNING, UserWarning, stacklevel=2)
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            if self._is_better(current, self.best):
                self.best = current
                self.num_bad_epochs = 0
            else:
                self.num_bad_epochs += 1
            if self.in_cooldown:
                self.cooldown_counter -= 1
                self.num_bad_epochs = 0
            rates = self._group_lrs()
            if self.num_bad_epochs > self.patience:
                rates = self._reduced(rates)
                self.cooldown_counter = self.cooldown
                self.num_bad_epochs = 0
            self._assign(rates)

    def _reduced(self, rates: list[float]) -> list[float]:
        if len(rates) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise ArgumentError(
                    f"the optimizer has {len(rates)} parameter groups, but had {len(self.min_lrs)} when this scheduler "
                    "was made: append to its min_lrs after add_param_group"
                )
            self.min_lrs = [self.default_min_lr] * len(rates)
        lower = [
            max(rate * self.factor, least) for rate, least in zip(rates, self.min_lrs, strict=True)
        ]
        pairs = zip(rates, lower, strict=True)
        return [new if old - new > self.eps else old for old, new in pairs]

    @property
    def in_cooldown(self) -> bool:
        """Whether the last reduction was less than ``cooldown`` epochs ago."""
        return self.cooldown_counter > 0

    def _is_better(self, a: float, best: float) -> bool:
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            bound = best * (1.0 + sign * self.threshold)
        else:
            bound = best + sign * self.threshold
        return a < bound if self.mode == "min" else a > bound

    def _misfits(self, name: str, own: Any, value: Any) -> list[str]:
        # One number for all groups or a list: either kind may be loaded, and follows the groups later.
        if name in ("default_min_lr", "min_lrs"):
            fits = value is None or isinstance(value, (int, float, list, tuple))
            return [] if fits else super()._misfits(name, own, value)
        return super()._misfits(name, own, value)


def _one_number(metrics: Any) -> float:
    if isinstance(metrics, Tracer):
        raise StateLeakError(
            "scheduler.step(metrics) was called inside a compiled function, where it would happen once and not at "
            "every step: return the metric and step outside"
        )
    value = np.asarray(metrics)
    if value.size != 1:
        raise ShapeError(f"metrics must be one number, but is {describe(metrics)}")
    return float(value.item())
