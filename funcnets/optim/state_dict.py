"""``state_dict`` and ``load_state_dict`` of optimizers, in PyTorch's layout and under its names.

Nothing here knows an optimizer: what is saved follows from the state that the transformation keeps.
The innermost field names of our own transformations are PyTorch's (``exp_avg``); those of any other
are the whole path (``0.mu``). An array that all parameters of a memory share (``step``) is saved
with each of them, and parameters that agree in all of these are one memory again after loading.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.cell import Parameter, Version
from funcnets.core.convert import as_array
from funcnets.core.hooks import RemovableHandle, add_hook
from funcnets.core.pack import value_of
from funcnets.core.rows import row_of
from funcnets.errors import ArgumentError, FuncnetsError, StateDictError
from funcnets.optim.memory import STARTED, Memory, Slot
from funcnets.optim.param_group import SCHEDULER_KEYS

__all__ = ["OptimizerStateError", "StateDict"]

#: Options that choose one of torch's implementations and change no number.
KERNEL_OPTIONS = frozenset({"capturable", "differentiable", "foreach", "fused"})

_HOOKS = (
    "_step_pre_hooks",
    "_step_post_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_post_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)

Hook = Callable[..., Any]
#: What is kept for one memory: the places of its parameters, and arrays by name and place.
Loaded = tuple[list[int], dict[tuple[str, int | None], jax.Array]]


class OptimizerStateError(StateDictError, ArgumentError):
    """A state_dict does not have the groups, parameters, options and shapes of the optimizer."""


class StateDict:
    """The part of ``Optimizer`` that saves and loads, and its hooks."""

    param_groups: list[Any]
    defaults: dict[str, Any]
    _transformation: Callable[..., Any]
    _check: Callable[..., None]
    _refuse_inside: Callable[..., None]
    _step_pre_hooks: dict[int, Hook]
    _step_post_hooks: dict[int, Hook]
    _state_dict_pre_hooks: dict[int, Hook]
    _state_dict_post_hooks: dict[int, Hook]
    _load_state_dict_pre_hooks: dict[int, Hook]
    _load_state_dict_post_hooks: dict[int, Hook]

    #: Names of states that only some options make (AMSGrad's maximum, say).
    _sometimes: ClassVar[tuple[str, ...]] = ()
    #: Whether PyTorch makes the state with the optimizer, not in its first step.
    _has_state_at_once: ClassVar[bool] = False

    def _init_hooks(self) -> None:
        for name in _HOOKS:
            setattr(self, name, {})

    # --- hooks ---

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Run ``hook(optimizer, args, kwargs)`` before every step.

        Under ``fn.jit`` hooks run while tracing and see tracers.

        Args:
            hook: returns None, or new ``(args, kwargs)`` of the step.

        Returns:
            A handle whose ``remove()`` takes the hook out.
        """
        return add_hook(self._step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Run ``hook(optimizer, args, kwargs)`` after every step; see :meth:`register_step_pre_hook`."""
        return add_hook(self._step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Run ``hook(optimizer)`` before ``state_dict`` is made.

        Args:
            hook: the function.
            prepend: run it before the hooks that are there already.

        Returns:
            A handle whose ``remove()`` takes the hook out.
        """
        return add_hook(self._state_dict_pre_hooks, hook, prepend=prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Run ``hook(optimizer, state_dict)``, which may return another dict; see :meth:`register_state_dict_pre_hook`."""
        return add_hook(self._state_dict_post_hooks, hook, prepend=prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Hook, prepend: bool = False
    ) -> RemovableHandle:
        """Run ``hook(optimizer, state_dict)`` before loading, which may return another dict.

        The dict is a shallow copy of the one that ``load_state_dict`` got. See
        :meth:`register_state_dict_pre_hook`.
        """
        return add_hook(self._load_state_dict_pre_hooks, hook, prepend=prepend)

    def register_load_state_dict_post_hook(
        self, hook: Hook, prepend: bool = False
    ) -> RemovableHandle:
        """Run ``hook(optimizer)`` after loading; see :meth:`register_state_dict_pre_hook`."""
        return add_hook(self._load_state_dict_post_hooks, hook, prepend=prepend)

    # --- saving ---

    @property
    def state(self) -> Mapping[Parameter, Mapping[str, Any]]:
        """What is kept for each parameter: ``optimizer.state[p]["exp_avg"]``. A view, to be read only.

        It is empty for a parameter that has taken no step. To change it, change what ``state_dict()``
        gives and load that.
        """
        nothing: Mapping[str, Any] = MappingProxyType({})
        found: dict[Parameter, Mapping[str, Any]] = defaultdict(lambda: nothing)
        for group in self.param_groups:
            states = self._states(group)
            for cell in group["params"]:
                if cell in states:
                    found[cell] = MappingProxyType(states[cell])
        return MappingProxyType(found)

    def _name_of(self, slot: Slot) -> str:
        """The name of an array in a state_dict."""
        return slot.field if getattr(self, "_tx", None) is None else ".".join(slot.path)

    def _states(self, group: Any) -> dict[Parameter, dict[str, Any]]:
        """What is kept for the parameters of a group."""
        tx = self._transformation(group, 0.0)
        found: dict[Parameter, dict[str, Any]] = {}
        memories = [memory for memory in group.memories if memory.live]
        for memory in memories:
            found |= self._rows(memory, tx)
        fresh = [cell for cell in group["params"] if cell not in found]
        if self._has_state_at_once and fresh:
            found |= self._rows(Memory(fresh), tx, begun=False)
        return found

    def _rows(self, memory: Memory, tx: Any, begun: bool = True) -> dict[Parameter, dict[str, Any]]:
        rows: dict[Any, dict[str, Any]] = {
            row: {} for cell in memory.cells for row in cell.rows or (cell,)
        }

        def give(cell: Parameter, name: str, value: jax.Array, own: bool) -> None:
            for i, row in enumerate(cell.rows or (cell,)):  # of an nn.Stack: block by block
                split = own and cell.rows and value.shape == cell.shape
                rows[row][name] = row_of(value, i) if split else value

        slots, _ = memory.slots(tx)
        asleep = {
            slot.path[:-1]
            for slot in slots
            if slot.field == STARTED and not (slot.buffer.has_value and bool(value_of(slot.buffer)))
        }
        for slot in slots:
            kept = slot.buffer.has_value or not begun
            if slot.field == STARTED or slot.path[:-1] in asleep or not kept:
                continue
            name, value = self._name_of(slot), slot.buffer.data
            if name == "step":  # a float in PyTorch, whose optimizers rely on it
                value = value.astype(jnp.float32)
            for cell in memory.cells if slot.place is None else [memory.cells[slot.place]]:
                give(cell, name, value, slot.place is not None)
        for (name, place), value in memory.spare.items():
            if place is not None:
                give(memory.cells[place], name, value, True)
        return rows

    def state_dict(self) -> dict[str, Any]:
        """The state and the options, in PyTorch's layout.

        Returns:
            ``{"state": {i: {name: array}}, "param_groups": [{option: value, ..., "params": [i, ...]}]}``,
            where ``i`` counts the parameters through all groups. The arrays are ``jax.Array``;
            ``torch.from_numpy(np.array(a))`` makes tensors of them.

        Examples:
            >>> import jax.numpy as jnp
            >>> import funcnets as fn
            >>> from funcnets import nn, optim
            >>> model = nn.Linear(2, 1, bias=False)
            >>> optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            >>> optimizer.step(fn.grad(lambda m: m(jnp.ones(2)).sum())(model))
            >>> optimizer.state_dict()["state"][0]["momentum_buffer"].tolist()
            [[1.0, 1.0]]

        References:
            torch.optim.Optimizer.state_dict
        """
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self)
        cells = [cell for group in self.param_groups for cell in group["params"]]
        index = {cell: i for i, cell in enumerate(cells)}
        groups = []
        for group in self.param_groups:
            options = {name: _plain(value) for name, value in group.items() if name != "params"}
            groups.append({**options, "params": [index[cell] for cell in group["params"]]})
        state = {index[cell]: dict(values) for cell, values in self.state.items()}
        result: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in list(self._state_dict_post_hooks.values()):
            changed = hook(self, result)
            result = result if changed is None else changed
        return result

    # --- loading ---

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state and options: this optimizer's own, or PyTorch's of the same kind.

        Parameters are matched by their order, as in PyTorch. All of it fits, or nothing is changed. A
        compiled step is not traced again if the same parameters step together as before.

        Args:
            state_dict: as :meth:`state_dict` of this class or of torch's gives it; the arrays may be
                torch tensors. Options that choose one of torch's implementations (``foreach``,
                ``fused``, ...) stay as they are here, and so do options that are not in it.

        Raises:
            OptimizerStateError: other groups, parameters, options, names or shapes; everything that
                does not fit is listed.

        References:
            torch.optim.Optimizer.load_state_dict
        """
        self._refuse_inside("a state_dict was loaded into an optimizer")
        name = type(self).__name__
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise OptimizerStateError(
                f"{name}.load_state_dict takes a dict with 'state' and 'param_groups', as {name}.state_dict() gives "
                f"it, but got {describe(state_dict)}"
            )
        given: Any = dict(state_dict)
        for hook in list(self._load_state_dict_pre_hooks.values()):
            changed = hook(self, given)
            given = given if changed is None else changed
        problems: list[str] = []
        plans = self._plan(given, problems)
        if problems:
            listed = "\n    ".join(problems)
            raise OptimizerStateError(
                f"the state_dict does not fit this {name}:\n    {listed}\nNothing was changed."
            )
        for group, (options, loaded) in zip(self.param_groups, plans, strict=True):
            for option, value in options.items():
                group[option] = value
            self._install(group, loaded)
        Version.structure += 1
        for hook in list(self._load_state_dict_post_hooks.values()):
            hook(self)

    def _plan(
        self, given: Mapping[str, Any], problems: list[str]
    ) -> list[tuple[dict[str, Any], list[Loaded]]]:
        """New options and memories for every group, or problems."""
        saved_groups = list(given["param_groups"])
        if len(saved_groups) != len(self.param_groups):
            problems.append(
                f"loaded state dict has a different number of parameter groups: {len(saved_groups)}, where the "
                f"optimizer has {len(self.param_groups)}"
            )
            return []
        states = {str(key): value for key, value in dict(given["state"]).items()}
        plans, known = [], set()
        for g, (group, saved) in enumerate(zip(self.param_groups, saved_groups, strict=True)):
            if not isinstance(saved, Mapping) or "params" not in saved:
                problems.append(f"group {g} must be a dict with 'params', but is {describe(saved)}")
                continue
            ids = [str(i) for i in saved["params"]]
            known.update(ids)
            options = self._options(group, saved, f"group {g}", problems)
            if len(ids) != len(group["params"]):
                problems.append(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                    f"group {g} has {len(ids)} parameters there, and {len(group['params'])} here"
                )
                continue
            names = group.get("param_names") or [
                f"parameter {i} of group {g}" for i in range(len(ids))
            ]
            entries = {i: states[key] for i, key in enumerate(ids) if states.get(key)}
            loaded: list[Loaded] = []
            try:
                loaded = self._read_states({**group, **options}, entries, names, problems)
            except FuncnetsError as error:  # options that cannot be, noted already
                if not problems:
                    problems.append(f"group {g}: {error}")
            problems.extend(group.set_apart([places for places, _ in loaded]))
            plans.append((options, loaded))
        if unknown := [key for key, value in states.items() if key not in known and value]:
            problems.append(f"state for {', '.join(unknown)}, which no group holds")
        return plans

    def _options(
        self, group: Any, saved: Mapping[str, Any], where: str, problems: list[str]
    ) -> dict[str, Any]:
        """The loaded options that differ."""
        found: dict[str, Any] = {}
        for name, value in saved.items():
            if name == "params" or name in KERNEL_OPTIONS:
                continue
            if name == "param_names":
                own, given = list(group.get(name, value)), list(value)
                if own != given and sorted(own) == sorted(given):
                    problems.append(
                        f"{where} has the same parameters in another order: {given}, not {own}"
                    )
            elif name in group or name in SCHEDULER_KEYS:
                value = _plain(value, group.get(name))
                if name not in group or not _same(value, group[name]):
                    found[name] = value
            else:
                problems.append(
                    f"{where} has the option {name!r}, which {type(self).__name__} does not have"
                )
        try:
            options = {**group, **found}
            if "lr" in found:
                found["lr"] = float(found["lr"])
            self._check(options)
            self._transformation(options, 0.0)
        except (FuncnetsError, TypeError, ValueError) as error:
            problems.append(f"{where}: {error}")
        return found

    def _read_states(
        self,
        options: Mapping[str, Any],
        entries: Mapping[int, Mapping[str, Any]],
        names: list[str],
        problems: list[str],
    ) -> list[Loaded]:
        """The states of a group's parameters, as memories.

        Args:
            options: the group, with its new options.
            entries: what was saved, by the place of the parameter in the group.
            names: the parameters' names, for errors.
            problems: what does not fit is added to it.
        """
        cells: list[Parameter] = options["params"]
        slots, _ = Memory(cells).slots(self._transformation(options, 0.0))
        together: dict[Any, Loaded] = {}
        for place, entry in entries.items():
            mine = {
                self._name_of(slot): slot
                for slot in slots
                if slot.place in (None, place) and slot.field != STARTED
            }
            values = {name: value for name, value in dict(entry).items() if value is not None}
            missing = [n for n in mine if n not in values and n not in self._sometimes]
            unknown = [n for n in values if n not in mine and n not in self._sometimes]
            if missing:
                problems.append(f"{names[place]}: missing {', '.join(missing)}")
            if unknown:
                problems.append(f"{names[place]}: unknown {', '.join(unknown)}")
            arrays: dict[tuple[str, bool], jax.Array] = {}
            for name, value in values.items():
                if name not in unknown:
                    slot = mine.get(name)
                    like = jax.ShapeDtypeStruct(cells[place].shape, cells[place].dtype)
                    array = fitted(
                        value,
                        like if slot is None else slot.leaf,
                        f"{names[place]}: {name}",
                        problems,
                    )
                    if array is not None:
                        arrays[name, slot is None or slot.place is not None] = array
            shared = [(name, _digest(a)) for (name, own), a in arrays.items() if not own]
            kind = (tuple(sorted(shared)), tuple(sorted(name for name, _ in arrays)))
            places, rows = together.setdefault(kind, ([], {}))
            for (name, own), array in arrays.items():
                rows[name, len(places) if own else None] = array
            places.append(place)
        return [loaded for loaded in together.values() if loaded[1]]

    def _install(self, group: Any, loaded: Iterable[Loaded]) -> None:
        """Give a group its new memories; those that are of the same parameters keep their cells."""
        tx = self._transformation(group, 0.0)
        wanted = [group.by_cell(places, values) for places, values in loaded]
        taken = {cell for cells, _ in wanted for cell in cells}
        kept: list[Memory] = []
        for cells, values in wanted:
            memory = next((m for m in group.memories if m.holds(cells)), None)
            if memory is None:
                memory = Memory(cells)
                group.generation += 1
            memory.put(tx, values, self._name_of)
            kept.append(memory)
        for memory in group.memories:
            if memory in kept:
                continue
            if taken.isdisjoint(memory.cells):
                memory.forget()  # its parameters have not stepped yet
                kept.append(memory)
            else:
                group.generation += 1
        group.memories[:] = kept


def fitted(
    value: Any, like: jax.ShapeDtypeStruct, what: str, problems: list[str]
) -> jax.Array | None:
    """A loaded value as an array of the shape and dtype of ``like``; None, and a problem, if it is not.

    Args:
        value: an array, a torch tensor or a number.
        like: what is needed.
        what: its name, for the problem.
        problems: to which that is added.
    """
    try:
        array = as_array(value, None)
    except (FuncnetsError, TypeError, ValueError):
        problems.append(f"{what} must be an array, but is {describe(value)}")
        return None
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) and not jnp.issubdtype(
        array.dtype, jax.dtypes.prng_key
    ):
        array = jax.random.wrap_key_data(
            array, impl=str(jax.random.key_impl(jnp.empty((), like.dtype)))
        )
    if array.shape != like.shape:
        problems.append(f"{what} must have shape {like.shape}, but has {array.shape}")
        return None
    loses = jnp.issubdtype(array.dtype, jnp.complexfloating) and not jnp.issubdtype(
        like.dtype, jnp.complexfloating
    )
    if loses:
        problems.append(f"{what} must be {like.dtype}, but is {array.dtype}")
        return None
    return array if array.dtype == like.dtype else array.astype(like.dtype)


def _plain(value: Any, like: Any = None) -> Any:
    """An option as Python's numbers and tuples, whatever a file made of it."""
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        value = value.tolist()
    if isinstance(value, (list, tuple)) and isinstance(like, tuple):
        value = tuple(_plain(v) for v in value)
    return value


def _same(value: Any, present: Any) -> bool:
    """Whether an option need not be changed: 0 and 0.0 would be two programs."""
    if isinstance(value, bool) != isinstance(present, bool):
        return False
    return bool(np.all(value == present)) if type(value) is not str else value == present


def _digest(array: jax.Array) -> bytes:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()
