"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import (
    decay_by,
    in_use,
    number,
    only_if,
    refuse_flags,
    require,
    scale_by_rate,
    zeros_like,
)
from funcnets.optim.optimizer import Optimizer

__all__ = ["SGD", "sgd_tx"]


class SGDState(NamedTuple):
    """The momentum buffers, and whether any step was made."""

    started: jax.Array
    momentum_buffer: Any


def torch_momentum(momentum: Any, dampening: Any, nesterov: bool) -> optax.GradientTransformation:
    """Momentum whose new gradients count ``1 - dampening``, but for the first, which counts whole."""

    def init(params: Any) -> SGDState:
        return SGDState(jnp.zeros((), bool), zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SGDState]:
        share = jnp.where(state.started, 1.0 - dampening, 1.0) if in_use(dampening) else None

        def accumulate(buffer: jax.Array, gradient: jax.Array) -> jax.Array:
            part = gradient if share is None else share.astype(gradient.dtype) * gradient
            return number(momentum, buffer.dtype) * buffer + part

        def ahead(buffer: jax.Array, gradient: jax.Array) -> jax.Array:
            return gradient + number(momentum, buffer.dtype) * buffer

        buffers = jax.tree.map(accumulate, state.momentum_buffer, updates)
        updates = jax.tree.map(ahead, buffers, updates) if nesterov else buffers
        return updates, SGDState(jnp.ones((), bool), buffers)

    return optax.GradientTransformation(init, update)


def sgd_tx(
    lr: Any = 1e-3,
    momentum: float = 0,
    dampening: float = 0,
    weight_decay: float = 0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's SGD as a pure optax transformation; see :class:`SGD` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.sgd_tx(lr=0.5)
        >>> tx.update(jnp.ones(2), tx.init(jnp.zeros(2)), jnp.zeros(2))[0].tolist()
        [-0.5, -0.5]
    """
    return optax.chain(
        only_if(maximize, optax.scale(-1.0)),
        decay_by(weight_decay),
        only_if(in_use(momentum), torch_momentum(momentum, dampening, nesterov)),
        scale_by_rate(lr),
    )


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum if asked.

    .. math::
        g_t &= \nabla f(\theta_{t-1}) + \lambda\,\theta_{t-1} \\
        b_t &= \mu\,b_{t-1} + (1 - \tau)\,g_t, \qquad b_1 = g_1 \\
        \theta_t &= \theta_{t-1} - \gamma\,b_t \quad\text{or, with Nesterov,}\quad
        \theta_{t-1} - \gamma\,(g_t + \mu\,b_t)

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        momentum: :math:`\mu`.
        dampening: :math:`\tau`.
        weight_decay: :math:`\lambda`.
        nesterov: Nesterov's form; needs momentum and no dampening.
        maximize: go up the gradient instead of down.
        foreach: torch's kernel choice; only None or False.
        differentiable: likewise.
        fused: likewise.

    Raises:
        ArgumentError: a negative rate, momentum or decay, or Nesterov without momentum.

    Examples:
        >>> from funcnets import nn, optim
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9)
        >>> optimizer.param_groups[0]["lr"]
        0.1

    References:
        torch.optim.SGD; Sutskever et al., 2013
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("momentum", "dampening", "weight_decay")
    _sometimes: ClassVar[tuple[str, ...]] = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        refuse_flags("SGD", foreach=foreach, differentiable=differentiable, fused=fused)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        require(options["lr"] >= 0.0, "learning rate", options["lr"])
        require(options["momentum"] >= 0.0, "momentum value", options["momentum"])
        require(options["weight_decay"] >= 0.0, "weight_decay value", options["weight_decay"])
        if options["nesterov"]:
            fits = options["momentum"] > 0 and options["dampening"] == 0
            require(fits, "nesterov", "Nesterov momentum requires a momentum and zero dampening")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return sgd_tx(
            lr,
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            group["nesterov"],
            maximize=group["maximize"],
        )
