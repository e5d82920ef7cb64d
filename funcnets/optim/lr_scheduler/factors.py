"""Schedulers that multiply the learning rate by a factor."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim.lr_scheduler.base import (
    LRScheduler,
    attributes_of,
    functions_differ,
    require_optimizer,
    require_positive,
)
from funcnets.optim.optimizer import Optimizer

__all__ = [
    "ConstantLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "PolynomialLR",
    "StepLR",
]

Rule = Callable[[int], float]


class _ByFunction(LRScheduler):
    """What follows a function of the epoch, one for all groups or one for each."""

    _not_state: ClassVar[tuple[str, ...]] = ("optimizer", "lr_lambdas")

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Rule | list[Rule], last_epoch: int = -1
    ) -> None:
        count = len(require_optimizer(optimizer).param_groups)
        self.lr_lambdas: list[Rule] = (
            list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * count
        )
        if len(self.lr_lambdas) != count:
            raise ArgumentError(f"Expected {count} lr_lambdas, but got {len(self.lr_lambdas)}")
        for rule in self.lr_lambdas:
            if not callable(rule):
                raise DTypeError(f"lr_lambda should be a function, but got {describe(rule)}")
        super().__init__(optimizer, last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """As that of any scheduler; of a callable object its attributes, of a plain function nothing."""
        return {**super().state_dict(), "lr_lambdas": [attributes_of(f) for f in self.lr_lambdas]}

    def _misfits(self, name: str, own: Any, value: Any) -> list[str]:
        if name == "lr_lambdas":
            return functions_differ(name, self.lr_lambdas, value)
        return super()._misfits(name, own, value)

    def _adopt_one(self, name: str, value: Any) -> None:
        if name != "lr_lambdas":
            return super()._adopt_one(name, value)
        for rule, attributes in zip(self.lr_lambdas, value, strict=True):
            if attributes:
                vars(rule).update(attributes)


class LambdaLR(_ByFunction):
    r"""The initial rate times a function of the epoch.

    .. math::
        \eta_t = \eta_0\, \lambda(t)

    Args:
        optimizer: the optimizer whose rates are set.
        lr_lambda: :math:`\lambda`, or a list of one for each group. A callable object's attributes
            are part of the state, a plain function is not.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: another number of functions than of groups.
        DTypeError: not a function.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: (epoch + 1) / 100)
        >>> scheduler.get_last_lr()
        [0.001]

    References:
        torch.optim.lr_scheduler.LambdaLR
    """

    def get_lr(self) -> list[float]:
        """The initial rates times the factor of this epoch."""
        self._warn_outside()
        return [
            rate * rule(self.last_epoch)
            for rule, rate in zip(self.lr_lambdas, self.base_lrs, strict=True)
        ]


class MultiplicativeLR(_ByFunction):
    r"""The last rate times a function of the epoch.

    .. math::
        \eta_t = \eta_{t-1}\, \lambda(t)

    Args:
        optimizer: the optimizer whose rates are set.
        lr_lambda: :math:`\lambda`, or a list of one for each group; see :class:`LambdaLR`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: another number of functions than of groups.
        DTypeError: not a function.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = optim.lr_scheduler.MultiplicativeLR(optimizer, lambda epoch: 0.95)
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        torch.optim.lr_scheduler.MultiplicativeLR
    """

    def get_lr(self) -> list[float]:
        """The rates of now times the factor of this epoch."""
        self._warn_outside()
        if self._is_initial:
            return self._group_lrs()
        rates = zip(self.lr_lambdas, self._group_lrs(), strict=True)
        return [rate * rule(self.last_epoch) for rule, rate in rates]


class _ByFactor(LRScheduler):
    """What multiplies the rates of now by one number, with a closed form."""

    def _factor(self) -> float | None:
        """By what the rates of now are multiplied; None leaves them."""
        raise NotImplementedError

    def _closed(self) -> float:
        """By what the initial rates are multiplied."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        """The rates of now times the factor of this epoch."""
        self._warn_outside()
        factor, rates = self._factor(), self._group_lrs()
        return rates if factor is None else [rate * factor for rate in rates]

    def _get_closed_form_lr(self) -> list[float]:
        factor = self._closed()
        return [rate * factor for rate in self.base_lrs]


class StepLR(_ByFactor):
    r"""The rate falls by a factor every few epochs.

    .. math::
        \eta_t = \eta_0\, \gamma^{\lfloor t / s \rfloor}

    Args:
        optimizer: the optimizer whose rates are set.
        step_size: :math:`s`, in epochs.
        gamma: :math:`\gamma`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: a ``step_size`` that is not positive.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.05)
        >>> scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=30)
        >>> scheduler.get_last_lr()
        [0.05]

    References:
        torch.optim.lr_scheduler.StepLR
    """

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        require_positive("step_size", step_size)
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float | None:
        falls = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return self.gamma if falls else None

    def _closed(self) -> float:
        return self.gamma ** (self.last_epoch // self.step_size)


class MultiStepLR(_ByFactor):
    r"""The rate falls by a factor at given epochs.

    .. math::
        \eta_t = \eta_0\, \gamma^{\#\{m \le t\}}

    Args:
        optimizer: the optimizer whose rates are set.
        milestones: the epochs :math:`m`; one that is given twice counts twice.
        gamma: :math:`\gamma`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.05)
        >>> scheduler = optim.lr_scheduler.MultiStepLR(optimizer, milestones=[30, 80])
        >>> scheduler.get_last_lr()
        [0.05]

    References:
        torch.optim.lr_scheduler.MultiStepLR
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = Counter(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float | None:
        times = self.milestones[self.last_epoch]
        return self.gamma**times if times else None

    def _closed(self) -> float:
        return self.gamma ** bisect_right(sorted(self.milestones.elements()), self.last_epoch)

    def _misfits(self, name: str, own: Any, value: Any) -> list[str]:
        # A file format may have made a dict with strings for keys of it.
        if name == "milestones" and isinstance(value, Mapping):
            own, value = [0] * 2 * len(value), [*map(_as_int, value), *map(_as_int, value.values())]
        return super()._misfits(name, own, value)

    def _adopt_one(self, name: str, value: Any) -> None:
        if name == "milestones":
            value = Counter({int(epoch): int(times) for epoch, times in value.items()})
        super()._adopt_one(name, value)


def _as_int(value: Any) -> Any:
    text = str(value)
    return int(text) if text.isdecimal() else value


class ConstantLR(_ByFactor):
    r"""The rate is multiplied by a constant in the first epochs.

    .. math::
        \eta_t = \eta_0\, f \quad (t < T), \qquad \eta_t = \eta_0 \quad (t \ge T)

    Args:
        optimizer: the optimizer whose rates are set.
        factor: :math:`f`, between 0 and 1.
        total_iters: :math:`T`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: a factor out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.05)
        >>> scheduler = optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=4)
        >>> scheduler.get_last_lr()
        [0.025]

    References:
        torch.optim.lr_scheduler.ConstantLR
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= factor <= 1:
            raise ArgumentError(
                f"Constant multiplicative factor expected to be between 0 and 1, but got {factor}"
            )
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates of now times the factor of this epoch."""
        if self.factor == 0 and self.last_epoch == self.total_iters != 0:
            return list(self.base_lrs)  # no factor leads back from 0
        return super().get_lr()

    def _factor(self) -> float | None:
        if self.last_epoch == 0:
            return self.factor
        return 1.0 / self.factor if self.last_epoch == self.total_iters else None

    def _closed(self) -> float:
        return self.factor + (self.last_epoch >= self.total_iters) * (1 - self.factor)


class LinearLR(_ByFactor):
    r"""The factor of the rate goes linearly from one number to another.

    .. math::
        \eta_t = \eta_0 \left(a + (b - a)\,\frac{\min(t, T)}{T}\right)

    Args:
        optimizer: the optimizer whose rates are set.
        start_factor: :math:`a`, in (0, 1].
        end_factor: :math:`b`, in [0, 1].
        total_iters: :math:`T`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: a factor out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.05)
        >>> scheduler = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=4)
        >>> scheduler.get_last_lr()
        [0.025]

    References:
        torch.optim.lr_scheduler.LinearLR
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ArgumentError(
                "Starting multiplicative factor expected to be greater than 0 and less or equal to 1, "
                f"but got {start_factor}"
            )
        if not 0 <= end_factor <= 1:
            raise ArgumentError(
                f"Ending multiplicative factor expected to be between 0 and 1, but got {end_factor}"
            )
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float | None:
        if self.last_epoch == 0:
            return self.start_factor
        if self._is_initial or self.last_epoch > self.total_iters:
            return None
        rise = self.end_factor - self.start_factor
        return 1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise)

    def _closed(self) -> float:
        rise = self.end_factor - self.start_factor
        if not self.total_iters:
            return self.start_factor
        return self.start_factor + rise * min(self.total_iters, self.last_epoch) / self.total_iters


class ExponentialLR(_ByFactor):
    r"""The rate falls by a factor in every epoch.

    .. math::
        \eta_t = \eta_0\, \gamma^t

    Args:
        optimizer: the optimizer whose rates are set.
        gamma: :math:`\gamma`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        torch.optim.lr_scheduler.ExponentialLR
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float | None:
        return None if self._is_initial else self.gamma

    def _closed(self) -> float:
        return self.gamma**self.last_epoch


class PolynomialLR(_ByFactor):
    r"""The rate falls to 0 as a power of the time that is left.

    .. math::
        \eta_t = \eta_0 \left(1 - \frac{\min(t, T)}{T}\right)^p

    Args:
        optimizer: the optimizer whose rates are set.
        total_iters: :math:`T`.
        power: :math:`p`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = optim.lr_scheduler.PolynomialLR(optimizer, total_iters=4, power=2.0)
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        torch.optim.lr_scheduler.PolynomialLR
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int = 5,
        power: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer, last_epoch)

    def _factor(self) -> float | None:
        if self._is_initial or self.last_epoch > self.total_iters:
            return None
        left = 1.0 - self.last_epoch / self.total_iters
        return (left / (1.0 - (self.last_epoch - 1) / self.total_iters)) ** self.power

    def _closed(self) -> float:
        if not self.total_iters:
            return 1.0
        return (1.0 - min(self.total_iters, self.last_epoch) / self.total_iters) ** self.power
