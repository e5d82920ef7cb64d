"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets.optim._parts import (
    betas_of,
    decay_by,
    number,
    only_if,
    refuse_flags,
    require,
    scale_by_rate,
    zeros_like,
)
from funcnets.optim._rules import correction, each
from funcnets.optim.optimizer import Optimizer

__all__ = ["Adam", "AdamW", "adam_tx", "adamw_tx"]


class AdamState(NamedTuple):
    """Step count, both moments and, for AMSGrad, the largest second moment so far."""

    step: jax.Array
    exp_avg: Any
    exp_avg_sq: Any
    max_exp_avg_sq: Any


def scale_by_torch_adam(
    beta1: Any, beta2: Any, eps: float, amsgrad: bool
) -> optax.GradientTransformation:
    """Adam's rule as PyTorch has it, without the learning rate.

    optax differs in AMSGrad, whose maximum it takes of the corrected second moments, in complex
    numbers, of which it squares the absolute value, and in half precision, in which it computes.
    """

    def init(params: Any) -> AdamState:
        first, second = zeros_like(params), zeros_like(params)
        most = zeros_like(params) if amsgrad else ()
        return AdamState(jnp.zeros((), jnp.int32), first, second, most)

    def moments(g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        b1, b2 = number(beta1, g.dtype), number(beta2, g.dtype)
        return g, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g

    def direction(m: Any, v: Any, first: Any, second: Any) -> tuple[Any, ...]:
        return m / first / (jnp.sqrt(v) / jnp.sqrt(second) + eps), v

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdamState]:
        step = state.step + 1
        _, m, v = each(moments, [updates, state.exp_avg, state.exp_avg_sq], ())
        v_max = _largest(state.max_exp_avg_sq, v) if amsgrad else ()
        # Of the moments as they are kept: in half precision a small one is zero, as in PyTorch.
        corrections = (correction(beta1, step), correction(beta2, step))
        updates, _ = each(direction, [m, v_max if amsgrad else v], corrections)
        return updates, AdamState(step, m, v, v_max)

    return optax.GradientTransformation(init, update)


def _largest(one: Any, other: Any) -> Any:
    return each(lambda a, b: (jnp.maximum(a, b), b), [one, other], ())[0]


def _adam(
    lr: Any,
    betas: tuple[Any, Any],
    eps: float,
    weight_decay: Any,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> optax.GradientTransformation:
    return optax.chain(
        only_if(maximize, optax.scale(-1.0)),
        decay_by(0 if decoupled else weight_decay),
        scale_by_torch_adam(*betas, eps, amsgrad),
        decay_by(weight_decay if decoupled else 0),
        scale_by_rate(lr),
    )


def adam_tx(
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's Adam as a pure optax transformation; see :class:`Adam` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adam_tx(lr=0.1)
        >>> tx.update(jnp.ones(1), tx.init(jnp.zeros(1)), jnp.zeros(1))[0].round(3).tolist()
        [-0.10000000149011612]
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay)


def adamw_tx(
    lr: Any = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's AdamW as a pure optax transformation; see :class:`AdamW` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adamw_tx(lr=0.1, weight_decay=0.5)
        >>> tx.update(jnp.zeros(1), tx.init(jnp.ones(1)), jnp.ones(1))[0].round(3).tolist()
        [-0.05000000074505806]
    """
    return _adam(lr, betas, eps, weight_decay, amsgrad, maximize, True)


class Adam(Optimizer):
    r"""Adam: steps scaled by running means of the gradient and of its square.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\,g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2)\,g_t^2 \\
        \theta_t &= \theta_{t-1} - \gamma\,\frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate :math:`\gamma`. Changing ``param_groups[i]["lr"]`` never recompiles.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: added to the gradient as :math:`\lambda\theta`.
        amsgrad: divide by the largest second moment so far.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.
        capturable: torch's kernel choice; only False.
        differentiable: likewise.
        fused: likewise.
        decoupled_weight_decay: subtract :math:`\gamma\lambda\theta` instead, as AdamW.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.Adam(nn.Linear(2, 1).parameters()).param_groups[0]["betas"]
        (0.9, 0.999)

    References:
        torch.optim.Adam; Kingma and Ba, 2014; Reddi et al., 2018
    """

    _elementwise: ClassVar[bool] = True
    _drivable: ClassVar[tuple[str, ...]] = ("betas", "weight_decay")
    _sometimes: ClassVar[tuple[str, ...]] = ("max_exp_avg_sq",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        refuse_flags(
            "Adam",
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        require(options["lr"] >= 0.0, "learning rate", options["lr"])
        require(options["eps"] >= 0.0, "epsilon value", options["eps"])
        require(options["weight_decay"] >= 0.0, "weight_decay value", options["weight_decay"])
        betas_of(options)

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return adam_tx(
            lr,
            group["betas"],
            group["eps"],
            group["weight_decay"],
            group["amsgrad"],
            maximize=group["maximize"],
            decoupled_weight_decay=group["decoupled_weight_decay"],
        )


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :math:`\gamma\lambda\theta` is subtracted from the parameter.

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`.
        lr: learning rate.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: :math:`\lambda`.
        amsgrad: divide by the largest second moment so far.
        maximize: go up the gradient instead of down.
        foreach: torch's kernel choice; only None or False.
        capturable: torch's kernel choice; only False.
        differentiable: likewise.
        fused: likewise.

    Raises:
        ArgumentError: a hyper-parameter out of its range.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.AdamW(nn.Linear(2, 1).parameters()).param_groups[0]["weight_decay"]
        0.01

    References:
        torch.optim.AdamW; Loshchilov and Hutter, 2017
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )
