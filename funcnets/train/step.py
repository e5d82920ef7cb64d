"""The compiled steps of ``fit``: one that trains, one that only accumulates gradients, one that evaluates.

What a step keeps between calls (sums of gradients, metrics, whether something was not finite) are cells,
so ``fn.jit`` threads and donates them with the model and the optimizer.

A step whose loss or gradients are not finite leaves everything as it was, and so do the steps after it:
the host reads the results a few steps late and still finds the model as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets.core.cell import Buffer, Cell, Stateful
from funcnets.core.jit import jit
from funcnets.core.layer import flatten, nest
from funcnets.core.lifts import eval_shape, value_and_grad
from funcnets.core.module import Module
from funcnets.core.random import stream
from funcnets.nn.utils import clip_grad_norm_, clip_grad_value_
from funcnets.optim.lbfgs import LBFGS
from funcnets.train.metrics import MetricCollection
from funcnets.train.objective import Outcome, cells_of, outcome_of

__all__ = ["Tally", "TrainStep", "ValidationStep"]


class Tally(Stateful):
    """What the steps count: cells that a compiled step writes.

    Args:
        metrics: the metrics.
    """

    def __init__(self, metrics: MetricCollection | None) -> None:
        self.metrics = metrics
        dtype = jnp.result_type(float)
        #: Loss, count and whether all was finite, of the last batch.
        self.report = Buffer((3,), dtype=dtype)
        #: Batches and optimizer steps so far, without those after something that was not finite.
        self.counts = Buffer((2,), dtype=jnp.int32)
        self.halted = Buffer((), dtype=jnp.bool_)
        #: Sums of gradients by name, and of their weights.
        self.sums: dict[str, Buffer] = {}
        self.weight = Buffer((), dtype=dtype)
        leaves, self._structure = jax.tree.flatten(metrics.init() if metrics is not None else {})
        self._metric_cells = [Buffer(leaf.shape, dtype=leaf.dtype) for leaf in leaves]

    # --- for fn.jit ---

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        yield from (("report", self.report), ("counts", self.counts), ("halted", self.halted))
        yield "weight", self.weight
        yield from ((f"sums.{name}", cell) for name, cell in self.sums.items())
        yield from ((f"metrics.{i}", cell) for i, cell in enumerate(self._metric_cells))

    def _fingerprint(self) -> Any:
        return type(self)

    def _will_write(self) -> Iterator[Cell]:
        yield from (self.report, self.counts, self.halted, *self._metric_cells)

    # --- in a step ---

    def watch(self, outcome: Outcome) -> None:
        """Take a batch into the metrics."""
        if self.metrics is not None:
            state = self.metrics.update(self._state(), outcome.outputs, outcome.targets)
            for cell, value in zip(self._metric_cells, jax.tree.leaves(state), strict=True):
                cell.data = value

    def _state(self) -> Any:
        return jax.tree.unflatten(self._structure, [cell.data for cell in self._metric_cells])

    # --- between steps ---

    def begin_fit(self) -> None:
        """Forget all."""
        self.begin_epoch()
        for cell in (self.report, self.counts, self.halted):
            _clear(cell)

    def begin_epoch(self) -> None:
        """Forget what belongs to an epoch."""
        for cell in (self.weight, *self.sums.values(), *self._metric_cells):
            _clear(cell)

    def compute(self) -> dict[str, Any]:
        """The metrics of the epoch, on the host."""
        if self.metrics is None:
            return {}
        values = jax.device_get(self.metrics.compute(self._state()))
        return {name: _plain(value) for name, value in _flat("", values)}

    def state_dict(self) -> dict[str, Any]:
        """The metrics and the sums, for a checkpoint within an epoch."""
        return {name: np.asarray(cell.data) for name, cell in self._cells()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` gave, but for the counts, which are this fit's own."""
        cells = dict(self._cells())
        for name, value in state_dict.items():
            if name.startswith("sums.") and name not in cells:
                self.sums[name[5:]] = cells[name] = Buffer(jnp.asarray(value))
            if name in cells and name not in ("report", "counts", "halted"):
                cells[name].data = jnp.array(value)


def _clear(cell: Buffer) -> None:
    cell.data = jnp.zeros(cell.shape, cell.dtype)


def _plain(value: Any) -> Any:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values of a dict that may hold dicts."""
    if not isinstance(value, dict):
        yield prefix, value
        return
    for name, inner in value.items():
        yield from _flat(f"{prefix}_{name}" if prefix else str(name), inner)


class _Step:
    """What the steps share: the model, the loss and the tally."""

    def __init__(
        self,
        model: Module,
        loss_fn: Callable[[Any, Any], Any],
        metrics: MetricCollection | None,
    ) -> None:
        self.model, self.loss_fn = model, loss_fn
        self.tally = Tally(metrics)

    def settle(self, batch: Any) -> None:
        """Find the shapes of a lazy module from a batch, without computing anything."""
        if any(not cell.settled for _, cell in self.model._cells()):
            eval_shape(lambda batch: outcome_of(self.loss_fn, self.model, batch).loss, batch)

    def _outcome(self, model: Any, batch: Any) -> Outcome:
        outcome = outcome_of(self.loss_fn, model, batch)
        # Unread outputs must not leave the program.
        if self.tally.metrics is None:
            outcome = outcome._replace(outputs=None, targets=None)
        return outcome

    def _reported(self, outcome: Outcome, ok: Any) -> tuple[jax.Array, jax.Array, dict[str, None]]:
        """``(loss, count, ok)``, the named values, and their names as the structure of a dict."""
        dtype = jnp.result_type(float)
        mean = outcome.loss.astype(dtype)
        if outcome.summed:
            mean = mean / outcome.count
        report = jnp.stack([mean, outcome.count, jnp.asarray(ok, dtype)])
        self.tally.report.data = report
        logs = outcome.logs or {}
        values = [jnp.asarray(value, dtype) for value in logs.values()]
        return report, jnp.stack(values) if values else jnp.zeros(0, dtype), dict.fromkeys(logs)


class ValidationStep(_Step):
    """Loss and metrics of a batch.

    Args:
        model: the model, in evaluation mode when the step runs.
        loss_fn: a function of a model and a batch.
        metrics: the metrics.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Callable[[Any, Any], Any],
        metrics: MetricCollection | None,
    ) -> None:
        super().__init__(model, loss_fn, metrics)
        self.run = jit(self._run)

    def _run(self, batch: Any) -> Any:
        outcome = self._outcome(self.model, batch)
        self.tally.watch(outcome)
        return self._reported(outcome, jnp.isfinite(outcome.loss))


class TrainStep(_Step):
    """A step of training, in two programs: ``collect`` only sums gradients, ``run`` also steps.

    Args:
        model: the model.
        optimizer: the optimizer.
        loss_fn: a function of a model and a batch.
        metrics: the metrics.
        accumulate: whether gradients are collected at all.
        clip_norm: the largest norm of all gradients together.
        clip_value: the largest size of an element.
        scaler: a gradient scaler.
        guard: whether something that is not finite stops the training.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Any,
        loss_fn: Callable[[Any, Any], Any],
        metrics: MetricCollection | None,
        *,
        accumulate: bool,
        clip_norm: float | None,
        clip_value: float | None,
        scaler: Any,
        guard: bool,
    ) -> None:
        super().__init__(model, loss_fn, metrics)
        self.optimizer, self.scaler = optimizer, scaler
        self.accumulate, self.guard = accumulate, guard
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.run = jit(self._run)
        self.collect = jit(self._collect)

    # --- the programs ---

    def _run(self, batch: Any) -> Any:
        before = self._state()
        if isinstance(self.optimizer, LBFGS):
            outcome, ok = self._search(batch)
            self.tally.watch(outcome)
            return self._finish(outcome, ok, before, steps=1)
        outcome, grads = self._gradients(batch)
        ok = self._all_finite(outcome, grads)
        self.tally.watch(outcome)
        self._apply(self._average(grads, outcome) if self.accumulate else grads)
        return self._finish(outcome, ok, before, steps=1)

    def _collect(self, batch: Any) -> Any:
        before = self._state()
        outcome, grads = self._gradients(batch)
        ok = self._all_finite(outcome, grads)
        self.tally.watch(outcome)
        weight, total = self._add(grads, outcome)
        for name, value in total.items():
            self.tally.sums[name].data = value
        self.tally.weight.data = weight
        return self._finish(outcome, ok, before, steps=0)

    # --- their parts ---

    def _gradients(self, batch: Any) -> tuple[Outcome, Any]:
        summed: list[bool] = []  # no array, so it must not pass through the transformation

        def objective(model: Any) -> Any:
            outcome = self._outcome(model, batch)
            summed[:] = [bool(outcome.summed)]
            loss = outcome.loss if self.scaler is None else self.scaler.scale(outcome.loss)
            return loss, outcome._replace(summed=None)

        (_, outcome), grads = value_and_grad(objective, has_aux=True)(self.model)
        return outcome._replace(summed=summed[0]), grads

    def _add(self, grads: Any, outcome: Outcome) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The sums of weights and of weighted gradients with this batch added."""
        weight = outcome.count
        total = {}
        for name, gradient in flatten(grads):
            wide = jnp.float32 if gradient.dtype.itemsize < 4 else gradient.dtype
            if name not in self.tally.sums:
                self.tally.sums[name] = Buffer(gradient.shape, dtype=wide)
            share = 1.0 if outcome.summed else weight.astype(wide)
            total[name] = self.tally.sums[name].data + share * gradient.astype(wide)
        return self.tally.weight.data + weight, total

    def _average(self, grads: Any, outcome: Outcome) -> Any:
        """The gradients of all batches since the last step as if they were one; the sums start anew."""
        weight, total = self._add(grads, outcome)
        self.tally.weight.data = jnp.zeros_like(weight)
        rows = []
        for name, gradient in flatten(grads):
            value = total[name]
            if not outcome.summed:
                value = value / weight.astype(value.dtype)
            rows.append((name, value.astype(gradient.dtype)))
            self.tally.sums[name].data = jnp.zeros_like(total[name])
        return nest(rows)

    def _search(self, batch: Any) -> tuple[Outcome, Any]:
        """A step of an optimizer that evaluates the function several times; the first time is recorded."""
        first: list[tuple[Outcome, Any]] = []

        def closure() -> Any:
            outcome, grads = self._gradients(batch)
            if not first:
                first.append((outcome, self._all_finite(outcome, grads)))
            return outcome.loss, self._clipped(grads)

        self.optimizer.step(closure)
        return first[0]

    def _clipped(self, grads: Any) -> Any:
        if self.clip_value is not None:
            grads = clip_grad_value_(grads, self.clip_value)
        if self.clip_norm is not None:
            grads, _ = clip_grad_norm_(grads, self.clip_norm)
        return grads

    def _apply(self, grads: Any) -> None:
        if self.scaler is not None:
            grads = self.scaler.unscale_(self.optimizer, grads)
        grads = self._clipped(grads)
        if self.scaler is None:
            self.optimizer.step(grads)
        else:
            self.scaler.step(self.optimizer, grads)
            self.scaler.update()

    # --- what stops at something that is not finite ---

    def _state(self) -> dict[Cell, Any]:
        """Everything that the step may change, as it is."""
        if not self.guard:
            return {}
        cells = cells_of(self.model, self.optimizer, self.scaler, self.tally, self.loss_fn)
        return {cell: cell.data for cell in (*cells, stream)}

    def _all_finite(self, outcome: Outcome, grads: Any) -> Any:
        if not self.guard:
            return True
        ok = jnp.isfinite(outcome.loss)
        # A scaler finds gradients that overflowed itself, and makes the next ones smaller.
        if self.scaler is None:
            for gradient in jax.tree.leaves(grads):
                # Zero times what is not finite is NaN. XLA for CPU adds rows up in a vectorised loop,
                # but goes through an "all" over everything element by element.
                ok &= jnp.all(
                    jnp.isfinite(jnp.sum(0 * gradient, axis=tuple(range(gradient.ndim))[:1]))
                )
        return ok & ~self.tally.halted.data

    def _finish(self, outcome: Outcome, ok: Any, before: dict[Cell, Any], steps: int) -> Any:
        for cell, old in before.items():
            new = cell.data
            if new is not old:
                cell.data = jax.lax.select(ok, new, old)
        self.tally.halted.data = self.tally.halted.data | ~jnp.asarray(ok)
        done = jnp.asarray(ok, jnp.int32)
        self.tally.counts.data = self.tally.counts.data + jnp.stack([done, done * steps])
        return self._reported(outcome, ok)
