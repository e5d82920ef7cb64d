"""What a metric is: a description, and four pure functions over a small pytree of totals.

    metric = Accuracy()
    state = metric.init()                              # zeros
    state = metric.update(state, output, target)       # inside jit, scan, shard_map, ...
    state = metric.merge(state, other)                 # of another device, or another part of the data
    value = metric.compute(state)                      # an array, or a dict of them

A metric of our own is two functions: the sums that a batch contributes, and what is made of their
totals. Totals are kept in twice the precision, so that an epoch of many small contributions ends
with the sum that a double would give. The stateful face is :class:`Running`.

(The libraries that exist, metrax and clu, are built on flax and bring it and some twenty packages
along; for a few sums that is too much.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnets._args import describe, require_array
from funcnets.core.cell import Buffer
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, DTypeError, ShapeError

__all__ = ["Metric", "MetricCollection", "Running", "Total"]


class Total(NamedTuple):
    """A sum in twice the precision of its dtype: the sum, and what rounding left out of it.

    Attributes:
        high: the rounded sum.
        low: the exact sum of all that was added, less ``high``, as far as the dtype can hold it.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train.metrics import Total
        >>> total = Total(jnp.float32(2**24), jnp.float32(0))
        >>> total = total.add(jnp.float32(1)).add(jnp.float32(1))
        >>> float(total.value)
        16777218.0
    """

    high: jax.Array
    low: jax.Array

    def add(self, amount: jax.Array) -> Total:
        """The total with ``amount`` added."""
        high = self.high + amount
        back = high - self.high
        # What rounding took from either, which is exact (Knuth's two-sum).
        low = self.low + ((self.high - (high - back)) + (amount - back))
        # Of an infinite sum no difference exists: the sum alone says it.
        low = jnp.where(jnp.isfinite(high), low, 0)
        total = high + low
        return Total(total, jnp.where(jnp.isfinite(high), low - (total - high), 0))

    @property
    def value(self) -> jax.Array:
        """The sum."""
        return self.high + self.low


State = Any


class Metric:
    """Base class of metrics: pure functions over totals. A metric itself never changes.

    Define :meth:`shapes`, :meth:`statistics` and :meth:`result`, and the rest follows. Data-parallel
    programs may also sum states over devices: ``jax.lax.psum(state, axis_name)``.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> class Spread(metrics.Metric):
        ...     def shapes(self):
        ...         return {"sum": (), "square": (), "count": ()}
        ...
        ...     def statistics(self, output, target=None, weight=None):
        ...         return {"sum": output.sum(), "square": (output**2).sum(), "count": output.size}
        ...
        ...     def result(self, totals):
        ...         mean = totals["sum"] / totals["count"]
        ...         return jnp.sqrt(totals["square"] / totals["count"] - mean**2)
        >>> spread = Spread()
        >>> state = spread.update(spread.init(), jnp.array([1.0, 3.0]))
        >>> float(spread.compute(spread.update(state, jnp.array([1.0, 3.0]))))
        1.0
    """

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the totals."""
        raise NotImplementedError(f"{type(self).__name__} must define shapes()")

    def statistics(self, output: Any, target: Any = None, weight: Any = None) -> dict[str, Any]:
        """What one batch adds to each total."""
        raise NotImplementedError(f"{type(self).__name__} must define statistics()")

    def result(self, totals: dict[str, jax.Array]) -> Any:
        """The metric, from the totals."""
        raise NotImplementedError(f"{type(self).__name__} must define result()")

    # --- what users call ---

    def init(self) -> State:
        """The state before any batch: zeros, in JAX's default float."""
        dtype = jnp.result_type(float)
        return {
            name: Total(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
            for name, shape in self.shapes().items()
        }

    def update(self, state: State, output: Any, target: Any = None, weight: Any = None) -> State:
        """The state after one more batch.

        Args:
            state: what ``init`` or another ``update`` gave.
            output: what the model gave: see the metric.
            target: what was right, where the metric compares.
            weight: how much each sample counts, for example 0 for one that only fills a batch up: an
                array whose shape is that of the samples, or of their first axes.

        Returns:
            A state of the same structure, shapes and dtypes.
        """
        added = self.statistics(output, target, weight)
        self._refuse_other(state, added)
        return {
            name: total.add(jnp.asarray(added[name], total.high.dtype))
            for name, total in state.items()
        }

    def compute(self, state: State) -> Any:
        """The metric of everything that ``state`` has seen; NaN for a mean of nothing."""
        self._refuse_other(state, self.shapes())
        return self.result({name: total.value for name, total in state.items()})

    def merge(self, state: State, other: State) -> State:
        """The state of the batches of both."""
        self._refuse_other(state, other)
        return {
            name: total.add(other[name].high).add(other[name].low) for name, total in state.items()
        }

    def _refuse_other(self, state: State, names: Iterable[str]) -> None:
        if not isinstance(state, dict) or state.keys() != set(names):
            raise ArgumentError(
                f"{self!r} keeps the totals {', '.join(self.shapes())}, but got the state "
                f"{describe(state)}: pass what its own init() or update(...) returned"
            )


class MetricCollection(Metric):
    """Several metrics of the same outputs and targets as one, whose value is a dict.

    Args:
        metrics: metrics by name, or several metrics, whose names are then those of their classes in
            snake case.

    Raises:
        ArgumentError: two metrics of one name, or something that is not a metric.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.train import metrics
        >>> both = metrics.MetricCollection({"top1": metrics.Accuracy(), "top2": metrics.TopK(2)})
        >>> scores, labels = jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([0, 1])
        >>> state = both.update(both.init(), scores, labels)
        >>> {name: float(value) for name, value in both.compute(state).items()}
        {'top1': 0.5, 'top2': 1.0}
    """

    def __init__(self, metrics: Mapping[str, Metric] | Iterable[Metric]) -> None:
        named: list[tuple[Any, Any]] = (
            list(metrics.items())
            if isinstance(metrics, Mapping)
            else [(_snake_case(type(metric).__name__), metric) for metric in metrics]
        )
        for name, metric in named:
            if not isinstance(metric, Metric):
                raise ArgumentError(f"{name!r} must be a Metric, but got {describe(metric)}")
        self.metrics: dict[str, Metric] = dict(named)
        if len(self.metrics) != len(named):
            raise ArgumentError(
                "two metrics have one name: give each its own, as in {'top1': Accuracy(), 'top5': TopK(5)}"
            )

    def init(self) -> State:
        """The state of each."""
        return {name: metric.init() for name, metric in self.metrics.items()}

    def update(self, state: State, output: Any, target: Any = None, weight: Any = None) -> State:
        """The state of each after one more batch."""
        return {
            name: metric.update(state[name], output, target, weight)
            for name, metric in self.metrics.items()
        }

    def compute(self, state: State) -> dict[str, Any]:
        """The value of each."""
        return {name: metric.compute(state[name]) for name, metric in self.metrics.items()}

    def merge(self, state: State, other: State) -> State:
        """The state of the batches of both, for each."""
        return {
            name: metric.merge(state[name], other[name]) for name, metric in self.metrics.items()
        }

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={metric!r}" for name, metric in self.metrics.items())
        return f"{type(self).__name__}({inner})"


class Running(Module):
    """A metric that keeps its state itself, for loops over stateful models.

    The totals are buffers, so ``fn.jit`` threads them as it does everything else. A pure loop uses the
    metric's own functions.

    Args:
        metric: the metric.
        persistent: whether ``state_dict`` has the totals.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> from funcnets.train import metrics
        >>> model, accuracy = nn.Linear(3, 2), metrics.Running(metrics.Accuracy())
        >>> @fn.jit
        ... def evaluate(x, y):
        ...     accuracy.update(model(x), y)
        >>> for _ in range(2):
        ...     evaluate(jnp.ones((4, 3)), jnp.zeros(4, jnp.int32))
        >>> float(accuracy.compute()) in (0.0, 1.0)
        True
        >>> accuracy.reset()

    References:
        torchmetrics.Metric
    """

    def __init__(self, metric: Metric, persistent: bool = False) -> None:
        super().__init__()
        if not isinstance(metric, Metric):
            raise ArgumentError(f"metric must be a Metric, but got {describe(metric)}")
        self.metric = metric
        leaves, self._structure = jax.tree.flatten_with_path(metric.init())
        self._names = [jax.tree_util.keystr(path, simple=True, separator="_") for path, _ in leaves]
        for name, (_, zeros) in zip(self._names, leaves, strict=True):
            self.register_buffer(name, Buffer(zeros.shape, dtype=zeros.dtype), persistent)

    def forward(self, output: Any, target: Any = None, weight: Any = None) -> None:
        """Take in one more batch."""
        state = self.metric.update(self._state(), output, target, weight)
        for name, value in zip(self._names, jax.tree.leaves(state), strict=True):
            setattr(self, name, value)

    def update(self, output: Any, target: Any = None, weight: Any = None) -> None:
        """Take in one more batch: the same as calling the module."""
        self(output, target, weight)

    def compute(self) -> Any:
        """The metric of everything since the beginning or the last ``reset``."""
        return self.metric.compute(self._state())

    def reset(self) -> None:
        """Begin anew."""
        for name, zeros in zip(self._names, jax.tree.leaves(self.metric.init()), strict=True):
            self._buffers[name].data = zeros  # pyright: ignore[reportOptionalMemberAccess]

    def _state(self) -> State:
        leaves = [self._buffers[name].data for name in self._names]  # pyright: ignore
        return jax.tree.unflatten(jax.tree.structure(self.metric.init()), leaves)

    def extra_repr(self) -> str:
        return repr(self.metric)


# --- what the metrics share -------------------------------------------------------------------


def _snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


def weighted(weight: Any, shape: tuple[int, ...]) -> jax.Array:
    """The weight of every sample, in JAX's default float."""
    dtype = jnp.result_type(float)
    if weight is None:
        return jnp.ones(shape, dtype)
    require_array("weight", weight)
    weight = jnp.asarray(weight)
    if weight.shape != shape[: weight.ndim]:
        raise ShapeError(
            f"weight must have the shape of the samples, {shape}, or of their first axes, but is {describe(weight)}"
        )
    if jnp.issubdtype(weight.dtype, jnp.complexfloating):
        raise DTypeError(f"weight must be real, but is {describe(weight)}")
    spread = weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
    return jnp.broadcast_to(spread.astype(dtype), shape)


def total_of(values: Any, weight: jax.Array) -> jax.Array:
    """The weighted sum; what has no weight does not count, were it NaN."""
    return jnp.sum(jnp.where(weight == 0, 0, values.astype(weight.dtype) * weight))


def quotient(part: jax.Array, whole: jax.Array, otherwise: float) -> jax.Array:
    """``part / whole``, and ``otherwise`` where that is 0 / 0."""
    empty = whole == 0
    return jnp.where(empty, otherwise, part / jnp.where(empty, 1, whole))
