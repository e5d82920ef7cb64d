"""Schedulers that follow a cosine, once or again and again."""

from __future__ import annotations

import math

from funcnets._args import describe
from funcnets.errors import ArgumentError
from funcnets.optim.lr_scheduler.base import (
    LRScheduler,
    all_or_nothing,
    require_positive,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["CosineAnnealingLR", "CosineAnnealingWarmRestarts"]


def half_cosine(low: float, high: float, progress: float) -> float:
    """From ``high`` at progress 0 to ``low`` at progress 1, and back at 2."""
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2


class CosineAnnealingLR(LRScheduler):
    r"""The rate falls along half a cosine, and rises again in the next as many epochs.

    .. math::
        \eta_t = \eta_{\min} + \tfrac12 (\eta_0 - \eta_{\min})
        \left(1 + \cos\left(\pi\,\frac{t}{T_{\max}}\right)\right)

    It is computed from the rate of the last epoch, so that it can be chained with others.

    Args:
        optimizer: the optimizer whose rates are set.
        T_max: epochs until the rate is at its minimum.
        eta_min: :math:`\eta_{\min}`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: a ``T_max`` that is not positive.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        torch.optim.lr_scheduler.CosineAnnealingLR; Loshchilov and Hutter, 2016
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        require_positive("T_max", T_max)
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates of this epoch, from those of the last."""
        self._warn_outside()
        rates = self._group_lrs()
        if self._is_initial:
            return rates
        if self._step_count == 1 and self.last_epoch > 0:
            return self._get_closed_form_lr()
        if (self.last_epoch - 1 - self.T_max) % (2 * self.T_max) == 0:
            # The first epoch after a minimum: the ratio of the two cosines would be x / 0.
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            pairs = zip(rates, self.base_lrs, strict=True)
            return [rate + (base - self.eta_min) * rise for rate, base in pairs]
        now = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        before = 1 + math.cos(math.pi * (self.last_epoch - 1) / self.T_max)
        return [now / before * (rate - self.eta_min) + self.eta_min for rate in rates]

    def _get_closed_form_lr(self) -> list[float]:
        progress = self.last_epoch / self.T_max
        return [half_cosine(self.eta_min, rate, progress) for rate in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    r"""The rate falls along half a cosine and jumps back; each fall may be longer than the last.

    .. math::
        \eta_t = \eta_{\min} + \tfrac12 (\eta_0 - \eta_{\min})
        \left(1 + \cos\left(\pi\,\frac{T_{cur}}{T_i}\right)\right)

    :math:`T_{cur}` epochs have passed since the last restart, and :math:`T_i` lie between this one
    and the next: :math:`T_0`, then :math:`T_{mult}` times as many each time.

    Args:
        optimizer: the optimizer whose rates are set.
        T_0: epochs until the first restart.
        T_mult: the factor of their number after each restart.
        eta_min: :math:`\eta_{\min}`.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: ``T_0`` or ``T_mult`` is not a positive integer, or ``eta_min`` not a number.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        torch.optim.lr_scheduler.CosineAnnealingWarmRestarts; Loshchilov and Hutter, 2016
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(T_0, int) or T_0 <= 0:
            raise ArgumentError(f"Expected positive integer T_0, but got {describe(T_0)}")
        if not isinstance(T_mult, int) or T_mult < 1:
            raise ArgumentError(f"Expected integer T_mult >= 1, but got {describe(T_mult)}")
        if not isinstance(eta_min, (float, int)):
            raise ArgumentError(f"Expected float or int eta_min, but got {describe(eta_min)}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates of this time since the last restart."""
        self._warn_outside()
        return [half_cosine(self.eta_min, rate, self.T_cur / self.T_i) for rate in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to the one that is given, which may be a fraction.

        Args:
            epoch: for example ``epoch + i / batches`` after batch i; None goes on to the next.

        Raises:
            ArgumentError: a negative epoch.
        """
        if epoch is not None and epoch < 0:
            raise ArgumentError(f"Expected non-negative epoch, but got {epoch}")
        with all_or_nothing(self):
            if epoch is None and self.last_epoch < 0:
                epoch = 0
            if epoch is None:
                epoch = self.last_epoch + 1
                self.T_cur += 1
                if self.T_cur >= self.T_i:
                    self.T_cur %= self.T_i
                    self.T_i *= self.T_mult
            else:
                self._go_to(epoch)
            self.last_epoch = math.floor(epoch)
            self._assign(self._within(self.get_lr))

    def _go_to(self, epoch: float) -> None:
        start, length = 0, self.T_0
        if self.T_mult == 1:
            start = epoch // length * length
        while epoch - start >= length:
            start, length = start + length, length * self.T_mult
        self.T_cur, self.T_i = epoch - start, length
