"""Parameter groups: some parameters with their options, and with what the steps keep for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.cell import Buffer, Cell, Parameter, Version
from funcnets.core.rows import stack_rows
from funcnets.core.tree import Same, freeze
from funcnets.errors import ArgumentError
from funcnets.optim.memory import Memory

__all__ = ["SCHEDULER_KEYS", "ParamGroup", "numbers_of"]

#: Options of a group that are no part of a step: names, and what schedulers note there.
SCHEDULER_KEYS = frozenset(
    {
        "base_momentum",
        "initial_lr",
        "max_lr",
        "max_momentum",
        "min_lr",
        "name",
        "param_names",
        "swa_lr",
    }
)


class ParamGroup(dict[str, Any]):
    """The hyper-parameters of some parameters; assigning to one takes effect at the next step.

    ``group["lr"]`` is data of the compiled step. Other hyper-parameters are part of the program: a new
    value traces the step again, an earlier one finds its program. :meth:`drive` makes some of them
    data, too, which the schedulers that change them do.

    Args:
        cells: the parameters, which ``group["params"]`` gives.
        options: the hyper-parameters by name.
        owner: the optimizer.

    Examples:
        >>> from funcnets import nn, optim
        >>> group = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1).param_groups[0]
        >>> group["lr"] *= 0.5
        >>> group["lr"]
        0.05
    """

    def __init__(
        self,
        cells: Sequence[Parameter],
        options: Mapping[str, Any],
        owner: Any,
    ) -> None:
        super().__init__(params=list(cells), **options)
        self._elementwise: bool = owner._elementwise
        #: What is updated: the parameters, with a stacked one in place of those of the blocks of an nn.Stack.
        self.cells: list[Parameter] = self.joined(cells)
        self.rate: Buffer | None = None
        if "lr" in options:
            self.rate = Buffer(_rate(options["lr"]))
        self._owner = owner
        #: The cells of further options that are data, one for each of their numbers.
        self.driven: dict[str, list[Buffer]] = {}
        self.memories: list[Memory] = []
        #: Changes when memories are exchanged for others, which compiled steps do not know.
        self.generation = 0
        # A guess of the parameters that the next step starts with; spares fn.jit a second trace.
        self._expected: Memory | None = None

    def joined(self, cells: Sequence[Parameter]) -> list[Parameter]:
        """Some parameters as they are updated: those of an ``nn.Stack`` as one, if the rule allows that."""
        given = set(cells) if self._elementwise else set()

        def held(cell: Any) -> Any:
            whole = cell.whole
            return whole if whole is not None and given.issuperset(whole.rows) else cell

        return list(dict.fromkeys(map(held, cells)))

    def set_apart(self, together: Iterable[Sequence[int]]) -> Iterable[str]:
        """A problem for each stacked parameter whose blocks do not step together.

        Args:
            together: the places of those parameters that do.
        """
        memories = [{self["params"][i] for i in places} for places in together]
        for cell in self.cells:
            parts = [cells for cells in memories if not cells.isdisjoint(cell.rows)]
            if any(not cells.issuperset(cell.rows) for cells in parts):
                yield (
                    f"'{getattr(cell, 'name', '')}' of the blocks of a Stack has one state, but theirs differ in the "
                    "number of steps, or only some have one"
                )

    def by_cell(
        self, places: Sequence[int], values: Mapping[tuple[str, int | None], jax.Array]
    ) -> tuple[list[Parameter], dict[tuple[str, int | None], jax.Array]]:
        """Some parameters as they are updated, and what is kept for them by name and place among these.

        Args:
            places: the places of the parameters.
            values: arrays by name and place among ``places``; None is the place of what all of them share.
        """
        given = [self["params"][i] for i in places]
        cells, at = self.joined(given), {cell: i for i, cell in enumerate(given)}
        found = {key: array for key, array in values.items() if key[1] is None}
        for name in {name: None for name, place in values if place is not None}:
            for i, cell in enumerate(cells):
                own: list[Any] = [values.get((name, at[row])) for row in cell.rows or (cell,)]
                if own[0] is not None:
                    stacks = cell.rows and own[0].shape == cell.shape[1:]
                    found[name, i] = stack_rows(own) if stacks else own[0]
        return cells, found

    def __setitem__(self, name: str, value: Any) -> None:
        self._owner._refuse_inside(
            f"the option {name!r} was changed", "it would change once and not at every step"
        )
        before = numbers_of(self.get(name))
        numbers = numbers_of(value)
        driven = self.driven.get(name, ())
        if driven and len(numbers) != len(driven):
            raise ArgumentError(f"{name} must be like {self[name]}, but got {describe(value)}")
        super().__setitem__(name, value)
        if name == "lr" and self.rate is not None:
            self.rate._set(_rate(value, self.rate.dtype), lent=False)
            return
        for cell, number in zip(driven, numbers, strict=False):
            cell._set(_rate(number, cell.dtype), lent=False)
        # Of an option that is data, the program knows only which numbers are zero.
        same = driven and [n == 0 for n in numbers] == [n == 0 for n in before]
        if not same and name not in SCHEDULER_KEYS:
            Version.structure += 1

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign several options, as ``dict.update`` does."""
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __ior__(self, other: Any) -> ParamGroup:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.update(other)
        return self

    # --- options that are data ---

    def drive(self, name: str) -> bool:
        """Make an option data of the compiled step, as the learning rate is.

        From then on a new value does not trace the step again, unless it becomes or ceases to be zero.

        Args:
            name: the option.

        Returns:
            Whether it is data now. If not, it stays part of the program.
        """
        if name in self._owner._drivable and name not in self.driven:
            self.driven[name] = [Buffer(_rate(number)) for number in numbers_of(self[name])]
            Version.structure += 1
        return name in self.driven

    def seen_by(self, read: Callable[[Cell], Any]) -> dict[str, Any]:
        """The options as a step sees them: with arrays for the numbers that are data.

        Args:
            read: gives the array of a cell.
        """
        seen: dict[str, Any] = dict(self)
        for name, cells in self.driven.items():
            numbers = numbers_of(self[name])
            # Whether a term takes part at all is the program's matter.
            arrays = [n if n == 0 else read(c) for n, c in zip(numbers, cells, strict=True)]
            seen[name] = tuple(arrays) if isinstance(self[name], (tuple, list)) else arrays[0]
        return seen

    def fingerprint(self) -> Any:
        """A comparable value that changes with whatever a trace depends on."""
        options = [
            (
                name,
                tuple(n == 0 for n in numbers_of(value)) if name in self.driven else freeze(value),
            )
            for name, value in self.items()
            if name not in SCHEDULER_KEYS and name not in ("params", "lr")
        ]
        return [(Same(c), c.requires_grad) for c in self.cells], options, self.generation

    # --- memories ---

    def share_out(self, ready: Any, copy: Callable[[Buffer], Buffer] | None = None) -> list[Memory]:
        """The memories that a step uses; parameters in ``ready`` that have none get one together.

        Args:
            ready: the parameters that have a gradient.
            copy: if given, a memory of which only some parameters step becomes two, since what they
                share (a step count) goes on for these only; it makes a cell with the value of another.
        """
        started = {cell for memory in self.memories for cell in memory.cells}
        fresh = [c for c in self.cells if c in ready and c not in started]
        if fresh:
            expected, self._expected = self._expected, None
            fits = expected is not None and list(map(id, expected.cells)) == list(map(id, fresh))
            memory = expected if expected is not None and fits else Memory(fresh)
            memory.started = True
            self.memories.append(memory)
        for i, memory in reversed(list(enumerate(self.memories))):
            stepping = [cell in ready for cell in memory.cells]
            if copy is not None and any(stepping) and not all(stepping):
                self.memories[i : i + 1] = memory.split(ready, copy)
                self.generation += 1
                Version.structure += 1
        return [m for m in self.memories if any(c in ready for c in m.cells)]

    def expected_memories(self) -> list[Memory]:
        """The memories there are, and the one that the next step is likely to start."""
        started = {cell for memory in self.memories for cell in memory.cells}
        fresh = [c for c in self.cells if c.requires_grad and c not in started]
        if not fresh:
            self._expected = None
        elif self._expected is None or list(map(id, self._expected.cells)) != list(map(id, fresh)):
            self._expected = Memory(fresh)
        return [*self.memories, *([self._expected] if self._expected is not None else [])]


def numbers_of(value: Any) -> Sequence[Any]:
    """The numbers of an option that is one or several."""
    return value if isinstance(value, (tuple, list)) else (value,)


def _rate(value: Any, dtype: Any = None) -> jax.Array:
    """A learning rate as an array, of JAX's default float if nothing else is asked."""
    # A copy: JAX may share the memory of an array that its owner changes later.
    return jnp.asarray(np.array(value, jnp.result_type(float) if dtype is None else dtype))
