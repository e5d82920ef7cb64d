"""``GradScaler``: the loss scale that float16 needs, kept in cells, so that ``fn.jit`` threads it.

Whether a step is skipped is data: the new values are computed and the old ones kept. So a compiled
training step stays one program whatever the gradients are.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets._args import describe
from funcnets.amp.scaling import LossScale, keep_if, unscale, update_scale
from funcnets.core.cell import Buffer, Cell, Stateful
from funcnets.errors import ArgumentError, DTypeError, StateDictError, UnsupportedError
from funcnets.init import constant
from funcnets.optim.gradients import gradients_of
from funcnets.optim.optimizer import Optimizer

__all__ = ["GradScaler"]

READY, UNSCALED, STEPPED = range(3)
#: The keys of torch's state_dict, and the cells behind them.
_KEYS = {
    "scale": "_scale",
    "growth_factor": "_growth_factor",
    "backoff_factor": "_backoff_factor",
    "growth_interval": "_growth_interval",
    "_growth_tracker": "_growth_tracker",
}


class _Record:
    """How far the step of one optimizer has got since the last update, and what was found."""

    def __init__(self) -> None:
        self.stage = Buffer((), dtype=jnp.int8)
        self.found_inf = Buffer((), dtype=jnp.bool_)

    def known(self) -> int | None:
        """The stage, or None where only the running program will know it."""
        stage = self.stage.data
        return None if isinstance(stage, Tracer) else int(stage)

    def note(self, stage: int, found_inf: Any) -> None:
        self.stage.data = _constant(stage, jnp.int8)
        self.found_inf.data = found_inf


def _constant(value: Any, dtype: Any) -> jax.Array:
    """A number as an array that is known while a function is traced, too."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(np.asarray(value, dtype))


class GradScaler(Stateful):
    r"""Scales the loss for float16, and skips the steps whose gradients are inf or NaN.

    The loss is multiplied by a scale :math:`s` before it is differentiated, and the gradients are divided
    by it, so that small ones survive float16. If a gradient overflows, the step is left out and :math:`s`
    multiplied by ``backoff_factor``; after ``growth_interval`` good steps in a row it is multiplied by
    ``growth_factor``. bfloat16 needs none of this.

    The state is in cells: it works inside a function under ``fn.jit``, where a step that is skipped leaves
    parameters and optimizer as they were without compiling anything, and outside of one. Gradients
    are values here, so :meth:`unscale_` returns them and :meth:`step` takes them.

    Args:
        init_scale: the first scale.
        growth_factor: above 1.
        backoff_factor: below 1.
        growth_interval: a number of steps.
        enabled: False makes all methods pass everything through.

    Raises:
        ArgumentError: a factor out of its range.
        DTypeError: something else than numbers; torch's ``device`` has no counterpart.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import amp, nn, optim
        >>> model = nn.Linear(3, 1)
        >>> optimizer, scaler = optim.SGD(model.parameters(), lr=0.1), amp.GradScaler()
        >>> @fn.jit
        ... def train_step(x, y):
        ...     def loss_fn(m):
        ...         with amp.autocast(jnp.float16):
        ...             loss = nn.functional.mse_loss(m(x), y)
        ...         return scaler.scale(loss), loss
        ...     (_, loss), grads = fn.value_and_grad(loss_fn, has_aux=True)(model)
        ...     grads = scaler.unscale_(optimizer, grads)  # only needed to clip them
        ...     scaler.step(optimizer, grads)
        ...     scaler.update()
        ...     return loss
        >>> before = model.weight.data
        >>> _ = train_step(jnp.full((4, 3), jnp.inf), jnp.ones((4, 1)))
        >>> bool((model.weight == before).all()), scaler.get_scale()
        (True, 32768.0)

    References:
        torch.amp.GradScaler; Micikevicius et al., Mixed precision training, 2017
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._enabled = bool(enabled)
        self._scale = Buffer((), constant(_number("init_scale", init_scale)))
        self._growth_tracker = Buffer((), dtype=jnp.int32)
        self._growth_factor = Buffer((), constant(_above_one(growth_factor)))
        self._backoff_factor = Buffer((), constant(_below_one(backoff_factor)))
        self._growth_interval = Buffer((), constant(_interval(growth_interval)), dtype=jnp.int32)
        # One record waits for an optimizer: a cell that a trace creates costs a second trace.
        self._spare = [_Record()]
        self._records: weakref.WeakKeyDictionary[Optimizer, _Record] = weakref.WeakKeyDictionary()

    # --- for fn.jit ---

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        yield from ((key, getattr(self, name)) for key, name in _KEYS.items())
        for i, record in enumerate([*self._records.values(), *self._spare]):
            yield f"{i}.stage", record.stage
            yield f"{i}.found_inf", record.found_inf

    def _will_write(self) -> Iterator[Cell]:
        if self._enabled:
            yield from (self._scale, self._growth_tracker)
            for record in (*self._records.values(), *self._spare):
                yield from (record.stage, record.found_inf)

    def _fingerprint(self) -> Any:
        return type(self), self._enabled

    # --- the step ---

    def scale(self, outputs: Any) -> Any:
        """The outputs, multiplied by the scale: what is to be differentiated.

        Args:
            outputs: the loss, or a list or tuple of losses.

        Returns:
            Likewise; a single number in half precision comes out in float32.

        Raises:
            DTypeError: something else than floating point arrays.
        """
        if not self._enabled:
            return outputs
        if isinstance(outputs, (list, tuple)):
            return type(outputs)(self.scale(output) for output in outputs)
        dtype = getattr(outputs, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise DTypeError(
                f"outputs must be a floating point array or a list of them, but got {describe(outputs)}"
            )
        wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
        scaled = jnp.asarray(outputs).astype(wide) * self._scale.data.astype(wide)
        return scaled.astype(dtype) if scaled.ndim else scaled

    def unscale_(self, optimizer: Optimizer, grads: Any) -> Any:
        """The gradients of the loss itself, for what looks at them before the step: clipping, say.

        Once for an optimizer between two updates, and when all its gradients are there. The gradients
        of parameters that it does not hold stay as they are.

        Args:
            optimizer: the optimizer whose step follows.
            grads: what its ``step`` takes: the gradients of the scaled loss.

        Returns:
            A tree like ``grads``, to be given to :meth:`step`.

        Raises:
            ArgumentError: they have been unscaled already, or the step was made.
            DTypeError: gradients in float16.
        """
        if not self._enabled:
            return grads
        record = self._record(optimizer)
        stage = record.known()
        if stage == UNSCALED:
            raise ArgumentError(
                "unscale_() has already been called on this optimizer since the last update(): once is enough"
            )
        if stage == STEPPED:
            raise ArgumentError(
                "unscale_() is being called after step(): call update() at the end of every iteration"
            )
        grads, found_inf = self._unscaled(optimizer, grads, self._scale.data)
        record.note(UNSCALED, found_inf)
        return grads

    def step(self, optimizer: Optimizer, grads: Any, *args: Any, **kwargs: Any) -> Any:
        """The optimizer's step with unscaled gradients, unless one of them is inf or NaN.

        Args:
            optimizer: the optimizer.
            grads: what its ``step`` takes: the gradients of the scaled loss, or what :meth:`unscale_`
                made of them.
            *args: further arguments of the optimizer's ``step``.
            **kwargs: likewise.

        Returns:
            What the optimizer's ``step`` returns; None if it was skipped outside of a compiled function.

        Raises:
            ArgumentError: the step was made already since the last update.
            UnsupportedError: a closure in place of the gradients.
        """
        if not self._enabled:
            return optimizer.step(grads, *args, **kwargs)
        if callable(grads) or "closure" in kwargs:
            raise UnsupportedError(
                "Closure use is not currently supported if GradScaler is enabled: "
                "pass the gradients of the scaled loss, or GradScaler(enabled=False)"
            )
        record = self._record(optimizer)
        stage = record.known()
        if stage == STEPPED:
            raise ArgumentError(
                "step() has already been called since the last update(): "
                "call update() at the end of every iteration"
            )
        if stage == READY:
            grads = self.unscale_(optimizer, grads)
        elif stage is None:  # an input of a compiled function: whether they are unscaled is data
            done = record.stage.data == UNSCALED
            scale = jnp.where(done, jnp.ones_like(self._scale.data), self._scale.data)
            grads, found_inf = self._unscaled(optimizer, grads, scale)
            record.note(UNSCALED, jnp.where(done, record.found_inf.data, found_inf))
        found_inf = record.found_inf.data
        if isinstance(found_inf, Tracer):
            result = _step_unless(found_inf, optimizer, grads, args, kwargs)
        else:
            result = None if bool(found_inf) else optimizer.step(grads, *args, **kwargs)
        record.note(STEPPED, found_inf)
        return result

    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to what was found since the last update; the end of an iteration.

        Args:
            new_scale: a scale to set instead.

        Raises:
            ArgumentError: no optimizer was unscaled or stepped since the last update.
            DTypeError: ``new_scale`` is not a number.
        """
        if not self._enabled:
            return
        records = list(self._records.values())
        if new_scale is not None:
            if jnp.shape(new_scale) != () or not jnp.issubdtype(
                jnp.result_type(new_scale), jnp.number
            ):
                raise DTypeError(f"new_scale must be a number, but got {describe(new_scale)}")
            self._scale.data = jnp.asarray(new_scale).astype(jnp.float32)
        else:
            stages = [record.known() for record in records]
            if not any(stage is None or stage != READY for stage in stages):
                raise ArgumentError(
                    "No inf checks were recorded prior to update: call step(optimizer, grads) before update()"
                )
            checked = [record.stage.data != READY for record in records]
            found = [record.found_inf.data for record in records]
            old = LossScale(self._scale.data, self._growth_tracker.data)
            settings = (self._growth_factor, self._backoff_factor, self._growth_interval)
            new = update_scale(old, jnp.stack(found).any(), *(cell.data for cell in settings))
            new = keep_if(~jnp.stack(checked).any(), old, new)
            self._scale.data, self._growth_tracker.data = new
        for record in records:
            record.note(READY, _constant(False, jnp.bool_))

    def _record(self, optimizer: Optimizer) -> _Record:
        if not isinstance(optimizer, Optimizer):
            raise DTypeError(
                f"expected an optimizer of funcnets.optim, but got {describe(optimizer)}; for an optax "
                "transformation use optim.Optimizer(params, tx), or the functions of funcnets.amp"
            )
        if optimizer not in self._records:
            self._records[optimizer] = self._spare.pop() if self._spare else _Record()
        return self._records[optimizer]

    def _unscaled(self, optimizer: Optimizer, grads: Any, scale: jax.Array) -> tuple[Any, Any]:
        """Those of the optimizer's own gradients that are in the tree, unscaled; the others as they are."""
        found = gradients_of(optimizer.param_groups, grads, type(optimizer).__name__)
        own = {id(value) for value in found.values()}
        leaves, structure = jax.tree.flatten(grads)
        mine = [i for i, leaf in enumerate(leaves) if id(leaf) in own]
        run = unscale if isinstance(scale, Tracer) else _compiled_unscale
        done, found_inf = run({i: leaves[i] for i in mine}, scale)
        for i in mine:
            leaves[i] = done[i]
        return jax.tree.unflatten(structure, leaves), found_inf

    # --- what it is set to ---

    def get_scale(self) -> Any:
        """The scale: a Python float, inside a compiled function an array, and 1.0 if not enabled.

        Returns:
            A number.
        """
        return _python(self._scale.data, float) if self._enabled else 1.0

    def get_growth_factor(self) -> Any:
        """The factor by which the scale grows.

        Returns:
            A number.
        """
        return _python(self._growth_factor.data, float)

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale grows.

        Args:
            new_factor: above 1.
        """
        self._growth_factor.data = _constant(_above_one(new_factor), jnp.float32)

    def get_backoff_factor(self) -> Any:
        """The factor by which the scale shrinks.

        Returns:
            A number.
        """
        return _python(self._backoff_factor.data, float)

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale shrinks.

        Args:
            new_factor: below 1.
        """
        self._backoff_factor.data = _constant(_below_one(new_factor), jnp.float32)

    def get_growth_interval(self) -> Any:
        """After how many good steps in a row the scale grows.

        Returns:
            A number.
        """
        return _python(self._growth_interval.data, int)

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many good steps in a row the scale grows.

        Args:
            new_interval: a number of steps.
        """
        self._growth_interval.data = _constant(_interval(new_interval), jnp.int32)

    def is_enabled(self) -> bool:
        """Whether it does anything.

        Returns:
            What was given as ``enabled``.
        """
        return self._enabled

    # --- saving ---

    def state_dict(self) -> dict[str, Any]:
        """The scale, its settings and the number of good steps, under torch's names, as numbers.

        Returns:
            A dict that torch's ``GradScaler.load_state_dict`` takes, too; an empty one if not enabled.
        """
        if not self._enabled:
            return {}
        return {
            key: _python(
                getattr(self, name).data, int if key.endswith(("interval", "tracker")) else float
            )
            for key, name in _KEYS.items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, here or in torch; nothing if not enabled.

        Args:
            state_dict: the dict.

        Raises:
            StateDictError: it is empty, or its names are others.
        """
        if not self._enabled:
            return
        if len(state_dict) == 0:
            raise StateDictError(
                "The source state dict is empty, possibly because it was saved from a disabled instance of "
                "GradScaler."
            )
        missing, unknown = sorted(_KEYS - state_dict.keys()), sorted(state_dict.keys() - _KEYS)
        if missing or unknown:
            raise StateDictError(
                f"this is not the state of a GradScaler: missing {missing}, unexpected {unknown}"
            )
        checked = {
            "scale": _number("scale", state_dict["scale"]),
            "growth_factor": _above_one(state_dict["growth_factor"]),
            "backoff_factor": _below_one(state_dict["backoff_factor"]),
            "growth_interval": _interval(state_dict["growth_interval"]),
            "_growth_tracker": _number("_growth_tracker", state_dict["_growth_tracker"]),
        }
        for key, value in checked.items():
            cell = getattr(self, _KEYS[key])
            cell.data = _constant(value, cell.dtype)

    def __getstate__(self) -> dict[str, Any]:
        if any(record.known() != READY for record in self._records.values()):
            raise ArgumentError(
                "A GradScaler instance may only be pickled or copied at the beginning of an iteration, or at "
                "the end after scaler.update()."
            )
        return {k: v for k, v in vars(self).items() if k not in ("_records", "_spare", "_jitted")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._spare, self._records = [_Record()], weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        if not self._enabled:
            return "GradScaler(enabled=False)"
        state = self.state_dict()
        return (
            f"GradScaler(scale={state['scale']}, growth_factor={state['growth_factor']}, "
            f"backoff_factor={state['backoff_factor']}, growth_interval={state['growth_interval']})"
        )


# One program for each set of shapes, outside of compiled functions.
_compiled_unscale = jax.jit(unscale)


def _step_unless(
    found_inf: jax.Array, optimizer: Optimizer, grads: Any, args: Any, kwargs: Any
) -> Any:
    """A step whose results are dropped if ``found_inf``: which of the two is data."""
    before = [(cell, cell.data) for _, cell in optimizer._cells() if cell.settled]
    result = optimizer.step(grads, *args, **kwargs)
    for cell, old in before:
        new = cell.data
        if new is not old:
            cell.data = keep_if(found_inf, old, new)
    return result


def _python(value: Any, kind: type) -> Any:
    return value if isinstance(value, Tracer) else kind(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.number, jax.Array)):
        raise DTypeError(
            f"{name} must be a number, but got {describe(value)}; GradScaler takes init_scale first, and no device"
        )
    return float(value)


def _above_one(value: Any) -> float:
    if not _number("growth_factor", value) > 1.0:
        raise ArgumentError(f"The growth factor must be > 1.0, but got {value}")
    return float(value)


def _below_one(value: Any) -> float:
    if not _number("backoff_factor", value) < 1.0:
        raise ArgumentError(f"The backoff factor must be < 1.0, but got {value}")
    return float(value)


def _interval(value: Any) -> int:
    if _number("growth_interval", value) != int(value) or int(value) < 1:
        raise ArgumentError(
            f"growth_interval must be a positive number of steps, but got {describe(value)}"
        )
    return int(value)
