"""Schedules made of schedules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import optax

from funcnets.errors import ArgumentError
from funcnets.optim.schedules._time import Schedule, as_float, schedule

__all__ = ["chained", "sequential_lr"]


def chained(lr: Any, factors: Sequence[Schedule]) -> Schedule:
    r"""A rate times the product of several schedules, as :class:`~funcnets.optim.lr_scheduler.ChainedScheduler`.

    .. math::
        \eta_t = \eta_0 \prod_i f_i(t)

    torch's chained schedulers are equal to it if each multiplies the rate, as all but a cosine with
    ``eta_min`` do.

    Args:
        lr: :math:`\eta_0`.
        factors: the :math:`f_i`: schedules of a rate of 1.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: no factors.

    Examples:
        >>> from funcnets.optim import schedules
        >>> warmup = schedules.constant_lr(1.0, factor=0.5, total_iters=2)
        >>> rate = schedules.chained(0.5, [warmup, schedules.exponential_lr(1.0, gamma=0.5)])
        >>> [rate(t).item() for t in range(4)]
        [0.25, 0.125, 0.125, 0.0625]

    References:
        torch.optim.lr_scheduler.ChainedScheduler
    """
    if not factors:
        raise ArgumentError("chained expects at least one schedule, but got none")

    def at(count: Any) -> Any:
        value = as_float(lr)
        for factor in factors:
            value = value * as_float(factor(count))
        return value

    return schedule(at)


def sequential_lr(schedules: Sequence[Schedule], milestones: Sequence[int]) -> Schedule:
    """One schedule after the other, each from 0 on, as :class:`~funcnets.optim.lr_scheduler.SequentialLR`.

    Args:
        schedules: the schedules.
        milestones: the counts at which the second, third, ... takes over.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: no schedules, or milestones that are not in order or not one fewer.

    Examples:
        >>> from funcnets.optim import schedules
        >>> warmup = schedules.constant_lr(1.0, factor=0.25, total_iters=2)
        >>> decay = schedules.exponential_lr(1.0, gamma=0.5)
        >>> rate = schedules.sequential_lr([warmup, decay], milestones=[2])
        >>> [rate(t).item() for t in range(5)]
        [0.25, 0.25, 1.0, 0.5, 0.25]

    References:
        torch.optim.lr_scheduler.SequentialLR; optax.join_schedules
    """
    if not schedules or len(milestones) != len(schedules) - 1:
        raise ArgumentError(
            f"sequential_lr expects one milestone fewer than schedules, but got {len(milestones)} milestones and "
            f"{len(schedules)} schedules"
        )
    if any(later < earlier for earlier, later in pairwise(milestones)):
        raise ArgumentError(f"milestones must be in ascending order, but are {list(milestones)}")
    parts = [schedule(part) for part in schedules]
    return schedule(optax.join_schedules(parts, milestones))  # pyright: ignore[reportArgumentType]
