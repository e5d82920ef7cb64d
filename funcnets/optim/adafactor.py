"""Adafactor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim._parts import number, refuse_flags, wide
from funcnets.optim._rules import rate_at
from funcnets.optim.optimizer import Optimizer

__all__ = ["Adafactor", "adafactor_tx"]


class AdafactorState(NamedTuple):
    """Steps; of matrices the means of the squares along rows and columns, of vectors the squares."""

    step: jax.Array
    row_var: Any
    col_var: Any
    variance: Any


def adafactor_tx(
    lr: Any = 1e-2,
    beta2_decay: float = -0.8,
    eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: Any = 0.0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformation:
    """PyTorch's Adafactor as a pure optax transformation; see :class:`Adafactor` for the arguments.

    Returns:
        An ``optax.GradientTransformation``; ``lr`` may be a schedule here.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import optim
        >>> tx = optim.adafactor_tx(lr=0.1)
        >>> params = jnp.full((2, 2), 2.0)
        >>> tx.update(params, tx.init(params), params)[0].round(3).tolist()
        [[-0.20000000298023224, -0.20000000298023224], [-0.20000000298023224, -0.20000000298023224]]
    """

    def init(params: Any) -> AdafactorState:
        def zeros(axis: int | None) -> Any:
            return jax.tree.map(lambda p: _without(p, axis), params)

        return AdafactorState(jnp.zeros((), jnp.int32), zeros(-1), zeros(-2), zeros(None))

    def rule(
        g: Any, p: Any, row: Any, col: Any, var: Any, *, rate: jax.Array, decay: jax.Array
    ) -> tuple[jax.Array, Any, Any, Any]:
        real = wide(p.dtype)
        eps1 = float(jnp.finfo(p.dtype).eps) if eps[0] is None else eps[0]
        g, p, rate, decay = (a.astype(real) for a in (-g if maximize else g, p, rate, decay))
        relative = jnp.minimum(rate, decay[1])
        squares = g * g

        def mean(old: jax.Array, new: jax.Array) -> jax.Array:
            before = old.astype(real)
            return (before + decay[0] * (new - before)).astype(old.dtype)

        if var is None:
            row = mean(row, squares.mean(-1, keepdims=True))
            col = mean(col, squares.mean(-2, keepdims=True))
            wide_row = row.astype(real)
            total = jnp.maximum(wide_row.mean(-2, keepdims=True), eps1)
            estimate = wide_row * col.astype(real) / total
        else:
            var = mean(var, squares)
            estimate = var.astype(real)
        change = g * jax.lax.rsqrt(jnp.maximum(estimate, eps1 * eps1))
        size = jnp.maximum(eps[1], _rms(p)) * relative
        update = -size / jnp.maximum(1.0, _rms(change) / d) * change
        if isinstance(weight_decay, jax.Array) or weight_decay:
            # The parameter decays first, and what it then is, is changed.
            update = update - rate * number(weight_decay, real) * p
        return update, row, col, var

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdafactorState]:
        if params is None:
            raise ArgumentError(
                "adafactor_tx scales its steps by the parameters and needs them: update(grads, state, params)"
            )
        step = state.step + 1
        rate = rate_at(lr, step)
        count = step.astype(rate.dtype)
        decay = jnp.stack([count**beta2_decay, 1 / jnp.sqrt(count)])
        structure = jax.tree.structure(updates)
        rows: list[Any] = [structure.flatten_up_to(t) for t in (updates, params, *state[1:])]
        done = [rule(*row, rate=rate, decay=decay) for row in zip(*rows, strict=True)]
        columns = list(zip(*done, strict=True)) or [()] * 4
        changes = [c.astype(p.dtype) for c, p in zip(columns[0], rows[1], strict=True)]
        kept = (structure.unflatten(column) for column in columns[1:])
        return structure.unflatten(changes), AdafactorState(step, *kept)

    return optax.GradientTransformation(init, update)


def _without(param: Any, axis: int | None) -> jax.Array | None:
    """Zeros for the means along an axis of a matrix; with None, for all squares of a vector."""
    if (len(param.shape) > 1) == (axis is None):
        return None
    shape = list(param.shape)
    if axis is not None:
        shape[axis] = 1
    return jnp.zeros(shape, param.dtype)


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt((x * x).sum() / x.size)


class Adafactor(Optimizer):
    r"""Adafactor: second moments of matrices as an outer product of row and column means.

    .. math::
        \beta_t &= 1 - t^{\tau}, \qquad \rho_t = \min(\gamma, 1/\sqrt t), \qquad
        \alpha_t = \max(\epsilon_2, \operatorname{RMS}(\theta_{t-1}))\,\rho_t \\
        R_t &= \beta_t R_{t-1} + (1 - \beta_t)\operatorname{mean}_{col}(G_t^2), \qquad
        C_t = \beta_t C_{t-1} + (1 - \beta_t)\operatorname{mean}_{row}(G_t^2) \\
        V_t &= R_t C_t / \max(\operatorname{mean}(R_t), \epsilon_1), \qquad
        U_t = G_t / \max(\sqrt{V_t}, \epsilon_1) \\
        \theta_t &= \theta_{t-1} - \gamma\lambda\,\theta_{t-1}
        - \alpha_t\,U_t / \max(1, \operatorname{RMS}(U_t) / d)

    Of a vector, :math:`V_t` is the running mean of the squares itself.

    Args:
        params: parameters, named parameters or groups; see :class:`Optimizer`. They must be real.
        lr: :math:`\gamma`, the largest relative step. Changing ``param_groups[i]["lr"]`` never recompiles.
        beta2_decay: :math:`\tau`, at most 0.
        eps: :math:`(\epsilon_1, \epsilon_2)`; None is the spacing of the dtype's numbers at 1.
        d: largest root mean square of a change, at least 1.
        weight_decay: :math:`\lambda`.
        foreach: torch's kernel choice; only None or False.
        maximize: go up the gradient instead of down.

    Raises:
        ArgumentError: a hyper-parameter out of its range.
        DTypeError: a complex parameter.

    Examples:
        >>> from funcnets import nn, optim
        >>> optim.Adafactor(nn.Linear(2, 1).parameters()).param_groups[0]["beta2_decay"]
        -0.8

    References:
        torch.optim.Adafactor; Shazeer and Stern, 2018
    """

    _drivable: ClassVar[tuple[str, ...]] = ("weight_decay",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults=defaults)

    def _check(self, options: Mapping[str, Any]) -> None:
        refuse_flags("Adafactor", foreach=options["foreach"])
        eps = options["eps"]
        if not isinstance(eps, (tuple, list)) or len(eps) != 2:
            raise ArgumentError(f"eps must be a pair of numbers, but got {describe(eps)}")
        for fits, what, value in (
            (options["lr"] >= 0.0, "Learning rate should be >= 0", options["lr"]),
            (options["beta2_decay"] <= 0.0, "beta2_decay should be <= 0", options["beta2_decay"]),
            (eps[0] is None or eps[0] >= 0.0, "epsilon1 should be >= 0", eps[0]),
            (eps[1] >= 0.0, "epsilon2 should be >= 0", eps[1]),
            (options["d"] >= 1.0, "Clipping threshold d should be >= 1", options["d"]),
            (
                options["weight_decay"] >= 0.0,
                "weight_decay should be >= 0",
                options["weight_decay"],
            ),
        ):
            if not fits:
                raise ArgumentError(f"{what} but is: {value}")
        if any(
            jnp.issubdtype(cell.dtype, jnp.complexfloating) for cell in options.get("params", ())
        ):
            raise DTypeError("Adafactor does not support complex parameters")

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return adafactor_tx(
            lr,
            group["beta2_decay"],
            tuple(group["eps"]),
            group["d"],
            group["weight_decay"],
            maximize=group["maximize"],
        )
