"""Adagrad: steps that shrink with all the gradients seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._rules import (
    by_rule,
    chosen,
    composed,
    refuse_torch_switches,
    require_not_negative,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["Adagrad", "adagrad_tx"]


class AdagradState(NamedTuple):
    """Steps and the sum of the squared gradients."""

    step: jax.Array
    sum: Any


def adagrad_tx(
    lr: Any = 1e-2,
    lr_decay: float = 0,
    weight_decay: float = 0,
    initial_accumulator_value: float = 0,
    eps: float = 1e-10,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's Adagrad as a pure optax transformation; see :class:`Adagrad` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adagrad_tx(lr=0.5, initial_accumulator_value=3.0)
        >>> tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].tolist()
        [-0.25]
    """

    # optax puts its eps under the root.
    def rule(g: Any, total: Any, slower: Any) -> Any:
        total = total + g * g
        return g / (jnp.sqrt(total) + eps) / slower, total

    def scalars(step: jax.Array) -> list[Any]:
        return [1 + (step - 1).astype(jnp.result_type(float)) * lr_decay]

    scaled = by_rule(AdagradState, rule, scalars, start=initial_accumulator_value)
    return composed(scaled, lr, weight_decay, maximize=maximize)


class Adagrad(Optimizer):
    r"""Adagrad: steps divided by the root of the sum of all squared gradients.

    .. math::
        s_t = s_{t-1} + g_t^2, \qquad
        \theta_t = \theta_{t-1} - \frac{\gamma}{1 + (t - 1)\,\eta}\,\frac{g_t}{\sqrt{s_t} + \epsilon}

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        lr_decay: :math:`\eta`.
        weight_decay: :math:`\lambda`; adds :math:`\lambda\theta` to the gradient.
        initial_accumulator_value: :math:`s_0`.
        eps: :math:`\epsilon`.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        differentiable: torch's kernel choice; only False.
        fused: likewise, or None.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.Adagrad(nn.Linear(2, 1).parameters()).param_groups[0]["eps"]
        1e-10

    References:
        torch.optim.Adagrad; Duchi et al., 2011
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("weight_decay",)
    _has_state_at_once: ClassVar[bool] = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("Adagrad", options)
        require_not_negative(
            options,
            lr="learning rate",
            lr_decay="lr_decay value",
            weight_decay="weight_decay value",
            initial_accumulator_value="initial_accumulator_value value",
            eps="epsilon value",
        )

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        names = ("lr_decay", "weight_decay", "initial_accumulator_value", "eps", "maximize")
        return adagrad_tx(lr, **chosen(group, *names))
