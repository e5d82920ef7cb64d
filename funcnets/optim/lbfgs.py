"""L-BFGS, with PyTorch's line search."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from funcnets.core.cell import Buffer, Parameter
from funcnets.core.convert import refuse_tracer
from funcnets.core.state_dict import store
from funcnets.errors import ArgumentError, DTypeError
from funcnets.optim._lbfgs_search import (
    DONE,
    Flat,
    LBFGSState,
    Search,
    Settings,
    advance,
    begin,
    fresh,
)
from funcnets.optim.gradients import gradients_of
from funcnets.optim.memory import Memory, Slot
from funcnets.optim.optimizer import Optimizer, call_until, evaluated, in_call
from funcnets.optim.state_dict import Loaded, fitted

__all__ = ["LBFGS", "lbfgs_tx"]


def lbfgs_tx(
    lr: Any = 1,
    max_iter: int = 20,
    max_eval: int | None = None,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    history_size: int = 100,
    line_search_fn: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """PyTorch's L-BFGS as a pure optax transformation; see :class:`LBFGS` for the arguments.

    One ``update`` is one of PyTorch's steps: up to ``max_iter`` iterations. It evaluates the objective by
    itself, so it needs it: ``update(grads, state, params, value=value, value_fn=value_fn)``, with value
    and gradient at ``params`` and the function that gives the value.

    Returns:
        An ``optax.GradientTransformationExtraArgs``.

    Examples:
        >>> import jax, jax.numpy as jnp, optax
        >>> from funcnets import optim
        >>> tx = optim.lbfgs_tx(line_search_fn="strong_wolfe")
        >>> def loss(x):
        ...     return ((x - 3.0) ** 2).sum()
        >>> x = jnp.zeros(2)
        >>> value, grads = jax.value_and_grad(loss)(x)
        >>> updates, state = tx.update(grads, tx.init(x), x, value=value, value_fn=loss)
        >>> optax.apply_updates(x, updates).tolist()
        [3.0, 3.0]
    """
    line_search = _line_search(line_search_fn, history_size)
    most = max_iter * 5 // 4 if max_eval is None else max_eval
    settings = Settings(max_iter, most, tolerance_grad, tolerance_change)

    def init(params: Any) -> LBFGSState:
        return fresh(Flat.of(jax.tree.leaves(params)), history_size)

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        value: Any = None,
        value_fn: Callable[[Any], Any] | None = None,
        **extra: Any,
    ) -> tuple[Any, LBFGSState]:
        if params is None or value is None or value_fn is None:
            raise ArgumentError(
                "lbfgs_tx evaluates the objective by itself: update(grads, state, params, value=value, value_fn=value_fn)"
            )
        leaves, structure = jax.tree.flatten(params)
        flat = Flat.of(leaves)

        def vector(gradient: Any) -> jax.Array:
            # JAX's gradient of a complex number points to the conjugate of the steepest ascent.
            return flat.ravel([jnp.conj(g) for g in structure.flatten_up_to(gradient)])

        def evaluate(s: Search) -> Search:
            value, gradient = jax.value_and_grad(value_fn)(structure.unflatten(flat.unravel(s.x)))
            return advance(line_search, settings, lr, s, value, vector(gradient))

        search = begin(state, flat.ravel(leaves))
        search = advance(line_search, settings, lr, search, value, vector(updates))
        search = jax.lax.while_loop(lambda s: s.phase != DONE, evaluate, search)
        news = flat.unravel(search.x)
        changes = [new - old for new, old in zip(news, leaves, strict=True)]
        return structure.unflatten(changes), search.state

    return optax.GradientTransformationExtraArgs(init, update)


def _line_search(name: str | None, history_size: int) -> bool:
    """Whether there is a line search; refuses options that cannot be."""
    if name not in (None, "strong_wolfe"):
        raise ArgumentError(f"only 'strong_wolfe' is supported, but got {name!r}")
    if history_size < 1:
        raise ArgumentError(f"history_size must be at least 1, but got {history_size}")
    return name is not None


@functools.partial(jax.jit, static_argnums=(0, 1))
def _received(
    line_search: bool,
    flat: Flat,
    settings: Settings,
    lr: Any,
    search: Search,
    value: Any,
    gradients: Sequence[Any],
) -> tuple[Search, list[jax.Array]]:
    """The next state of an eager search, and the parameters that it asks for."""
    search = advance(line_search, settings, lr, search, value, flat.ravel(gradients))
    return search, flat.unravel(search.x)


@functools.partial(jax.jit, static_argnums=0)
def _begun(flat: Flat, state: LBFGSState, params: Sequence[Any]) -> Search:
    return begin(state, flat.ravel(params))


class LBFGS(Optimizer):
    r"""L-BFGS: steps along an approximate inverse Hessian made of the last steps and gradients.

    .. math::
        \theta_{k+1} = \theta_k - t_k H_k \nabla f(\theta_k)

    where :math:`H_k` follows from the last ``history_size`` differences of positions and gradients by
    the two-loop recursion. Each call of ``step`` makes up to ``max_iter`` such iterations and evaluates the
    function several times, so it takes a closure:

    .. code-block:: python

        def closure():
            return fn.value_and_grad(lambda m: criterion(m(x), y))(model)

        loss = optimizer.step(closure)

    Under ``fn.jit`` the whole step is one compiled loop. Eagerly it is a Python loop that calls the closure,
    which may itself be compiled with ``fn.jit``. There is one group of parameters only.

    Args:
        params: parameters, or named parameters; see :class:`Optimizer`.
        lr: the step :math:`t_k` if there is no line search, and its first trial otherwise. Changing
            ``param_groups[0]["lr"]`` never recompiles.
        max_iter: iterations in one step at most.
        max_eval: evaluations in one step at most; ``max_iter * 5 // 4`` if None.
        tolerance_grad: done when no entry of the gradient is larger.
        tolerance_change: done when the value or all parameters change less.
        history_size: how many differences are kept. The memory for them, twice this many times the
            parameters, is taken with the first step.
        line_search_fn: None, or ``"strong_wolfe"`` for steps that satisfy the strong Wolfe conditions.

    Raises:
        ArgumentError: a hyper-parameter out of its range, or several groups.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn, optim
        >>> model = nn.Linear(3, 1)
        >>> optimizer = optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
        >>> x, y = jnp.eye(3), jnp.array([[1.0], [2.0], [3.0]])
        >>> loss = optimizer.step(lambda: fn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model))
        >>> bool(((model(x) - y) ** 2).mean() < 1e-6)
        True

    References:
        torch.optim.LBFGS; Nocedal and Wright, Numerical Optimization, chapter 7
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults=defaults)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Refused after the first: all parameters are one vector; see :class:`Optimizer`."""
        if self.param_groups:
            raise ArgumentError("LBFGS doesn't support per-parameter options (parameter groups)")
        super().add_param_group(param_group)
        group = self.param_groups[0]
        group.memories.append(Memory(group.cells))

    def _check(self, options: Mapping[str, Any]) -> None:
        if not options["lr"] >= 0.0:
            raise ArgumentError(f"Invalid learning rate: {options['lr']}")
        _line_search(options["line_search_fn"], options["history_size"])

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        return lbfgs_tx(lr, **{name: group[name] for name in self.defaults if name != "lr"})

    # --- the step ---

    def _slots(self) -> list[Slot]:
        group = self.param_groups[0]
        return group.memories[0].slots(self._transformation(group, 0.0))[0]

    def _step(self, grads: Any) -> Any:
        if not callable(grads):
            raise DTypeError(
                "LBFGS evaluates the function several times in a step, so its step takes a closure: "
                "optimizer.step(lambda: fn.value_and_grad(loss_fn)(model))"
            )
        self._opt_called = True
        search = self._step_in_call if in_call() else self._step_outside
        return search(grads)

    def _results(self, out: Any) -> tuple[Any, list[jax.Array]]:
        """The scalar to minimise, and the gradients of all parameters in PyTorch's convention."""
        value, grads = out
        value = value[0] if isinstance(value, tuple) else value  # has_aux
        found = gradients_of(self.param_groups, grads, type(self).__name__)
        cells = self.param_groups[0].cells
        zeros = (jnp.zeros(c.shape, c.dtype) if c not in found else None for c in cells)
        return value, [
            jnp.conj(found[c]) if zero is None else zero
            for c, zero in zip(cells, zeros, strict=True)
        ]

    def _written(self, values: Sequence[Any]) -> Iterator[tuple[Parameter, Any]]:
        """New values of the parameters that are trained; the others have no gradient and stay."""
        for cell, value in zip(self.param_groups[0].cells, values, strict=True):
            if cell.requires_grad:
                yield cell, value

    def _step_in_call(self, closure: Callable[[], Any]) -> Any:
        frame, group, slots = self._frame(), self.param_groups[0], self._slots()
        flat, settings = Flat.of(group.cells), Settings(*(group[n] for n in Settings._fields))
        line_search = group["line_search_fn"] is not None
        state = LBFGSState(*(frame.read(slot.buffer).astype(slot.leaf.dtype) for slot in slots))
        lr = frame.read(group.rate)

        def receive(search: Search, out: Any) -> Search:
            value, gradients = self._results(out)
            return advance(line_search, settings, lr, search, value, flat.ravel(gradients))

        out, search = call_until(
            lambda: evaluated(closure),
            receive,
            begin(state, flat.ravel([frame.read(cell) for cell in group.cells])),
            lambda search: dict(self._written(flat.unravel(search.x))),
            lambda search: search.phase == DONE,
        )
        for cell, value in self._written(flat.unravel(search.x)):
            frame.write(cell, value, "a parameter")
        for slot, value in zip(slots, search.state, strict=True):
            frame.write(slot.buffer, value, "an optimizer's memory")
        return out[0]

    def _step_outside(self, closure: Callable[[], Any]) -> Any:
        group, slots = self.param_groups[0], self._slots()
        flat, settings = Flat.of(group.cells), Settings(*(group[n] for n in Settings._fields))
        line_search = group["line_search_fn"] is not None
        state = LBFGSState(*(slot.buffer.data.astype(slot.leaf.dtype) for slot in slots))
        before = [cell.data for cell in group.cells]
        search: Search | None = None
        first: Any = None
        try:
            while search is None or int(search.phase) != DONE:
                out = evaluated(closure)
                value, gradients = self._results(out)
                refuse_tracer(value, "optimizer.step(closure)")
                if search is None:
                    first, search = out[0], _begun(flat, state, before)
                search, params = _received(
                    line_search,
                    flat,
                    settings,
                    self._rate(),
                    search,
                    jnp.asarray(value),
                    gradients,
                )
                for cell, new in self._written(params):
                    store(cell, new)
        except BaseException:
            for cell, old in zip(group.cells, before, strict=True):
                store(cell, old)
            raise
        for slot, new in zip(slots, search.state, strict=True):
            store(slot.buffer, new)
        return first

    def _rate(self) -> jax.Array:
        rate: Buffer | None = self.param_groups[0].rate
        return jnp.asarray(1.0) if rate is None else rate.data

    # --- saving and loading: all in the first parameter's entry, histories as lists ---

    def _states(self, group: Any) -> dict[Parameter, dict[str, Any]]:
        self._refuse_inside("the state of LBFGS was asked for")
        if not group.memories[0].live:
            return {}
        state = LBFGSState(*(slot.buffer.data for slot in self._slots()))
        if not int(state.func_evals):
            return {}
        entry: dict[str, Any] = {
            name: int(getattr(state, name)) for name in ("func_evals", "n_iter")
        }
        if entry["n_iter"]:
            entry |= state._asdict() | entry | {"prev_loss": float(state.prev_loss)}
            count = int((state.ro != 0).sum())
            for name in _HISTORIES:
                entry[name] = list(entry[name][:count])
        return {group.cells[0]: entry}

    def _read_states(
        self,
        options: Mapping[str, Any],
        entries: Mapping[int, Mapping[str, Any]],
        names: list[str],
        problems: list[str],
    ) -> list[Loaded]:
        cells = options["params"]
        start = fresh(Flat.of(cells), options["history_size"])
        for place in entries:
            if place != 0:
                problems.append(f"{names[place]}: LBFGS keeps its state with the first parameter")
        entry = {k: v for k, v in dict(entries.get(0, {})).items() if v is not None and k != "al"}
        if not entry:
            return []
        needed = LBFGSState._fields if entry.get("n_iter") else ("func_evals", "n_iter")
        if missing := [name for name in needed if name not in entry]:
            problems.append(f"{names[0]}: missing {', '.join(missing)}")
        if unknown := [name for name in entry if name not in LBFGSState._fields]:
            problems.append(f"{names[0]}: unknown {', '.join(unknown)}")
        lengths = {name: len(_rows(entry[name])) for name in _HISTORIES if name in entry}
        size = options["history_size"]
        if len(set(lengths.values())) > 1 or any(n > size for n in lengths.values()):
            problems.append(
                f"{names[0]}: {', '.join(lengths)} must have one length, {size} at most, "
                f"but have {', '.join(map(str, lengths.values()))}"
            )
            return []
        values: dict[tuple[str, int | None], jax.Array] = {}
        for name in needed:
            if name not in entry:
                continue
            whole = getattr(start, name)
            if name in _HISTORIES:
                like = jax.ShapeDtypeStruct(whole.shape[1:], whole.dtype)
                rows = [
                    fitted(row, like, f"{names[0]}: {name}[{i}]", problems)
                    for i, row in enumerate(_rows(entry[name]))
                ]
                found = [row for row in rows if row is not None]
                array = whole.at[: len(found)].set(jnp.stack(found)) if found else whole
            else:
                like = jax.ShapeDtypeStruct(whole.shape, whole.dtype)
                array = fitted(entry[name], like, f"{names[0]}: {name}", problems)
            if array is not None:
                values[name, None] = array
        return [(list(range(len(cells))), values)]


_HISTORIES = ("old_dirs", "old_stps", "ro")


def _rows(history: Any) -> list[Any]:
    """The entries of a history, be it a list or an array."""
    return [history[i] for i in range(len(history))]
