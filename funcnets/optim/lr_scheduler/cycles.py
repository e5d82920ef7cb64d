"""Schedulers that raise and lower the learning rate, and the momentum the other way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

from funcnets._args import choice, describe
from funcnets.errors import ArgumentError
from funcnets.optim.lr_scheduler.base import (
    LRScheduler,
    attributes_of,
    functions_differ,
    per_group,
    require_optimizer,
    require_positive,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["CyclicLR", "OneCycleLR"]


class _WithMomentum(LRScheduler):
    """What sets a momentum, too: ``momentum``, or the first of ``betas``."""

    cycle_momentum: bool
    use_beta1: bool

    def _begin_momentum(
        self, optimizer: Optimizer, base: Any, maximum: Any, last_epoch: int
    ) -> tuple[list[float], list[float]]:
        """Make the momentum data of the compiled step, and set it to its maximum."""
        names = [name for name in ("betas", "momentum") if name in optimizer.defaults]
        if not names:
            raise ArgumentError(
                "optimizer must support momentum or beta1 with `cycle_momentum` option enabled, but "
                f"{type(optimizer).__name__} has neither: pass cycle_momentum=False"
            )
        self.use_beta1 = names[0] == "betas"
        bases = per_group("base_momentum", optimizer, base)
        maxima = per_group("max_momentum", optimizer, maximum)
        for group in optimizer.param_groups:
            group.drive(names[0])
        if last_epoch == -1:
            self._assign_momentum(optimizer, maxima)
            for group, low, high in zip(optimizer.param_groups, bases, maxima, strict=True):
                group["max_momentum"] = high
                group["base_momentum"] = low
        return bases, maxima

    def _assign_momentum(self, optimizer: Optimizer, momenta: Sequence[float]) -> None:
        for group, momentum in zip(optimizer.param_groups, momenta, strict=True):
            if self.use_beta1:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


class CyclicLR(_WithMomentum):
    r"""The rate goes up and down between two bounds; the momentum goes down and up.

    .. math::
        \eta_t = \eta_{base} + (\eta_{max} - \eta_{base})\, h(t)\, s

    :math:`h` rises linearly from 0 to 1 in ``step_size_up`` steps and falls in ``step_size_down``.
    The scale :math:`s` is 1 (``"triangular"``), halves with every cycle (``"triangular2"``), is
    :math:`\gamma^t` (``"exp_range"``), or a function of one's own.

    The momentum becomes data of the compiled step: changing it does not compile again.

    Args:
        optimizer: the optimizer whose rates and momenta are set.
        base_lr: the lower bound :math:`\eta_{base}`, or a list of one for each group.
        max_lr: the upper bound :math:`\eta_{max}`, or a list.
        step_size_up: steps from the lower to the upper bound.
        step_size_down: steps back, as many if None.
        mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``; unused with ``scale_fn``.
        gamma: :math:`\gamma`.
        scale_fn: a function that gives :math:`s`.
        scale_mode: whether ``scale_fn`` is given the number of the ``"cycle"``, from 1, or of the
            step (``"iterations"``).
        cycle_momentum: whether the momentum, or the first beta, is set.
        base_momentum: its lower bound, or a list.
        max_momentum: its upper bound, with which it begins, or a list.
        last_epoch: index of the last step, -1 to begin anew.

    Raises:
        ArgumentError: an unknown mode, a list of another length than the groups, ``step_size_up``
            not positive, or an optimizer without momentum.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9)
        >>> scheduler = optim.lr_scheduler.CyclicLR(optimizer, base_lr=0.01, max_lr=0.1)
        >>> scheduler.get_last_lr(), optimizer.param_groups[0]["momentum"]
        ([0.01], 0.9)

    References:
        torch.optim.lr_scheduler.CyclicLR; Smith, 2015
    """

    _not_state: ClassVar[tuple[str, ...]] = ("optimizer", "_scale_fn_custom")

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: Literal["cycle", "iterations"] = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.8,
        max_momentum: float | list[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        require_optimizer(optimizer)
        if scale_fn is None:
            choice("mode", mode, ("triangular", "triangular2", "exp_range"))
        choice("scale_mode", scale_mode, ("cycle", "iterations"))
        require_positive("step_size_up", step_size_up)
        base_lrs = per_group("base_lr", optimizer, base_lr)
        self.max_lrs = per_group("max_lr", optimizer, max_lr)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up) + float(down)
        self.step_ratio = float(step_size_up) / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        if scale_fn is None:
            scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.scale_mode = scale_mode
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.base_momentums, self.max_momentums = self._begin_momentum(
                optimizer, base_momentum, max_momentum, last_epoch
            )
        if last_epoch == -1:
            for rate, group in zip(base_lrs, optimizer.param_groups, strict=True):
                group["lr"] = rate
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """The scale :math:`s` of cycle or step ``x``."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return 1 / 2.0 ** (x - 1) if self.mode == "triangular2" else self.gamma**x

    def get_lr(self) -> list[float]:
        """The rates of this step; sets the momenta, if they are cycled."""
        self._warn_outside()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        scale = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            bounds = zip(self.base_momentums, self.max_momentums, strict=True)
            self._assign_momentum(
                self.optimizer, [high - (high - low) * height * scale for low, high in bounds]
            )
        bounds = zip(self.base_lrs, self.max_lrs, strict=True)
        return [low + (high - low) * height * scale for low, high in bounds]

    def state_dict(self) -> dict[str, Any]:
        """As that of any scheduler; of a callable object its attributes, of a plain function nothing."""
        own = attributes_of(self._scale_fn_custom) if self._scale_fn_custom is not None else None
        return {**super().state_dict(), "_scale_fn_custom": own}

    def _misfits(self, name: str, own: Any, value: Any) -> list[str]:
        if name == "_scale_fn_custom":
            return functions_differ(name, [self._scale_fn_custom], [value])
        return super()._misfits(name, own, value)

    def _adopt_one(self, name: str, value: Any) -> None:
        if name != "_scale_fn_custom":
            super()._adopt_one(name, value)
        elif value:
            vars(self._scale_fn_custom).update(value)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


def _line(start: float, end: float, share: float) -> float:
    return (end - start) * share + start


class OneCycleLR(_WithMomentum):
    r"""One rise of the rate to its maximum, and one long fall far below where it began.

    The rate goes from ``max_lr / div_factor`` to ``max_lr`` and then down to ``max_lr / div_factor /
    final_div_factor``, each along half a cosine or a line. In three phases it returns to where it began
    before it falls further. The momentum goes the other way.

    The momentum becomes data of the compiled step: changing it does not compile again.

    Args:
        optimizer: the optimizer whose rates and momenta are set.
        max_lr: the maximum, or a list of one for each group.
        total_steps: the number of steps; or give the next two.
        epochs: the number of epochs.
        steps_per_epoch: the number of steps in each.
        pct_start: the share of the steps in which the rate rises.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: whether the momentum, or the first beta, is set.
        base_momentum: its lower bound, or a list.
        max_momentum: its upper bound, with which it begins, or a list.
        div_factor: the maximum by the first rate.
        final_div_factor: the first rate by the last.
        three_phase: whether there is a phase back to the first rate.
        last_epoch: index of the last step, -1 to begin anew.

    Raises:
        ArgumentError: neither ``total_steps`` nor both of ``epochs`` and ``steps_per_epoch``, a
            value out of its range, an optimizer without momentum, or a step after the last.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9)
        >>> scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=100)
        >>> round(scheduler.get_last_lr()[0], 6), optimizer.param_groups[0]["momentum"]
        (0.02, 0.95)

    References:
        torch.optim.lr_scheduler.OneCycleLR; Smith and Topin, 2017
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        require_optimizer(optimizer)
        self.total_steps = count_steps(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ArgumentError(
                f"Expected float between 0 and 1 pct_start, but got {describe(pct_start)}"
            )
        self._schedule_phases = phases(self.total_steps, pct_start, three_phase)
        self._anneal_func_type = choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
        maxima = per_group("max_lr", optimizer, max_lr)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._begin_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        if last_epoch == -1:
            for group, rate in zip(optimizer.param_groups, maxima, strict=True):
                group["initial_lr"] = rate / div_factor
                group["max_lr"] = rate
                group["min_lr"] = group["initial_lr"] / final_div_factor
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates of this step; sets the momenta, if they are cycled."""
        self._warn_outside()
        if self.last_epoch > self.total_steps:
            raise ArgumentError(
                f"Tried to step {self.last_epoch} times. The specified number of total steps is {self.total_steps}"
            )
        anneal = _cosine if self._anneal_func_type == "cos" else _line
        phase, share = self._where()
        groups = self.optimizer.param_groups

        def between(what: str) -> Iterator[float]:
            for group in groups:
                yield anneal(group[phase[f"start_{what}"]], group[phase[f"end_{what}"]], share)

        if self.cycle_momentum:
            self._assign_momentum(self.optimizer, list(between("momentum")))
        return list(between("lr"))

    def _where(self) -> tuple[dict[str, Any], float]:
        """The phase of this step, and which share of it has passed."""
        start, last = 0.0, self._schedule_phases[-1]
        for phase in self._schedule_phases:
            end = phase["end_step"]
            if self.last_epoch <= end or phase is last:
                # A phase of no length is at its end.
                share = (self.last_epoch - start) / (end - start) if end != start else 1.0
                return phase, share
            start = end
        raise AssertionError("there is always a last phase")


def count_steps(total_steps: Any, epochs: Any, steps_per_epoch: Any) -> int:
    """The number of steps, given directly or as epochs and steps in each."""
    if total_steps is not None:
        given = {"total_steps": total_steps}
    elif epochs is not None and steps_per_epoch is not None:
        given = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    else:
        raise ArgumentError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    for name, value in given.items():
        if not isinstance(value, int) or value <= 0:
            raise ArgumentError(f"Expected positive integer {name}, but got {describe(value)}")
    return math.prod(given.values())


def phases(total_steps: int, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
    """The phases under PyTorch's names, which are part of the state."""

    def phase(end: float, rates: tuple[str, str], momenta: tuple[str, str]) -> dict[str, Any]:
        names = ("start_lr", "end_lr", "start_momentum", "end_momentum")
        return {"end_step": end, **dict(zip(names, rates + momenta, strict=True))}

    down, up = ("max_momentum", "base_momentum"), ("base_momentum", "max_momentum")
    rise = phase(float(pct_start * total_steps) - 1, ("initial_lr", "max_lr"), down)
    if not three_phase:
        return [rise, phase(total_steps - 1, ("max_lr", "min_lr"), up)]
    back = phase(float(2 * pct_start * total_steps) - 2, ("max_lr", "initial_lr"), up)
    level = ("max_momentum", "max_momentum")
    return [rise, back, phase(total_steps - 1, ("initial_lr", "min_lr"), level)]
