"""RMSprop: gradients over the root of their mean square."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import in_use
from funcnets.optim._rules import (
    by_rule,
    chosen,
    composed,
    refuse_torch_switches,
    require_not_negative,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["RMSprop", "rmsprop_tx"]


class RMSpropState(NamedTuple):
    """Steps, the mean square and, where they are in use, momentum and mean of the gradients."""

    step: jax.Array
    square_avg: Any
    momentum_buffer: Any
    grad_avg: Any


def rmsprop_tx(
    lr: Any = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0,
    momentum: float = 0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's RMSprop as a pure optax transformation; see :class:`RMSprop` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.rmsprop_tx(lr=0.1)
        >>> round(tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].item(), 4)
        -1.0
    """
    moves = in_use(momentum)

    def rule(g: Any, square_avg: Any, momentum_buffer: Any, grad_avg: Any, momentum: Any) -> Any:
        square_avg = variance = alpha * square_avg + (1 - alpha) * g * g
        if centered:
            grad_avg = alpha * grad_avg + (1 - alpha) * g
            variance = square_avg - grad_avg * grad_avg
        direction = g / (jnp.sqrt(variance) + eps)
        if moves:
            direction = momentum_buffer = momentum * momentum_buffer + direction
        return direction, square_avg, momentum_buffer, grad_avg

    unused = [*([] if moves else ["momentum_buffer"]), *([] if centered else ["grad_avg"])]
    scaled = by_rule(RMSpropState, rule, lambda step: [momentum], unused=unused)
    return composed(scaled, lr, weight_decay, maximize=maximize)


class RMSprop(Optimizer):
    r"""RMSprop: gradients over the root of their mean square, with momentum if asked.

    .. math::
        v_t &= \alpha\,v_{t-1} + (1 - \alpha)\,g_t^2, \qquad
        a_t = \alpha\,a_{t-1} + (1 - \alpha)\,g_t \\
        d_t &= \frac{g_t}{\sqrt{v_t} + \epsilon} \quad\text{or, centered,}\quad
        \frac{g_t}{\sqrt{v_t - a_t^2} + \epsilon} \\
        b_t &= \mu\,b_{t-1} + d_t, \qquad \theta_t = \theta_{t-1} - \gamma\,b_t

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        alpha: :math:`\alpha`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`; adds :math:`\lambda\theta` to the gradient.
        momentum: :math:`\mu`.
        centered: divide by the root of the variance instead of the mean square.
        capturable: torch's kernel choice; only False.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        differentiable: torch's kernel choice; only False.

    Raises:
        ArgumentError: a negative hyper-parameter.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.RMSprop(nn.Linear(2, 1).parameters(), momentum=0.9).param_groups[0]["alpha"]
        0.99

    References:
        torch.optim.RMSprop; Hinton, 2012, lecture 6; Graves, 2013 (centered)
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("momentum", "weight_decay")
    _sometimes: ClassVar[tuple[str, ...]] = ("momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("RMSprop", options)
        require_not_negative(
            options,
            lr="learning rate",
            eps="epsilon value",
            momentum="momentum value",
            weight_decay="weight_decay value",
            alpha="alpha value",
        )

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        names = ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize")
        return rmsprop_tx(lr, **chosen(group, *names))
