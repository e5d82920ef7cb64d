"""Averages of the weights of training: SWA, EMA, and what goes with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from funcnets._args import choice, describe
from funcnets.core.cell import Buffer, Cell, Parameter
from funcnets.core.convert import as_array, placement
from funcnets.core.jit import jit
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, DTypeError, TreeError
from funcnets.nn.batchnorm import _BatchNorm
from funcnets.optim.lr_scheduler.base import LRScheduler, per_group, require_optimizer
from funcnets.optim.optimizer import Optimizer

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

AverageFn = Callable[[Any, Any, Any], Any]
MultiAverageFn = Callable[[Sequence[Any], Sequence[Any], Any], Sequence[Any]]


def _in_floats(rule: AverageFn) -> AverageFn:
    """``rule`` in at least single precision; what it gives for integers is rounded towards 0."""

    def average(averaged: Any, current: Any, num_averaged: Any) -> jax.Array:
        averaged = jnp.asarray(averaged)
        dtype = averaged.dtype
        wide = dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            wide = jnp.result_type(float)
        elif dtype.itemsize < 4:
            wide = jnp.float32
        count = jnp.asarray(num_averaged).astype(wide)
        now = jnp.asarray(current).astype(wide)
        return rule(averaged.astype(wide), now, count).astype(dtype)

    return average


def _for_lists(rule: AverageFn) -> MultiAverageFn:
    def average(averaged: Sequence[Any], current: Sequence[Any], num_averaged: Any) -> list[Any]:
        return [rule(a, c, num_averaged) for a, c in zip(averaged, current, strict=True)]

    return average


def get_ema_avg_fn(decay: float = 0.999) -> AverageFn:
    r"""The exponential moving average of one array.

    .. math::
        \bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta

    Args:
        decay: :math:`d`, between 0 and 1.

    Returns:
        A function of the average, the present value and the number of values so far.

    Raises:
        ArgumentError: a decay out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.optim.swa_utils import get_ema_avg_fn
        >>> get_ema_avg_fn(0.75)(jnp.zeros(2), jnp.ones(2), 1).tolist()
        [0.25, 0.25]

    References:
        torch.optim.swa_utils.get_ema_avg_fn
    """
    if not 0.0 <= decay <= 1.0:
        raise ArgumentError(f"Invalid decay value {decay}: expected a number between 0 and 1")
    return _in_floats(lambda averaged, current, _: decay * averaged + (1 - decay) * current)


def get_swa_avg_fn() -> AverageFn:
    r"""The plain average of one array.

    .. math::
        \bar\theta \leftarrow \bar\theta + \frac{\theta - \bar\theta}{n + 1}

    Returns:
        A function of the average, the present value and :math:`n`, the number of values so far.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.optim.swa_utils import get_swa_avg_fn
        >>> get_swa_avg_fn()(jnp.zeros(2), jnp.ones(2), 3).tolist()
        [0.25, 0.25]

    References:
        torch.optim.swa_utils.get_swa_avg_fn
    """
    return _in_floats(lambda averaged, current, n: averaged + (current - averaged) / (n + 1))


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverageFn:
    """The exponential moving average of several arrays; see :func:`get_ema_avg_fn`.

    Args:
        decay: the weight of the average so far, between 0 and 1.

    Returns:
        A function of the list of averages, the list of present values and their number so far, which
        returns the new averages.

    Raises:
        ArgumentError: a decay out of its range.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.optim.swa_utils import get_ema_multi_avg_fn
        >>> get_ema_multi_avg_fn(0.75)([jnp.zeros(2)], [jnp.ones(2)], 1)[0].tolist()
        [0.25, 0.25]

    References:
        torch.optim.swa_utils.get_ema_multi_avg_fn
    """
    return _for_lists(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> MultiAverageFn:
    """The plain average of several arrays; see :func:`get_swa_avg_fn`.

    Returns:
        A function of the list of averages, the list of present values and their number so far, which
        returns the new averages.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets.optim.swa_utils import get_swa_multi_avg_fn
        >>> get_swa_multi_avg_fn()([jnp.zeros(2)], [jnp.ones(2)], 3)[0].tolist()
        [0.25, 0.25]

    References:
        torch.optim.swa_utils.get_swa_multi_avg_fn
    """
    return _for_lists(get_swa_avg_fn())


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's.

    The first ``update_parameters(model)`` copies the parameters, each later one averages. Buffers are
    copied every time, or averaged, too. The update is compiled; within a function under ``fn.jit`` it
    is a part of it.

    Args:
        model: the model, which is copied as it is.
        device: where the copy is placed.
        avg_fn: a function of the average, the present value and the number of models so far, for one
            array; :func:`get_swa_avg_fn` if neither this nor the next is given.
        multi_avg_fn: the same for lists of arrays of one dtype. It returns the new averages: arrays
            are not changed in place.
        use_buffers: whether buffers are averaged, too.

    Raises:
        ArgumentError: both functions are given.
        DTypeError: ``model`` is not a Module.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> from funcnets.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
        >>> model = nn.Linear(2, 1)
        >>> average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
        >>> average.update_parameters(model)  # after each optimizer.step(grads)
        >>> int(average.n_averaged)
        1

    References:
        torch.optim.swa_utils.AveragedModel; Izmailov et al., 2018
    """

    n_averaged: Any

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: AverageFn | None = None,
        multi_avg_fn: MultiAverageFn | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(_require_module(model))
        if device is not None:
            self.module.to(device=device)
        counter = jax.dtypes.canonicalize_dtype("int64")
        self.register_buffer("n_averaged", Buffer((), dtype=counter, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model gives."""
        return self.module(*args, **kwargs)

    def _will_write(self) -> Iterator[Cell]:
        return (cell for _, cell in self._cells()) if self._training else super()._will_write()

    def update_parameters(self, model: Module) -> None:
        """Take the present parameters of ``model`` into the average.

        Args:
            model: the model of which this is the average.

        Raises:
            TreeError: its parameters or buffers have other names or shapes.
        """
        own, theirs = dict(self.module._cells()), dict(_require_module(model)._cells())
        problems = [f"{name} is missing" for name in own if name not in theirs]
        problems += [f"{name} is unknown here" for name in theirs if name not in own]
        problems += [
            f"{name} should have the shape {own[name].shape}, but has {theirs[name].shape}"
            for name in own
            if name in theirs and own[name].shape != theirs[name].shape
        ]
        if problems:
            raise TreeError(
                "this is no model of which this AveragedModel is the average:\n    "
                + "\n    ".join(problems)
            )
        self._update(model)

    @jit
    def _update(self, model: Module) -> None:
        theirs = dict(model._cells())
        pairs = [(own, theirs[name]) for name, own in self.module._cells()]
        taken = [pair for pair in pairs if self.use_buffers or isinstance(pair[0], Parameter)]
        taken = [(own, other) for own, other in taken if jnp.issubdtype(own.dtype, jnp.number)]
        averages = self._averages(taken)
        first = self.n_averaged == 0
        for own, other in pairs:
            value = other.data if other.dtype == own.dtype else other.data.astype(own.dtype)
            own.data = jnp.where(first, value, averages[own]) if own in averages else value
        self.n_averaged = self.n_averaged + 1

    def _averages(self, pairs: list[tuple[Cell, Cell]]) -> dict[Cell, jax.Array]:
        """The new averages; those of one dtype are computed together."""
        found: dict[Cell, jax.Array] = {}
        for dtype in dict.fromkeys(own.dtype for own, _ in pairs):
            cells = [own for own, _ in pairs if own.dtype == dtype]
            averaged = [own.data for own in cells]
            current = [other.data.astype(dtype) for own, other in pairs if own.dtype == dtype]
            rule = self.multi_avg_fn or _for_lists(self.avg_fn or get_swa_avg_fn())
            new = rule(averaged, current, self.n_averaged)
            if not isinstance(new, (list, tuple)) or len(new) != len(cells):
                raise DTypeError(
                    f"multi_avg_fn must return the list of {len(cells)} new averages (arrays cannot be changed in "
                    f"place), but returned {describe(new)}"
                )
            for cell, value in zip(cells, new, strict=True):
                if getattr(value, "shape", None) != cell.shape:
                    raise TreeError(
                        f"an average must have its parameter's shape, {cell.shape}, but is {describe(value)}"
                    )
                found[cell] = value.astype(dtype)
        return found


def _require_module(model: Any) -> Module:
    if not isinstance(model, Module):
        raise DTypeError(f"model must be a Module, but got {describe(model)}")
    return model


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of all batch normalisations anew, in one pass over data.

    For a model whose parameters were averaged: its statistics are those of other parameters. The pass
    is compiled and runs in training mode; afterwards every module has its own mode again. If it
    fails, the statistics are those from before.

    Args:
        loader: batches: the input, or a tuple or list whose first entry is the input.
        model: the model, called with the input alone.
        device: where the input is placed.

    Raises:
        ArgumentError: there is not a single batch.
        DTypeError: ``model`` is not a Module.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> from funcnets.optim.swa_utils import update_bn
        >>> model = nn.BatchNorm1d(1)
        >>> update_bn([jnp.array([[1.0], [3.0]])], model)
        >>> model.running_mean.tolist(), model.running_var.tolist()
        ([2.0], [2.0])

    References:
        torch.optim.swa_utils.update_bn
    """
    norms = [m for m in _require_module(model).modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    place = placement(device)
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    before = {cell: cell.data for norm in norms for _, cell in norm._cells(("_buffers",))}

    @jit
    def see(batch: Any) -> None:
        model(batch)

    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        model.train()
        batches = 0
        for batch in loader:
            inputs = batch[0] if isinstance(batch, (list, tuple)) else batch
            arrays = jax.tree.map(lambda leaf: as_array(leaf, None), inputs)
            see(arrays if place is None else jax.device_put(arrays, place))
            batches += 1
        if not batches:
            raise ArgumentError(
                "the loader gave no batch (a generator that is used up?): the running statistics are left as they were"
            )
    except BaseException:
        for cell, value in before.items():
            cell._set(value)
        raise
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


class SWALR(LRScheduler):
    r"""Moves the rates to a fixed one, for averaging; it can take over from another scheduler.

    .. math::
        \eta_t = \alpha_t\,\eta_{swa} + (1 - \alpha_t)\,\eta_0

    :math:`\alpha` rises from 0 to 1 along half a cosine or a line. Each rate is computed from the last, so
    what another scheduler did in between is kept.

    Args:
        optimizer: the optimizer whose rates are set.
        swa_lr: :math:`\eta_{swa}`, or a list of one for each group.
        anneal_epochs: the number of epochs in which it is reached.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        last_epoch: index of the last epoch, -1 to begin anew.

    Raises:
        ArgumentError: an unknown strategy, a negative number of epochs, or a list of another length
            than the groups.

    Examples:
        >>> from funcnets import nn, optim
        >>> from funcnets.optim.swa_utils import SWALR
        >>> optimizer = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        >>> scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=5)
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        torch.optim.swa_utils.SWALR
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        last_epoch: int = -1,
    ) -> None:
        rates = per_group("swa_lr", require_optimizer(optimizer), swa_lr)
        self._anneal_strategy = choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ArgumentError(
                f"anneal_epochs must be equal or greater than 0, got {describe(anneal_epochs)}"
            )
        self.anneal_epochs = anneal_epochs
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        super().__init__(optimizer, last_epoch)

    def anneal_func(self, t: float) -> float:
        """:math:`\\alpha` after the share ``t`` of the annealing."""
        return (1 - math.cos(math.pi * t)) / 2 if self._anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        """The rates of this epoch, from those of the last."""
        self._warn_outside()
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = (self._alpha(step - 1), self._alpha(step))

        def rate(group: Any) -> float:
            last, goal = group["lr"], group["swa_lr"]
            start = goal if before == 1 else (last - before * goal) / (1 - before)
            return goal * now + start * (1 - now)

        return [rate(group) for group in self.optimizer.param_groups]

    def _alpha(self, step: int) -> float:
        return self.anneal_func(max(0, min(1, step / max(1, self.anneal_epochs))))
