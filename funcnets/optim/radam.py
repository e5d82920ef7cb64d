"""RAdam: Adam that waits until the second moment can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import betas_of
from funcnets.optim._rules import (
    by_rule,
    chosen,
    composed,
    correction,
    refuse_torch_switches,
    require_not_negative,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["RAdam", "radam_tx"]


class RAdamState(NamedTuple):
    """Steps and both moments."""

    step: jax.Array
    exp_avg: Any
    exp_avg_sq: Any


def _lengths(b2: Any, step: jax.Array) -> tuple[Any, jax.Array]:
    r"""The length of the average in the limit and now.

    As published, :math:`\rho_t = \rho_\infty - 2t\beta_2^t / (1 - \beta_2^t)` is a small difference of
    large numbers: in single precision, with 0.999, it is off by 0.04 at the fifth step. With
    :math:`L(z) = \coth z - 1/z` and :math:`x = -\log\beta_2` it is
    :math:`t + L(x/2) - t L(tx/2)`, which loses nothing.
    """
    t = step.astype(jnp.result_type(float))
    x = -jnp.log(b2.astype(t.dtype)) if isinstance(b2, jax.Array) else -math.log(b2)
    return 2 / (1 - b2) - 1, t + _langevin(0.5 * x) - t * _langevin(0.5 * x * t)


def _langevin(z: Any) -> jax.Array:
    """``coth(z) - 1/z``; for small ``z`` by its series, as both terms are large there."""
    near, far = jnp.minimum(z, 0.25), jnp.maximum(z, 0.25)
    square = near * near
    series = near * (1 / 3 - square * (1 / 45 - square * (2 / 945 - square / 4725)))
    return jnp.where(z < 0.25, series, 1 / jnp.tanh(far) - 1 / far)


def _scale_by_radam(betas: tuple[Any, Any], eps: float) -> optax.GradientTransformation:
    b1, b2 = betas
    # The length grows towards its limit, and counts only where it exceeds 5.
    adapts = isinstance(b2, jax.Array) or 2 / (1 - b2) - 1 > 5

    def scalars(step: jax.Array) -> list[Any]:
        moments = [b1, 1 - b1, b2, 1 - b2, correction(b1, step)]
        if not adapts:
            return moments
        limit, now = _lengths(b2, step)
        safe = jnp.maximum(now, 5.0)
        rectified = (safe - 4) * (safe - 2) * limit / ((limit - 4) * (limit - 2) * safe)
        return [*moments, now, jnp.sqrt(rectified * correction(b2, step))]

    def rule(g: Any, m: Any, v: Any, *scalars: Any) -> Any:
        b1, rest1, b2, rest2, first, *second = scalars
        m = b1 * m + rest1 * g
        v = b2 * v + rest2 * g * g
        direction = m / first
        if adapts:
            length, factor = second
            direction = jnp.where(length > 5, direction * factor / (jnp.sqrt(v) + eps), direction)
        return direction, m, v

    return by_rule(RAdamState, rule, scalars)


def radam_tx(
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's RAdam as a pure optax transformation; see :class:`RAdam` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.radam_tx(lr=0.5)
        >>> round(tx.update(jnp.full(1, 3.0), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].item(), 3)
        -1.5
    """
    return composed(
        _scale_by_radam(betas, eps),
        lr,
        weight_decay,
        maximize=maximize,
        decoupled=decoupled_weight_decay,
    )


class RAdam(Optimizer):
    r"""RAdam: Adam with a factor that makes up for the few gradients its first steps have seen.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\,g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2)\,g_t^2, \qquad
        \hat m_t = \frac{m_t}{1 - \beta_1^t} \\
        \rho_\infty &= \frac{2}{1 - \beta_2} - 1, \qquad
        \rho_t = \rho_\infty - \frac{2t\,\beta_2^t}{1 - \beta_2^t}, \qquad
        r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2)\,\rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2)\,\rho_t}} \\
        \theta_t &= \theta_{t-1} - \gamma\,\hat m_t \begin{cases}
        r_t\,\sqrt{1 - \beta_2^t} / (\sqrt{v_t} + \epsilon) & \rho_t > 5 \\ 1 & \text{else}\end{cases}

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`; adds :math:`\lambda\theta` to the gradient.
        decoupled_weight_decay: subtract :math:`\gamma\lambda\theta` from the parameter instead.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        capturable: torch's kernel choice; only False.
        differentiable: likewise.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.RAdam(nn.Linear(2, 1).parameters()).param_groups[0]["lr"]
        0.001

    References:
        torch.optim.RAdam; Liu et al., 2019
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("betas", "weight_decay")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("RAdam", options)
        require_not_negative(options, lr="learning rate", eps="epsilon value")
        betas_of(options)
        require_not_negative(options, weight_decay="weight_decay value")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        names = ("betas", "eps", "weight_decay", "decoupled_weight_decay", "maximize")
        return radam_tx(lr, **chosen(group, *names))
