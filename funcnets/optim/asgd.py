"""ASGD: stochastic gradient descent that also averages the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.errors import ArgumentError
from funcnets.optim._parts import decay_by, only_if
from funcnets.optim._rules import (
    chosen,
    each,
    filled,
    rate_at,
    refuse_torch_switches,
    require_not_negative,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["ASGD", "asgd_tx"]


class ASGDState(NamedTuple):
    """Steps, the rate and the weight of the next one, and the averaged parameters."""

    step: jax.Array
    eta: jax.Array
    mu: jax.Array
    ax: Any


def _averaged_descent(
    lr: Any, lambd: float, alpha: float, t0: float
) -> optax.GradientTransformation:
    def init(params: Any) -> ASGDState:
        scalar = jnp.zeros((), jnp.result_type(float))
        zeros = jax.tree.map(lambda p: filled(p, 0.0), params)
        return ASGDState(jnp.zeros((), jnp.int32), scalar, scalar + 1, zeros)

    def descend(g: Any, p: Any, eta: Any) -> Any:
        return -eta * (lambd * p + g), p

    def average(p: Any, ax: Any, mu: Any) -> Any:
        # Until averaging begins the average is the parameter, to the last bit.
        return p, jnp.where(mu == 1, p, ax + (p - ax) * mu)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ASGDState]:
        if params is None:
            raise ArgumentError(
                "asgd_tx decays and averages the parameters and needs them: update(grads, state, params)"
            )
        step, rate = state.step + 1, rate_at(lr, state.step + 1)
        # Each step uses the rate that the one before it computed; the first, the learning rate.
        eta = jnp.where(step == 1, rate, state.eta.astype(rate.dtype))
        changes, _ = each(descend, [updates, params], [eta])
        _, ax = each(average, [optax.apply_updates(params, changes), state.ax], [state.mu])
        steps = step.astype(rate.dtype)
        eta = rate / (1 + lambd * rate * steps) ** alpha
        return changes, ASGDState(step, eta, 1 / jnp.maximum(1.0, steps - t0), ax)

    return optax.GradientTransformation(init, update)


def asgd_tx(
    lr: Any = 1e-2,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: float = 0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's ASGD as a pure optax transformation; see :class:`ASGD` for the arguments.

    It comes last in a chain: the average is of the parameters after its updates.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.asgd_tx(lr=0.5)
        >>> updates, (*_, state) = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))
        >>> updates.tolist(), state.ax.tolist()
        ([-0.5], [-0.5])
    """
    return optax.chain(
        only_if(maximize, optax.scale(-1.0)),
        decay_by(weight_decay),
        _averaged_descent(lr, lambd, alpha, t0),
    )


class ASGD(Optimizer):
    r"""ASGD: gradient descent with a falling rate, and from a step on the average of the parameters.

    .. math::
        \theta_t &= (1 - \lambda\,\eta_{t-1})\,\theta_{t-1} - \eta_{t-1}\,g_t, \qquad \eta_0 = \gamma \\
        a_t &= a_{t-1} + \mu_{t-1}\,(\theta_t - a_{t-1}), \qquad \mu_0 = 1 \\
        \eta_t &= \frac{\gamma}{(1 + \lambda\,\gamma\,t)^\alpha}, \qquad
        \mu_t = \frac{1}{\max(1,\ t - t_0)}

    The model keeps :math:`\theta`; the average :math:`a` is the optimizer's ``ax``.

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles; as in
            PyTorch it takes effect one step later.
        lambd: :math:`\lambda`.
        alpha: :math:`\alpha`.
        t0: :math:`t_0`, the step after which averaging begins; until then :math:`a = \theta`.
        weight_decay: added to the gradient, times :math:`\theta`.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        differentiable: torch's kernel choice; only False.
        capturable: likewise.

    Raises:
        ArgumentError: a negative rate or weight decay.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.ASGD(nn.Linear(2, 1).parameters()).param_groups[0]["t0"]
        1000000.0

    References:
        torch.optim.ASGD; Polyak and Juditsky, 1992
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("weight_decay",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_torch_switches("ASGD", options)
        require_not_negative(options, lr="learning rate", weight_decay="weight_decay value")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return asgd_tx(lr, **chosen(group, "lambd", "alpha", "t0", "weight_decay", "maximize"))
