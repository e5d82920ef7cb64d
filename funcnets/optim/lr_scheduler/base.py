"""``LRScheduler``: what all schedulers of the stateful optimizers share.

A scheduler runs on the host, between the steps: it computes Python numbers and assigns them to the
options of the optimizer's groups, where they are data of the compiled step. Its own state is what
stands in its ``__dict__``, under PyTorch's names, so that state_dicts can be exchanged.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any, ClassVar

import numpy as np

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError, StateDictError, UnsupportedError
from funcnets.optim.optimizer import Optimizer

__all__ = ["LRScheduler"]

EPOCH_WARNING = (
    "scheduler.step(epoch) is deprecated, as in PyTorch: call scheduler.step() once for each epoch. With an epoch "
    "the closed form of the schedule is used where there is one, which forgets what other schedulers did"
)

#: Bookkeeping that a state_dict of some version of PyTorch may have or lack.
_BOOKKEEPING = ("verbose", "_get_lr_called_within_step", "_is_initial", "_step_count", "_last_lr")


class LRScheduler:
    r"""Sets the learning rates of an optimizer's groups; the base class of all schedulers.

    A subclass defines :meth:`get_lr`, which returns the rates of ``self.last_epoch``, usually from
    those of now, ``group["lr"]``, so that several schedulers can be chained. It may define a method
    ``_get_closed_form_lr``, which ``step(epoch)`` prefers. Plain attributes are its state.

    The rates are computed in Python's double precision, and are data of the compiled training step:
    a scheduler never causes a recompilation. Call :meth:`step` outside of compiled functions; within
    one use the pure schedules, :mod:`funcnets.optim.schedules`.

    Args:
        optimizer: the optimizer whose ``param_groups`` are changed.
        last_epoch: index of the last epoch; -1 begins anew, and notes the present rates as
            ``group["initial_lr"]``.

    Raises:
        DTypeError: not an optimizer.
        ArgumentError: an optimizer without learning rates, or no ``initial_lr`` to resume from.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn, optim
        >>> class Halving(optim.lr_scheduler.LRScheduler):
        ...     def get_lr(self):
        ...         return [rate * 0.5**self.last_epoch for rate in self.base_lrs]
        >>> model = nn.Linear(2, 1)
        >>> optimizer = optim.SGD(model.parameters(), lr=1.0)
        >>> scheduler = Halving(optimizer)
        >>> for epoch in range(3):
        ...     grads = fn.grad(lambda m: m(jnp.ones(2)).sum())(model)
        ...     optimizer.step(grads)
        ...     scheduler.step()
        >>> optimizer.param_groups[0]["lr"], scheduler.get_last_lr()
        (0.125, [0.125])

    References:
        torch.optim.lr_scheduler.LRScheduler
    """

    _get_lr_called_within_step: bool = False
    _is_initial: bool = False
    #: Attributes that are no part of the state.
    _not_state: ClassVar[tuple[str, ...]] = ("optimizer",)

    optimizer: Optimizer
    base_lrs: list[float]
    last_epoch: int
    _step_count: int
    _last_lr: list[float]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = require_optimizer(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", number(group["lr"]))
            elif "initial_lr" not in group:
                raise ArgumentError(
                    f"param 'initial_lr' is not specified in param_groups[{i}], from which a scheduler with "
                    f"last_epoch={last_epoch} resumes: load the optimizer's state_dict first, or begin anew with "
                    "last_epoch=-1"
                )
        self.base_lrs = values(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    # --- the rates ---

    def get_last_lr(self) -> list[float]:
        """The rates that the last step set, one for each group."""
        return self._last_lr

    def get_lr(self) -> list[float]:
        """The rates of ``self.last_epoch``, one for each group; for :meth:`step` to call."""
        raise UnsupportedError(f"{type(self).__name__} must define get_lr()")

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next epoch and set its rates; after ``optimizer.step``, as in PyTorch.

        Args:
            epoch: go to this epoch instead; deprecated.

        Raises:
            StateLeakError: called inside a compiled function, where it would happen only once. If an
                exception is raised, neither the scheduler nor the optimizer has changed.
        """
        with all_or_nothing(self):
            if self._step_count == 1 and not has_stepped(self.optimizer):
                warnings.warn(
                    "lr_scheduler.step() was called before optimizer.step(), so the first learning rate of the "
                    "schedule is never used: call optimizer.step(grads) first",
                    UserWarning,
                    stacklevel=2,
                )
            self._step_count += 1
            if epoch is not None:
                warnings.warn(EPOCH_WARNING, UserWarning, stacklevel=2)
            self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed = getattr(self, "_get_closed_form_lr", None)
        self._assign(self._within(self.get_lr if epoch is None or closed is None else closed))

    def _within(self, rule: Callable[[], list[float]]) -> list[float]:
        """What ``rule`` returns, called as a part of a step."""
        self._get_lr_called_within_step = True
        try:
            return rule()
        finally:
            self._get_lr_called_within_step = False

    def _assign(self, rates: Sequence[Any]) -> None:
        """Set the rates of the groups."""
        groups = self.optimizer.param_groups
        if len(rates) != len(groups):
            raise ArgumentError(
                f"{type(self).__name__} has learning rates for {len(rates)} parameter groups, but the optimizer has "
                f"{len(groups)}: make the scheduler after the last add_param_group"
            )
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = number(rate)
        self._last_lr = values(self.optimizer, "lr")

    def _warn_outside(self) -> None:
        """``get_lr`` advances the schedule, so it is no way to look at it."""
        if not self._get_lr_called_within_step:
            warnings.warn(
                "get_lr() computes the learning rates of the next step: use get_last_lr() for those of now",
                UserWarning,
                stacklevel=3,
            )

    def _group_lrs(self) -> list[float]:
        return values(self.optimizer, "lr")

    # --- state ---

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer, under PyTorch's names; functions are not part of it.

        Returns:
            A dict of numbers, strings, lists and dicts, independent of this scheduler. Save the
            optimizer's ``state_dict`` with it, which holds the learning rates.
        """
        return {name: copied(v) for name, v in vars(self).items() if name not in self._not_state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a scheduler of the same class, ours or PyTorch's.

        The learning rates of now are the optimizer's, and come with its own ``state_dict``.

        Args:
            state_dict: what ``state_dict()`` returned. It is not changed.

        Raises:
            StateDictError: it does not fit; everything that does not is listed, and nothing is loaded.
        """
        problems = self._problems(state_dict)
        if problems:
            raise StateDictError(
                f"cannot load this state_dict into {type(self).__name__}:\n    "
                + "\n    ".join(problems)
            )
        self._adopt(state_dict)

    def _problems(self, state: Any) -> list[str]:
        """Everything in ``state`` that does not fit, in words."""
        if not isinstance(state, Mapping):
            return [f"expected a dict, but got {describe(state)}"]
        own = self.state_dict()
        found = [
            f"{name} is missing" for name in own if name not in state and name not in _BOOKKEEPING
        ]
        for name, value in state.items():
            if name in own:
                found += self._misfits(name, own[name], value)
            elif name not in _BOOKKEEPING:
                found.append(f"{name} is not an attribute of {type(self).__name__}")
        return found

    def _misfits(self, name: str, own: Any, value: Any) -> list[str]:
        """What keeps ``value`` from taking the place of ``own`` in the state."""
        return (
            []
            if alike(own, value)
            else [f"{name} should be like {own!r}, but is {describe(value)}"]
        )

    def _adopt(self, state: Mapping[str, Any]) -> None:
        for name in self.state_dict():
            if name in state:
                self._adopt_one(name, plain(state[name]))

    def _adopt_one(self, name: str, value: Any) -> None:
        setattr(self, name, value)


# --- what the schedulers share ----------------------------------------------------------------


def require_optimizer(optimizer: Any) -> Any:
    """``optimizer`` if it is one, with learning rates that can be set."""
    if not isinstance(optimizer, Optimizer):
        raise DTypeError(f"{type(optimizer).__name__} is not an Optimizer")
    if not all("lr" in group for group in optimizer.param_groups):
        raise ArgumentError(
            f"this {type(optimizer).__name__} has no option 'lr' that a scheduler could set: give its transformation "
            "a schedule instead, as in optim.Optimizer(params, optax.adam(optim.schedules.step_lr(1e-3, 30)))"
        )
    return optimizer


def has_stepped(optimizer: Optimizer) -> bool:
    """Whether ``optimizer.step`` was ever called, by a compiled step that was made since, too."""
    return optimizer._opt_called


def number(value: Any) -> Any:
    """A learning rate as a Python number, also out of a scalar array."""
    return value if type(value) in (int, float) else float(np.asarray(value).item())


def values(optimizer: Optimizer, name: str) -> list[float]:
    """An option of all groups."""
    return [number(group[name]) for group in optimizer.param_groups]


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value for each group, out of one for all or a list."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ArgumentError(
            f"{name} must have the same length as optimizer.param_groups, which has {count} groups, "
            f"but {name} has {len(value)} values"
        )
    return list(value)


def require_positive(name: str, value: Any) -> None:
    """Refuse a length of time that the schedule would divide by."""
    if not value > 0:
        raise ArgumentError(f"{name} must be positive, but got {describe(value)}")


@contextmanager
def all_or_nothing(scheduler: LRScheduler) -> Iterator[None]:
    """A step of a scheduler: puts everything back as it was if an exception comes through."""
    scheduler.optimizer._refuse_inside(f"{type(scheduler).__name__}.step() was called")

    def family(one: Any) -> Iterator[Any]:
        yield one
        for child in getattr(one, "_schedulers", ()):
            yield from family(child)

    before = [(one, dict(vars(one))) for one in family(scheduler)]
    groups = scheduler.optimizer.param_groups
    options = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    try:
        yield
    except BaseException:
        for one, attributes in before:
            vars(one).clear()
            vars(one).update(attributes)
        for group, old in zip(groups, options, strict=True):
            for name, value in old.items():
                if group[name] is not value:
                    group[name] = value
        raise


# --- state_dicts ------------------------------------------------------------------------------


def copied(value: Any) -> Any:
    """Containers anew, so that nobody shares them."""
    if isinstance(value, Counter):
        return Counter(value)
    if isinstance(value, dict):
        return {name: copied(item) for name, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """``copied``, with scalar arrays and tensors as Python numbers."""
    if isinstance(value, Mapping):
        items = {name: plain(item) for name, item in value.items()}
        return Counter(items) if isinstance(value, Counter) else items
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def alike(own: Any, other: Any) -> bool:
    """Whether one attribute may take the place of the other."""
    own, other = plain(own), plain(other)
    if isinstance(own, list):
        same = isinstance(other, list) and len(own) == len(other)
        return same and all(alike(a, b) for a, b in zip(own, other, strict=True))
    if isinstance(own, (int, float)) and not isinstance(own, bool):
        return isinstance(other, (int, float)) and not isinstance(other, bool)
    return own is None or isinstance(other, type(own))


def attributes_of(function: Any) -> dict[str, Any] | None:
    """The attributes of a callable object, which are state; a plain function has none."""
    state = None if isinstance(function, FunctionType) else getattr(function, "__dict__", None)
    return None if state is None else dict(state)


def functions_differ(name: str, functions: Sequence[Any], states: Any) -> list[str]:
    """What keeps ``states`` from being those of ``functions``."""
    if not isinstance(states, (list, tuple)) or len(states) != len(functions):
        return [f"{name} should be a list of {len(functions)}, but is {describe(states)}"]
    return [
        f"{name}[{i}] should be None or a dict of attributes, but is {describe(state)}"
        if state is not None and not isinstance(state, Mapping)
        else f"{name}[{i}] has attributes, but the function here, {function!r}, takes none"
        for i, (function, state) in enumerate(zip(functions, states, strict=True))
        if state is not None and not (isinstance(state, Mapping) and hasattr(function, "__dict__"))
    ]
