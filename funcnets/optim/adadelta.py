"""Adadelta: steps in the units of the parameters, without a rate to choose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import require
from funcnets.optim._rules import (
    by_rule,
    chosen,
    composed,
    refuse_torch_switches,
    require_not_negative,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["Adadelta", "adadelta_tx"]


class AdadeltaState(NamedTuple):
    """Steps and the mean squares of the gradients and of the changes."""

    step: jax.Array
    square_avg: Any
    acc_delta: Any


def adadelta_tx(
    lr: Any = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's Adadelta as a pure optax transformation; see :class:`Adadelta` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adadelta_tx()
        >>> round(tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].item(), 4)
        -0.0032
    """

    def rule(g: Any, square_avg: Any, acc_delta: Any) -> Any:
        square_avg = rho * square_avg + (1 - rho) * g * g
        delta = jnp.sqrt(acc_delta + eps) / jnp.sqrt(square_avg + eps) * g
        return delta, square_avg, rho * acc_delta + (1 - rho) * delta * delta

    return composed(by_rule(AdadeltaState, rule), lr, weight_decay, maximize=maximize)


class Adadelta(Optimizer):
    r"""Adadelta: gradients scaled by the ratio of the usual change to the usual gradient.

    .. math::
        v_t &= \rho\,v_{t-1} + (1 - \rho)\,g_t^2, \qquad
        \Delta_t = \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}}\,g_t \\
        u_t &= \rho\,u_{t-1} + (1 - \rho)\,\Delta_t^2, \qquad
        \theta_t = \theta_{t-1} - \gamma\,\Delta_t

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: factor :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        rho: :math:`\rho`, within [0, 1].
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`; adds :math:`\lambda\theta` to the gradient.
        foreach: torch's kernel choice; only None or False.
        capturable: torch's kernel choice; only False.
        maximize: go up the gradient instead of down.
        differentiable: torch's kernel choice; only False.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.Adadelta(nn.Linear(2, 1).parameters()).param_groups[0]["rho"]
        0.9

    References:
        torch.optim.Adadelta; Zeiler, 2012
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("weight_decay",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("Adadelta", options)
        require_not_negative(options, lr="learning rate")
        require(0.0 <= options["rho"] <= 1.0, "rho value", options["rho"])
        require_not_negative(options, eps="epsilon value", weight_decay="weight_decay value")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return adadelta_tx(lr, **chosen(group, "rho", "eps", "weight_decay", "maximize"))
