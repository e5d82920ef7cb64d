"""Schedules that follow a cosine, or go up and down; and those of the momentum to go with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import choice, positive, probability
from funcnets.errors import ArgumentError
from funcnets.optim.lr_scheduler.base import require_positive
from funcnets.optim.lr_scheduler.cycles import count_steps, phases
from funcnets.optim.schedules._time import Schedule, as_float, schedule

__all__ = [
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "cyclic_momentum",
    "one_cycle_lr",
    "one_cycle_momentum",
    "swa_lr",
]


def _half_cosine(start: Any, end: Any, share: Any) -> jax.Array:
    return as_float(end) + (as_float(start) - as_float(end)) / 2 * (1 + jnp.cos(jnp.pi * share))


def _line(start: Any, end: Any, share: Any) -> jax.Array:
    return as_float(start) + (as_float(end) - as_float(start)) * share


_ANNEAL = {"cos": _half_cosine, "linear": _line}


def cosine_annealing_lr(lr: Any, T_max: int, eta_min: float = 0.0) -> Schedule:
    r"""Along a cosine, down until ``T_max`` and up again, as :class:`~funcnets.optim.lr_scheduler.CosineAnnealingLR`.

    .. math::
        \eta_t = \eta_{\min} + \tfrac12 (\eta_0 - \eta_{\min})
        \left(1 + \cos\left(\pi\,\frac{t}{T_{\max}}\right)\right)

    Args:
        lr: :math:`\eta_0`.
        T_max: the count of the minimum.
        eta_min: :math:`\eta_{\min}`.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: a ``T_max`` that is not positive.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.cosine_annealing_lr(1.0, T_max=2)
        >>> [round(rate(t).item(), 6) for t in range(5)]
        [1.0, 0.5, 0.0, 0.5, 1.0]

    References:
        torch.optim.lr_scheduler.CosineAnnealingLR; Loshchilov and Hutter, 2016
    """
    require_positive("T_max", T_max)
    # Within one period, where single precision is still exact.
    return schedule(lambda t: _half_cosine(lr, eta_min, t % (2 * T_max) / T_max))


def cosine_annealing_warm_restarts(
    lr: Any, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    r"""Half a cosine again and again, as :class:`~funcnets.optim.lr_scheduler.CosineAnnealingWarmRestarts`.

    Args:
        lr: the rate after each restart.
        T_0: the count of the first restart.
        T_mult: the factor of the time between two restarts after each of them.
        eta_min: the rate that each fall would reach.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: ``T_0`` or ``T_mult`` is not a positive integer.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.cosine_annealing_warm_restarts(1.0, T_0=2, T_mult=2)
        >>> [round(rate(t).item(), 3) for t in range(7)]
        [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]

    References:
        torch.optim.lr_scheduler.CosineAnnealingWarmRestarts; Loshchilov and Hutter, 2016
    """
    positive("T_0", T_0)
    positive("T_mult", T_mult)
    if T_mult == 1:
        return schedule(lambda t: _half_cosine(lr, eta_min, t % T_0 / T_0))
    starts, lengths = [0.0], [float(T_0)]
    while starts[-1] + lengths[-1] < np.iinfo(np.int32).max:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * T_mult)

    def at(t: jax.Array) -> jax.Array:
        cycle = jnp.sum(t >= as_float(starts)) - 1
        return _half_cosine(lr, eta_min, (t - as_float(starts)[cycle]) / as_float(lengths)[cycle])

    return schedule(at)


def _triangles(
    low: Any,
    high: Any,
    up: float,
    down: float | None,
    mode: str,
    gamma: float,
    scale_fn: Callable[[Any], Any] | None,
    scale_mode: str,
) -> Schedule:
    """From ``low`` to ``high`` and back, with torch's scales."""
    if scale_fn is None:
        choice("mode", mode, ("triangular", "triangular2", "exp_range"))
        scale_mode = "iterations" if mode == "exp_range" else "cycle"
    choice("scale_mode", scale_mode, ("cycle", "iterations"))
    require_positive("step_size_up", up)
    total = float(up) + float(up if down is None else down)

    def scale(x: jax.Array) -> jax.Array:
        if scale_fn is not None:
            return as_float(scale_fn(x))
        factor = {"triangular": 1.0, "triangular2": 0.5, "exp_range": gamma}[mode]
        return as_float(factor) ** (x - 1 if mode == "triangular2" else x)

    def at(t: jax.Array) -> jax.Array:
        cycle, place = t // total, t % total
        # With no way down the second is never chosen, but must not divide by 0.
        height = jnp.where(place <= up, place / up, (total - place) / max(total - up, 1.0))
        x = cycle + 1 if scale_mode == "cycle" else t
        return as_float(low) + (as_float(high) - as_float(low)) * height * scale(x)

    return schedule(at)


def cyclic_lr(
    base_lr: Any,
    max_lr: Any,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
) -> Schedule:
    """Up and down between two bounds, as :class:`~funcnets.optim.lr_scheduler.CyclicLR`.

    Args:
        base_lr: the lower bound.
        max_lr: the upper bound.
        step_size_up: steps from the lower to the upper bound.
        step_size_down: steps back, as many if None.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``; unused with ``scale_fn``.
        gamma: the base of ``"exp_range"``.
        scale_fn: a function that scales the height, which must take a traced number.
        scale_mode: whether it is given the number of the ``"cycle"``, from 1, or the count
            (``"iterations"``).

    Returns:
        A function of the count.

    Raises:
        ArgumentError: an unknown mode, or ``step_size_up`` not positive.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.cyclic_lr(0.0, 1.0, step_size_up=2, mode="triangular2")
        >>> [rate(t).item() for t in range(7)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5]

    References:
        torch.optim.lr_scheduler.CyclicLR; Smith, 2015
    """
    options = (step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode)
    return _triangles(base_lr, max_lr, *options)


def cyclic_momentum(
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
) -> Schedule:
    """The momentum that :class:`~funcnets.optim.lr_scheduler.CyclicLR` sets: down and up between two bounds.

    Args:
        base_momentum: the lower bound.
        max_momentum: the upper bound, with which it begins.
        step_size_up: steps from the upper to the lower bound.
        step_size_down: steps back, as many if None.
        mode: as for :func:`cyclic_lr`, like all that follow.
        gamma: the base of ``"exp_range"``.
        scale_fn: a function that scales the depth.
        scale_mode: what it is given.

    Returns:
        A function of the count.

    Examples:
        >>> from funcnets import optim
        >>> momentum = optim.schedules.cyclic_momentum(0.5, 1.0, step_size_up=2)
        >>> [momentum(t).item() for t in range(5)]
        [1.0, 0.75, 0.5, 0.75, 1.0]

    References:
        torch.optim.lr_scheduler.CyclicLR
    """
    options = (step_size_up, step_size_down, mode, gamma, scale_fn, scale_mode)
    return _triangles(max_momentum, base_momentum, *options)


def _phased(
    total_steps: int, pct_start: float, three_phase: bool, strategy: str, what: str, named: dict
) -> Schedule:
    """What goes through torch's phases between the values that they name."""
    anneal = _ANNEAL[choice("anneal_strategy", strategy, tuple(_ANNEAL))]
    probability("pct_start", pct_start)
    rows = phases(total_steps, float(pct_start), three_phase)
    ends = [row["end_step"] for row in rows]

    def at(t: jax.Array) -> jax.Array:
        t = jnp.minimum(t, total_steps - 1)
        value = as_float(0.0)
        # From the last to the first, so that the first phase that has not ended decides.
        for i in reversed(range(len(rows))):
            start, end = (ends[i - 1] if i else 0.0), ends[i]
            share = (t - start) / (end - start) if end != start else as_float(1.0)
            here = anneal(named[rows[i][f"start_{what}"]], named[rows[i][f"end_{what}"]], share)
            value = here if i == len(rows) - 1 else jnp.where(t <= end, here, value)
        return value

    return schedule(at)


def one_cycle_lr(
    max_lr: Any,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """One rise and one long fall, as :class:`~funcnets.optim.lr_scheduler.OneCycleLR`.

    Args:
        max_lr: the maximum.
        total_steps: the number of steps; or give the next two. After the last the rate stays.
        epochs: the number of epochs.
        steps_per_epoch: the number of steps in each.
        pct_start: the share of the steps in which the rate rises.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        div_factor: the maximum by the first rate.
        final_div_factor: the first rate by the last.
        three_phase: whether there is a phase back to the first rate.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: neither ``total_steps`` nor both of ``epochs`` and ``steps_per_epoch``, or a
            value out of its range.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.one_cycle_lr(1.0, 9, pct_start=0.5, anneal_strategy="linear")
        >>> [round(rate(t).item(), 3) for t in (0, 2, 4, 6, 8)]
        [0.04, 0.589, 0.889, 0.444, 0.0]

    References:
        torch.optim.lr_scheduler.OneCycleLR; Smith and Topin, 2017
    """
    first = max_lr / div_factor
    named = {"max_lr": max_lr, "initial_lr": first, "min_lr": first / final_div_factor}
    total = count_steps(total_steps, epochs, steps_per_epoch)
    return _phased(total, pct_start, three_phase, anneal_strategy, "lr", named)


def one_cycle_momentum(
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    three_phase: bool = False,
) -> Schedule:
    """The momentum that :class:`~funcnets.optim.lr_scheduler.OneCycleLR` sets: down while the rate rises.

    Args:
        base_momentum: the lower bound.
        max_momentum: the upper bound, with which it begins and ends.
        total_steps: as for :func:`one_cycle_lr`, like all that follow.
        epochs: the number of epochs.
        steps_per_epoch: the number of steps in each.
        pct_start: the share of the steps in which the momentum falls.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        three_phase: whether there is a phase of constant momentum at the end.

    Returns:
        A function of the count.

    Examples:
        >>> from funcnets import optim
        >>> momentum = optim.schedules.one_cycle_momentum(0.5, 1.0, 12, pct_start=0.5)
        >>> [round(momentum(t).item(), 2) for t in (0, 5, 11)]
        [1.0, 0.5, 1.0]

    References:
        torch.optim.lr_scheduler.OneCycleLR
    """
    named = {"base_momentum": base_momentum, "max_momentum": max_momentum}
    total = count_steps(total_steps, epochs, steps_per_epoch)
    return _phased(total, pct_start, three_phase, anneal_strategy, "momentum", named)


def swa_lr(
    lr: Any,
    swa_lr: float,
    anneal_epochs: int = 10,
    anneal_strategy: Literal["cos", "linear"] = "cos",
) -> Schedule:
    """From ``lr`` to the rate of weight averaging, where it stays, as :class:`~funcnets.optim.swa_utils.SWALR`.

    Args:
        lr: the rate at the start.
        swa_lr: the rate in the end.
        anneal_epochs: the count at which it is reached; with 0 it is there from the start.
        anneal_strategy: ``"cos"`` or ``"linear"``.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: an unknown strategy, or a negative count.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.swa_lr(1.0, 0.5, anneal_epochs=2, anneal_strategy="linear")
        >>> [rate(t).item() for t in range(4)]
        [1.0, 0.75, 0.5, 0.5]

    References:
        torch.optim.swa_utils.SWALR
    """
    anneal = _ANNEAL[choice("anneal_strategy", anneal_strategy, tuple(_ANNEAL))]
    if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
        raise ArgumentError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
    if not anneal_epochs:
        return schedule(lambda t: as_float(swa_lr))
    return schedule(lambda t: anneal(lr, swa_lr, jnp.minimum(t / anneal_epochs, 1.0)))
