"""Schedules that multiply the learning rate by a factor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from funcnets._args import probability
from funcnets.errors import ArgumentError
from funcnets.optim.lr_scheduler.base import require_positive
from funcnets.optim.schedules._time import Schedule, as_float, schedule

__all__ = [
    "constant_lr",
    "exponential_lr",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "multiplicative_lr",
    "polynomial_lr",
    "step_lr",
]


def lambda_lr(lr: Any, lr_lambda: Callable[[Any], Any]) -> Schedule:
    r""":math:`\eta_t = \eta_0\, \lambda(t)`, as :class:`~funcnets.optim.lr_scheduler.LambdaLR`.

    Args:
        lr: :math:`\eta_0`.
        lr_lambda: :math:`\lambda`, which must take a traced number.

    Returns:
        A function of the count, which any optax transformation takes for a learning rate.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.lambda_lr(0.5, lambda t: 1 / (1 + t))
        >>> [rate(t).item() for t in range(4)]
        [0.5, 0.25, 0.1666666716337204, 0.125]

    References:
        torch.optim.lr_scheduler.LambdaLR
    """
    return schedule(lambda t: as_float(lr) * as_float(lr_lambda(t)))


def multiplicative_lr(lr: Any, lr_lambda: Callable[[Any], Any]) -> Schedule:
    r""":math:`\eta_t = \eta_{t-1}\, \lambda(t)`, as :class:`~funcnets.optim.lr_scheduler.MultiplicativeLR`.

    The product is taken anew at each count, in a loop.

    Args:
        lr: :math:`\eta_0`.
        lr_lambda: :math:`\lambda`, which must take a traced number; it is not asked for 0.

    Returns:
        A function of the count.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.multiplicative_lr(0.5, lambda t: t / (1 + t))
        >>> [round(rate(t).item(), 4) for t in range(4)]
        [0.5, 0.25, 0.1667, 0.125]

    References:
        torch.optim.lr_scheduler.MultiplicativeLR
    """

    def at(t: jax.Array) -> jax.Array:
        def times(k: jax.Array, product: jax.Array) -> jax.Array:
            return product * as_float(lr_lambda(as_float(k)))

        return jax.lax.fori_loop(1, t.astype(jnp.int32) + 1, times, as_float(lr))

    return schedule(at)


def step_lr(lr: Any, step_size: int, gamma: float = 0.1) -> Schedule:
    r""":math:`\eta_t = \eta_0\,\gamma^{\lfloor t / s \rfloor}`, as :class:`~funcnets.optim.lr_scheduler.StepLR`.

    Args:
        lr: :math:`\eta_0`.
        step_size: :math:`s`.
        gamma: :math:`\gamma`.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: a ``step_size`` that is not positive.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.step_lr(1.0, step_size=2, gamma=0.5)
        >>> [rate(t).item() for t in range(5)]
        [1.0, 1.0, 0.5, 0.5, 0.25]

    References:
        torch.optim.lr_scheduler.StepLR
    """
    require_positive("step_size", step_size)
    return schedule(lambda t: as_float(lr) * as_float(gamma) ** (t // step_size))


def multi_step_lr(lr: Any, milestones: Iterable[int], gamma: float = 0.1) -> Schedule:
    r""":math:`\eta_t = \eta_0\,\gamma^{\#\{m \le t\}}`, as :class:`~funcnets.optim.lr_scheduler.MultiStepLR`.

    Args:
        lr: :math:`\eta_0`.
        milestones: the counts :math:`m`; one that is given twice counts twice.
        gamma: :math:`\gamma`.

    Returns:
        A function of the count.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.multi_step_lr(1.0, [1, 3], gamma=0.5)
        >>> [rate(t).item() for t in range(5)]
        [1.0, 0.5, 0.5, 0.25, 0.25]

    References:
        torch.optim.lr_scheduler.MultiStepLR
    """
    places = sorted(milestones)

    def at(t: jax.Array) -> jax.Array:
        passed = jnp.sum(as_float(places) <= t)
        return as_float(lr) * as_float(gamma) ** as_float(passed)

    return schedule(at)


def constant_lr(lr: Any, factor: float = 1.0 / 3, total_iters: int = 5) -> Schedule:
    r""":math:`\eta_0 f` before :math:`T`, then :math:`\eta_0`, as :class:`~funcnets.optim.lr_scheduler.ConstantLR`.

    Args:
        lr: :math:`\eta_0`.
        factor: :math:`f`, between 0 and 1.
        total_iters: :math:`T`; with 0 the rate is :math:`\eta_0` throughout.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: a factor out of its range.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.constant_lr(1.0, factor=0.5, total_iters=2)
        >>> [rate(t).item() for t in range(4)]
        [0.5, 0.5, 1.0, 1.0]

    References:
        torch.optim.lr_scheduler.ConstantLR
    """
    probability("factor", factor)
    return schedule(lambda t: as_float(lr) * jnp.where(t < total_iters, factor, 1.0))


def linear_lr(
    lr: Any, start_factor: float = 1.0 / 3, end_factor: float = 1.0, total_iters: int = 5
) -> Schedule:
    r""":math:`\eta_0\,(a + (b - a) \min(t, T) / T)`, as :class:`~funcnets.optim.lr_scheduler.LinearLR`.

    Args:
        lr: :math:`\eta_0`.
        start_factor: :math:`a`, in (0, 1].
        end_factor: :math:`b`, in [0, 1].
        total_iters: :math:`T`.

    Returns:
        A function of the count.

    Raises:
        ArgumentError: a factor out of its range.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.linear_lr(1.0, start_factor=0.5, total_iters=2)
        >>> [rate(t).item() for t in range(4)]
        [0.5, 0.75, 1.0, 1.0]

    References:
        torch.optim.lr_scheduler.LinearLR
    """
    if probability("start_factor", start_factor) == 0:
        raise ArgumentError("start_factor must be greater than 0")
    probability("end_factor", end_factor)
    factor: Any = optax.linear_schedule(start_factor, end_factor, total_iters)
    return schedule(lambda t: as_float(lr) * factor(t))


def exponential_lr(lr: Any, gamma: float) -> Schedule:
    r""":math:`\eta_t = \eta_0\,\gamma^t`, as :class:`~funcnets.optim.lr_scheduler.ExponentialLR`.

    Args:
        lr: :math:`\eta_0`.
        gamma: :math:`\gamma`.

    Returns:
        A function of the count.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.exponential_lr(1.0, gamma=0.5)
        >>> [rate(t).item() for t in range(4)]
        [1.0, 0.5, 0.25, 0.125]

    References:
        torch.optim.lr_scheduler.ExponentialLR
    """
    return schedule(lambda t: as_float(lr) * as_float(gamma) ** t)


def polynomial_lr(lr: Any, total_iters: int = 5, power: float = 1.0) -> Schedule:
    r""":math:`\eta_0\,(1 - \min(t, T) / T)^p`, as :class:`~funcnets.optim.lr_scheduler.PolynomialLR`.

    Args:
        lr: :math:`\eta_0`.
        total_iters: :math:`T`.
        power: :math:`p`.

    Returns:
        A function of the count.

    Examples:
        >>> from funcnets import optim
        >>> rate = optim.schedules.polynomial_lr(1.0, total_iters=4, power=2.0)
        >>> [rate(t).item() for t in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]

    References:
        torch.optim.lr_scheduler.PolynomialLR
    """
    left: Any = optax.linear_schedule(1.0, 0.0, total_iters)
    # A division rounded by the compiler may leave a negative number, whose powers are NaN.
    return schedule(lambda t: as_float(lr) * jnp.maximum(left(t), 0.0) ** power)
