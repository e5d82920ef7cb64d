"""Rprop: a step size for every number, which only the signs of its gradients change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import only_if, require
from funcnets.optim._rules import (
    by_rule,
    chosen,
    pair_of,
    rate_at,
    refuse_torch_switches,
    require_not_negative,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["Rprop", "rprop_tx"]


class RpropState(NamedTuple):
    """Steps, the gradients that counted last, and the step sizes, which the first step sets."""

    step: jax.Array
    prev: Any
    step_size: Any


def rprop_tx(
    lr: Any = 1e-2,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50),
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's Rprop as a pure optax transformation; see :class:`Rprop` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; of a schedule ``lr`` only the first value counts.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.rprop_tx(lr=0.5)
        >>> tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)), jnp.zeros(2))[0].tolist()
        [-0.5, 0.5]
    """
    shrink, grow = etas
    smallest, largest = step_sizes

    # The rate is read at the first step and not by ``init``: it may have been changed in between, and
    # inside a compiled step it is a tracer, which an initial state must not keep.
    def rule(g: Any, prev: Any, step_size: Any, step: Any, lr: Any) -> Any:
        turn = g * prev
        # What is not a number turns nothing and moves nothing, in PyTorch too.
        factor = jnp.where(turn > 0, grow, jnp.where(turn < 0, shrink, 1.0))
        step_size = jnp.clip(jnp.where(step == 1, lr, step_size) * factor, smallest, largest)
        g = jnp.where(turn < 0, 0.0, g)
        direction = jnp.where(g > 0, step_size, jnp.where(g < 0, -step_size, 0.0))
        return -direction, g, step_size

    scaled = by_rule(RpropState, rule, lambda step: (step, rate_at(lr, step)))
    return optax.chain(only_if(maximize, optax.scale(-1.0)), scaled)


class Rprop(Optimizer):
    r"""Rprop: steps whose size grows while the gradient keeps its sign and shrinks when it turns.

    .. math::
        \eta_t &= \begin{cases}
        \min(\eta_+\,\eta_{t-1},\ \Gamma_\max) & g_{t-1}\,g_t > 0 \\
        \max(\eta_-\,\eta_{t-1},\ \Gamma_\min), \quad g_t \leftarrow 0 & g_{t-1}\,g_t < 0 \\
        \eta_{t-1} & \text{else} \end{cases} \\
        \theta_t &= \theta_{t-1} - \eta_t\,\operatorname{sign} g_t, \qquad \eta_0 = \gamma

    It is made for gradients of the whole data set: in small batches signs turn by chance.

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: :math:`\gamma`, with which a parameter starts; later changes concern only those that
            have not made a step.
        etas: :math:`(\eta_-, \eta_+)`.
        step_sizes: :math:`(\Gamma_\min, \Gamma_\max)`.
        capturable: torch's kernel choice; only False.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        differentiable: torch's kernel choice; only False.

    Raises:
        ArgumentError: a negative rate, or factors that are not below and above 1.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.Rprop(nn.Linear(2, 1).parameters()).param_groups[0]["etas"]
        (0.5, 1.2)

    References:
        torch.optim.Rprop; Riedmiller and Braun, 1993
    """

    _elementwise: ClassVar[bool] = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("Rprop", options)
        require_not_negative(options, lr="learning rate")
        shrink, grow = pair_of(options, "etas")
        require(0.0 < shrink < 1.0 < grow, "eta values", f"{shrink}, {grow}")
        pair_of(options, "step_sizes")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return rprop_tx(lr, **chosen(group, "etas", "step_sizes", "maximize"))
