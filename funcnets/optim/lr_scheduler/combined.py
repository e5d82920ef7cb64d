"""Schedulers made of schedulers: at the same time, or one after the other."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim.lr_scheduler.base import LRScheduler, all_or_nothing
from funcnets.optim.lr_scheduler.plateau import ReduceLROnPlateau
from funcnets.optim.optimizer import Optimizer

__all__ = ["ChainedScheduler", "SequentialLR"]


class _Combined(LRScheduler):
    """What steps the schedulers of a list."""

    _not_state: ClassVar[tuple[str, ...]] = ("optimizer", "_schedulers")
    _schedulers: list[LRScheduler]

    def _take(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        name = type(self).__name__
        if len(schedulers) < 1:
            raise ArgumentError(f"{name} expects at least one scheduler, but got none")
        for i, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise DTypeError(
                    f"{name} takes schedulers, but got {describe(scheduler)} at index {i}"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ArgumentError(
                    f"{name} does not support `ReduceLROnPlateau`, whose step needs a metric, but got one at index {i}: "
                    "step it by itself"
                )
            optimizer = optimizer or scheduler.optimizer
            if scheduler.optimizer is not optimizer:
                raise ArgumentError(
                    f"{name} expects all schedulers to belong to the same optimizer, but the {type(scheduler).__name__} "
                    f"at index {i} belongs to another"
                )
        self._schedulers = list(schedulers)
        self.optimizer = schedulers[0].optimizer

    def state_dict(self) -> dict[str, Any]:
        """The own state, and under ``_schedulers`` the list of those of the schedulers."""
        states = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": states}

    def _misfits(self, name: str, own: Any, value: Any) -> list[str]:
        if name != "_schedulers":
            return super()._misfits(name, own, value)
        if not isinstance(value, (list, tuple)) or len(value) != len(self._schedulers):
            count = len(self._schedulers)
            return [f"{name} should be the states of {count} schedulers, but is {describe(value)}"]
        return [
            f"{name}[{i}] ({type(scheduler).__name__}): {text}"
            for i, (scheduler, state) in enumerate(zip(self._schedulers, value, strict=True))
            for text in scheduler._problems(state)
        ]

    def _adopt_one(self, name: str, value: Any) -> None:
        if name != "_schedulers":
            return super()._adopt_one(name, value)
        for scheduler, state in zip(self._schedulers, value, strict=True):
            scheduler.load_state_dict(state)


class ChainedScheduler(_Combined):
    """Steps several schedulers at once; each changes the rates that the one before left.

    Args:
        schedulers: the schedulers, of the same optimizer.
        optimizer: that optimizer; may be left out.

    Raises:
        ArgumentError: no schedulers, some of different optimizers, or a ``ReduceLROnPlateau``.
        DTypeError: something else than schedulers.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> warmup = optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=20)
        >>> decay = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
        >>> scheduler = optim.lr_scheduler.ChainedScheduler([warmup, decay], optimizer)
        >>> scheduler.get_last_lr()
        [0.05]

    References:
        torch.optim.lr_scheduler.ChainedScheduler
    """

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        self._take(schedulers, optimizer)
        self._last_lr = self._group_lrs()

    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step all schedulers, in their order; if one raises, none has stepped."""
        with all_or_nothing(self):
            for scheduler in self._schedulers:
                scheduler.step()
            self._last_lr = self._group_lrs()


class SequentialLR(_Combined):
    """One scheduler after the other; each begins anew at its milestone.

    Args:
        optimizer: the optimizer whose rates are set.
        schedulers: the schedulers, of this optimizer.
        milestones: the epochs at which the second, third, ... takes over.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: no schedulers, some of different optimizers, a ``ReduceLROnPlateau``, a combined
            scheduler after the first, or milestones that are not in order or not one fewer.
        DTypeError: something else than schedulers.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.05)
        >>> warmup = optim.lr_scheduler.ConstantLR(optimizer, factor=0.1, total_iters=20)
        >>> decay = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
        >>> scheduler = optim.lr_scheduler.SequentialLR(optimizer, [warmup, decay], milestones=[20])
        >>> scheduler.get_last_lr()
        [0.005000000000000001]

    References:
        torch.optim.lr_scheduler.SequentialLR
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[LRScheduler],
        milestones: list[int],
        last_epoch: int = -1,
    ) -> None:
        self._take(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ArgumentError(
                f"SequentialLR expects one milestone fewer than schedulers, but got {len(milestones)} milestones and "
                f"{len(schedulers)} schedulers"
            )
        if any(later < earlier for earlier, later in pairwise(milestones)):
            raise ArgumentError(f"milestones must be in ascending order, but are {milestones}")
        for i, scheduler in enumerate(schedulers[1:], 1):
            if isinstance(scheduler, _Combined):
                raise ArgumentError(
                    f"{type(scheduler).__name__} at index {i} cannot begin anew at a milestone: only the first may be "
                    "a combined scheduler; chain SequentialLRs instead"
                )
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # Each scheduler has made its first step; undo them, and make that of the first alone.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self.recursive_undo()
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def recursive_undo(self, sched: LRScheduler | None = None) -> None:
        """Take back the step that every scheduler made when it was created.

        Args:
            sched: of this one and those below it; by default of all schedulers.
        """
        scheduler = self if sched is None else sched
        children = getattr(scheduler, "_schedulers", None)
        if children is not None:
            for child in children:
                self.recursive_undo(child)
        else:
            scheduler.last_epoch -= 1

    def step(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step the scheduler whose turn it is, or begin the next one at its milestone."""
        with all_or_nothing(self):
            self.last_epoch += 1
            turn = bisect_right(self._milestones, self.last_epoch)
            scheduler = self._schedulers[turn]
            if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
                scheduler._update_lr(0)
            else:
                scheduler.step()
            self._last_lr = scheduler.get_last_lr()
