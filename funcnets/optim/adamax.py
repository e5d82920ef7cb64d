"""Adamax: Adam with the largest gradient in place of the root of the mean square."""

from __future__ import annotations

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

__all__ = ["Adamax", "adamax_tx"]


class AdamaxState(NamedTuple):
    """Steps, the mean of the gradient and its decaying largest absolute value."""

    step: jax.Array
    exp_avg: Any
    exp_inf: Any


def adamax_tx(
    lr: Any = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's Adamax as a pure optax transformation; see :class:`Adamax` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adamax_tx(lr=0.1)
        >>> round(tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].item(), 3)
        -0.1
    """
    b1, b2 = betas

    def rule(g: Any, exp_avg: Any, exp_inf: Any, b1: Any, rest: Any, b2: Any, first: Any) -> Any:
        exp_avg = b1 * exp_avg + rest * g
        exp_inf = jnp.maximum(b2 * exp_inf, jnp.abs(g) + eps)
        return exp_avg / (first * exp_inf), exp_avg, exp_inf

    scaled = by_rule(AdamaxState, rule, lambda step: (b1, 1 - b1, b2, correction(b1, step)))
    return composed(scaled, lr, weight_decay, maximize=maximize)


class Adamax(Optimizer):
    r"""Adamax: steps scaled by the mean of the gradient over its decaying largest absolute value.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\,g_t, \qquad
        u_t = \max(\beta_2 u_{t-1},\ |g_t| + \epsilon) \\
        \theta_t &= \theta_{t-1} - \frac{\gamma}{1 - \beta_1^t}\,\frac{m_t}{u_t}

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`; adds :math:`\lambda\theta` to the gradient.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        differentiable: torch's kernel choice; only False.
        capturable: likewise.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.Adamax(nn.Linear(2, 1).parameters()).param_groups[0]["lr"]
        0.002

    References:
        torch.optim.Adamax; Kingma and Ba, 2014, section 7
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("betas", "weight_decay")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("Adamax", options)
        require_not_negative(options, lr="learning rate", eps="epsilon value")
        betas_of(options)
        require_not_negative(options, weight_decay="weight_decay value")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return adamax_tx(lr, **chosen(group, "betas", "eps", "weight_decay", "maximize"))
