"""NAdam: Adam with Nesterov's look ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import betas_of
from funcnets.optim._rules import (
    chosen,
    composed,
    correction,
    each,
    filled,
    refuse_torch_switches,
    require_not_negative,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["NAdam", "nadam_tx"]


class NAdamState(NamedTuple):
    """Steps, the product of the momenta so far, and both moments."""

    step: jax.Array
    mu_product: jax.Array
    exp_avg: Any
    exp_avg_sq: Any


def _scale_by_nadam(
    betas: tuple[float, float], eps: float, momentum_decay: float
) -> optax.GradientTransformation:
    """PyTorch's rule, whose momentum grows with the steps; optax's stays the same."""
    b1, b2 = betas

    def momentum(step: jax.Array) -> jax.Array:
        power = step.astype(jnp.result_type(float)) * momentum_decay
        return jnp.asarray(b1, power.dtype) * (1.0 - 0.5 * 0.96**power)

    def rule(g: Any, m: Any, v: Any, *scalars: Any) -> Any:
        b1, rest1, b2, rest2, now, ahead, second = scalars
        m = b1 * m + rest1 * g
        v = b2 * v + rest2 * g * g
        return (now * g + ahead * m) / (jnp.sqrt(v / second) + eps), m, v

    def init(params: Any) -> NAdamState:
        zeros = lambda: jax.tree.map(lambda p: filled(p, 0.0), params)  # noqa: E731
        one = jnp.ones((), jnp.result_type(float))
        return NAdamState(jnp.zeros((), jnp.int32), one, zeros(), zeros())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, NAdamState]:
        step = state.step + 1
        mu, mu_next = momentum(step), momentum(step + 1)
        product = state.mu_product.astype(mu.dtype) * mu
        now, ahead = (1.0 - mu) / (1.0 - product), mu_next / (1.0 - product * mu_next)
        scalars = [b1, 1 - b1, b2, 1 - b2, now, ahead, correction(b2, step)]
        direction, *moments = each(rule, [updates, state.exp_avg, state.exp_avg_sq], scalars)
        return direction, NAdamState(step, product, *moments)

    return optax.GradientTransformation(init, update)


def nadam_tx(
    lr: Any = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's NAdam as a pure optax transformation; see :class:`NAdam` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.nadam_tx(lr=0.1)
        >>> round(tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].item(), 3)
        -0.106
    """
    return composed(
        _scale_by_nadam(betas, eps, momentum_decay),
        lr,
        weight_decay,
        maximize=maximize,
        decoupled=decoupled_weight_decay,
    )


class NAdam(Optimizer):
    r"""NAdam: Adam whose step looks ahead by the momentum of the next one.

    .. math::
        \mu_t &= \beta_1\left(1 - \tfrac12\,0.96^{t\psi}\right), \qquad
        m_t = \beta_1 m_{t-1} + (1 - \beta_1)\,g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2)\,g_t^2 \\
        \hat m_t &= \frac{\mu_{t+1}\,m_t}{1 - \prod_{i=1}^{t+1}\mu_i}
        + \frac{(1 - \mu_t)\,g_t}{1 - \prod_{i=1}^{t}\mu_i}, \qquad
        \theta_t = \theta_{t-1} - \gamma\,\frac{\hat m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`; adds :math:`\lambda\theta` to the gradient.
        momentum_decay: :math:`\psi`.
        decoupled_weight_decay: subtract :math:`\gamma\lambda\theta` from the parameter instead.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        capturable: torch's kernel choice; only False.
        differentiable: likewise.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.NAdam(nn.Linear(2, 1).parameters()).param_groups[0]["momentum_decay"]
        0.004

    References:
        torch.optim.NAdam; Dozat, 2016
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
        momentum_decay: float = 4e-3,
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
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("NAdam", options)
        require_not_negative(options, lr="learning rate", eps="epsilon value")
        betas_of(options)
        require_not_negative(options, weight_decay="weight_decay value")
        require_not_negative(options, momentum_decay="momentum_decay value")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        names = ("betas", "eps", "weight_decay", "momentum_decay")
        return nadam_tx(lr, **chosen(group, *names, "decoupled_weight_decay", "maximize"))
