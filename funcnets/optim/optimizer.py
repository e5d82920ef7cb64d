"""``Optimizer``: an optax transformation with PyTorch's stateful interface.

The moments are cells like a module's buffers, so ``fn.jit`` threads and donates them without knowing
what an optimizer is. The learning rate is a cell, too: it is data, and changing it never recompiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.cell import Buffer, Cell, Parameter, Stateful, Version
from funcnets.core.jit import jit
from funcnets.core.module import Module
from funcnets.core.pack import value_of
from funcnets.core.printing import rich_text
from funcnets.errors import ArgumentError, DTypeError, StateLeakError, UnsupportedError
from funcnets.optim._joined import update_apart, update_joined
from funcnets.optim.gradients import gradients_of
from funcnets.optim.memory import Memory
from funcnets.optim.param_group import SCHEDULER_KEYS, ParamGroup
from funcnets.optim.state_dict import StateDict

__all__ = ["Optimizer"]


class Optimizer(StateDict, Stateful):
    """Any optax transformation, used statefully; the base class of this package's optimizers.

    Args:
        params: parameters (``model.parameters()``), ``(name, parameter)`` pairs
            (``model.named_parameters()``), or a list of groups: dicts with ``"params"`` and options
            that differ from the defaults.
        tx: an ``optax.GradientTransformation``, with its learning rate in it.
        defaults: for subclasses: the options of a group and their defaults.

    Raises:
        ArgumentError: no parameters, or one of them twice.
        DTypeError: something else than parameters.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> import funcnets as fn
        >>> from funcnets import nn, optim
        >>> model = nn.Linear(2, 1)
        >>> optimizer = optim.Optimizer(model.parameters(), optax.lion(1e-3))
        >>> grads = fn.grad(lambda m: m(jnp.ones(2)).sum())(model)
        >>> optimizer.step(grads)

    References:
        torch.optim.Optimizer; optax.GradientTransformation
    """

    #: Options that ``param_group.drive`` can make data of the step: the rule takes arrays for them.
    _drivable: ClassVar[tuple[str, ...]] = ()
    #: Whether the rule treats every number by itself: small arrays are then updated together.
    _elementwise: ClassVar[bool] = False

    def __init__(
        self,
        params: Iterable[Any],
        tx: optax.GradientTransformation | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(params, (Cell, jax.Array, np.ndarray)):
            raise DTypeError(
                "params argument given to the optimizer should be an iterable of Parameters or dicts, "
                f"but got {describe(params)}"
            )
        if isinstance(params, Module):
            raise DTypeError(
                f"an optimizer takes parameters, but got a {type(params).__name__}: pass model.parameters()"
            )
        self._tx = tx
        self.defaults = dict(defaults or {})
        self.param_groups: list[ParamGroup] = []
        self._compiled_step = jit(self._step_by_place)
        self._init_hooks()
        self._opt_called = False  # PyTorch's name; schedulers look at it
        groups = list(params)
        if not groups:
            raise ArgumentError(
                "optimizer got an empty parameter list; modules and parameters in a plain list or dict do not count: "
                "use nn.ModuleList, nn.ParameterList or nn.ModuleDict"
            )
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own.

        Args:
            param_group: a dict with ``"params"`` (one parameter, or an iterable of parameters or of
                ``(name, parameter)`` pairs) and any options; the others take their default.

        Raises:
            ArgumentError: an unknown option, a parameter that the optimizer holds already, or names
                for some parameters only.
            DTypeError: something else than parameters.
        """
        self._refuse_inside("a parameter group was added")
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise DTypeError(
                f"param_group must be a dict with 'params', but got {describe(param_group)}"
            )
        given = param_group["params"]
        if isinstance(given, (set, frozenset)):
            raise DTypeError(
                "optimizer parameters need to be organized in ordered collections, but a set's order changes between "
                "runs: pass a list"
            )
        options = {**self.defaults, **{k: v for k, v in param_group.items() if k != "params"}}
        cells = self._unpack([given] if isinstance(given, Cell) else list(given), options)
        unknown = [k for k in options if k not in self.defaults and k not in SCHEDULER_KEYS]
        if unknown:
            raise ArgumentError(
                f"unknown options {unknown} in a parameter group; {type(self).__name__} has {sorted(self.defaults)}"
            )
        known = {c for group in self.param_groups for c in group["params"]}
        if len(set(cells)) < len(cells) or not known.isdisjoint(cells):
            raise ArgumentError(
                "some parameters appear in more than one parameter group, or twice in one"
            )
        if any(
            ("param_names" in group) != ("param_names" in options) for group in self.param_groups
        ):
            raise ArgumentError("all optimizer param groups should be with names, or all without")
        if callable(options.get("lr")):
            raise DTypeError(
                f"lr must be a number, but got {describe(options['lr'])}; a schedule belongs into a transformation: "
                "optim.Optimizer(params, optim.sgd_tx(schedule))"
            )
        self._check({"params": cells, **options})
        self._transformation(options, 0.0)
        self.param_groups.append(ParamGroup(cells, options, self))
        Version.structure += 1

    def _unpack(self, entries: list[Any], options: dict[str, Any]) -> list[Parameter]:
        """The parameters; names that came with them become the option ``param_names``, as in PyTorch."""
        names = [entry[0] for entry in entries if isinstance(entry, tuple) and len(entry) == 2]
        if names:
            if len(names) < len(entries):
                raise ArgumentError(
                    "all optimizer params should be with names, or all without: some are missing"
                )
            options["param_names"], entries = names, [entry[1] for entry in entries]
        for cell in entries:
            if not isinstance(cell, Parameter):
                raise DTypeError(
                    f"optimizer can only optimize Parameters, but one of the params is {describe(cell)}"
                )
        return entries

    def _refuse_inside(self, what: str, why: str = "it would not happen at every step") -> None:
        if frames.current() is not None:
            raise StateLeakError(
                f"{what} inside a call, where {why}: do it outside, between the steps"
            )

    # --- what a subclass defines ---

    def _check(self, options: Mapping[str, Any]) -> None:
        """Refuse hyper-parameters that cannot be."""

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        """The pure transformation for a group; ``lr`` may be a traced array."""
        if self._tx is None:
            raise ArgumentError(
                "Optimizer needs an optax transformation: optim.Optimizer(params, optax.adam(1e-3))"
            )
        return self._tx

    # --- for fn.jit ---

    def _memory(self) -> Iterator[tuple[str, Buffer]]:
        for g, group in enumerate(self.param_groups):
            tx = self._transformation(group, 0.0)
            for m, memory in enumerate(group.expected_memories()):
                slots, _ = memory.slots(tx)
                yield from ((f"{g}.memory.{m}.{i}", slot.buffer) for i, slot in enumerate(slots))

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        for g, group in enumerate(self.param_groups):
            yield from ((f"{g}.params.{i}", cell) for i, cell in enumerate(group.cells))
            if group.rate is not None:
                yield f"{g}.lr", group.rate
            for name, cells in group.driven.items():
                yield from ((f"{g}.{name}.{i}", cell) for i, cell in enumerate(cells))
        yield from self._memory()

    def _will_write(self) -> Iterator[Cell]:
        for group in self.param_groups:
            yield from (c for c in group.cells if c.requires_grad)
        for _, buffer in self._memory():
            yield buffer

    def _fingerprint(self) -> Any:
        hooks = [*self._step_pre_hooks, *self._step_post_hooks]
        return type(self), hooks, [group.fingerprint() for group in self.param_groups]

    # --- the step ---

    def step(self, grads: Any) -> Any:
        """Update the parameters.

        Args:
            grads: what ``fn.grad`` or ``fn.value_and_grad`` of the model returned, possibly changed
                (clipped, averaged); if several modules were differentiated, a tuple of them, in
                the order in which they were. Or a closure without arguments that returns what
                ``fn.value_and_grad`` does, value and gradients.

        Returns:
            The value that the closure returned, or None.

        Raises:
            TreeError: the names or shapes are not those of the parameters, or they are those of
                several modules whose parameters this optimizer holds.
            DTypeError: the gradients are not a nested dict, or have another dtype than the parameters.
        """
        args, kwargs = (grads,), {}
        for hook in list(self._step_pre_hooks.values()):
            changed = hook(self, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise DTypeError(
                        f"a step pre-hook must return None or a tuple of (new_args, new_kwargs), but got {describe(changed)}"
                    )
                args, kwargs = changed
        out = self._step(*args, **kwargs)
        for hook in list(self._step_post_hooks.values()):
            hook(self, args, kwargs)
        return out

    def _step(self, grads: Any) -> Any:
        value = None
        if callable(grads):
            value, grads = evaluated(grads)
        gradients = gradients_of(self.param_groups, grads, type(self).__name__)
        if frames.current() is not None:
            self._update(gradients)
        else:
            # By position: what belongs to which parameter is then part of the compiled step.
            places = {
                cell: f"{g}.{i}"
                for g, group in enumerate(self.param_groups)
                for i, cell in enumerate(group.cells)
            }
            self._compiled_step({places[cell]: value for cell, value in gradients.items()})
        return value

    def _step_by_place(self, gradients: dict[str, Any]) -> None:
        places = {place: tuple(map(int, place.split("."))) for place in gradients}
        self._update(
            {self.param_groups[g].cells[i]: gradients[place] for place, (g, i) in places.items()}
        )

    def _frame(self) -> Any:
        """The running frame, in which a step happens."""
        frame = frames.current()
        if frame is None:
            raise StateLeakError(
                "optimizer.step() inside a raw JAX transformation (jax.jit, jax.grad, ...): the new parameters would "
                "be lost. Use fn.jit, or the pure face: a transformation such as optim.sgd_tx, and optax.apply_updates"
            )
        frame.used[self] = None
        self._opt_called = True
        return frame

    def _update(self, gradients: dict[Parameter, Any]) -> None:
        frame = self._frame()

        def copy(cell: Buffer) -> Buffer:
            twin = Buffer(jax.ShapeDtypeStruct(cell.shape, cell.dtype))
            twin.initializer = cell.initializer
            if cell.has_value:
                with jax.ensure_compile_time_eval():
                    twin._set(jnp.copy(value_of(cell)), lent=False)
            # The cell may have been written in this call.
            frame.write(twin, frame.read(cell), "an optimizer's memory")
            return twin

        for group in self.param_groups:
            rate = None if group.rate is None else frame.read(group.rate)
            tx = self._transformation(group.seen_by(frame.read), rate)
            # Only our own rules treat each parameter by itself.
            for memory in group.share_out(gradients, copy if self._tx is None else None):
                self._advance(frame, tx, memory, gradients)

    def _advance(
        self,
        frame: Any,
        tx: optax.GradientTransformation,
        memory: Memory,
        gradients: dict[Parameter, Any],
    ) -> None:
        """One update of the parameters of one memory."""
        cells = {memory.name(i): cell for i, cell in enumerate(memory.cells)}
        params = {name: frame.read(cell) for name, cell in cells.items()}
        # JAX's gradient of a complex number points to the conjugate of the steepest ascent.
        tree = {
            name: jnp.conj(gradients[cell]) if cell in gradients else jnp.zeros_like(params[name])
            for name, cell in cells.items()
        }
        slots, structure = memory.slots(tx)
        # The dtype differs if the model was converted since.
        values = [converted(frame.read(slot.buffer), slot.leaf.dtype) for slot in slots]
        update = update_joined if self._elementwise else update_apart
        new, state = update(tx, cells, tree, jax.tree.unflatten(structure, values), params)
        for name, cell in cells.items():
            if cell in gradients:
                frame.write(cell, new[name], "a parameter")
        for slot, value in zip(slots, jax.tree.leaves(state), strict=True):
            # A parameter without a gradient is left alone, and so is what is kept for it.
            if slot.place is None or memory.cells[slot.place] in gradients:
                frame.write(slot.buffer, value, "an optimizer's memory")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients are values here and are never accumulated: this raises and says so."""
        raise UnsupportedError(
            "there is nothing to zero: fn.value_and_grad returns fresh gradients every time; delete this line"
        )

    def _repr_html_(self) -> str | None:
        return rich_text(self)

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            lines = [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
            text += "\n".join([f"\nParameter Group {i}", *lines, ""])
        return text + ")"


def converted(value: jax.Array, dtype: Any) -> jax.Array:
    """A value in another dtype; random keys, which cannot be cast, as they are."""
    return value if value.dtype == dtype else value.astype(dtype)


def in_call() -> bool:
    """Whether a call is running, so that cells are read and written in its frame."""
    return frames.current() is not None


def call_until(
    closure: Callable[[], Any],
    advance: Callable[[Any, Any], Any],
    search: Any,
    at: Callable[[Any], dict[Cell, Any]],
    done: Callable[[Any], Any],
) -> tuple[Any, Any]:
    """Call ``closure`` in the running call, in a compiled loop, with other values for some cells each time.

    Buffers that the closure writes are carried from one call to the next, and each draws keys of its own.

    Args:
        closure: what is called.
        advance: ``(search, result) -> search``.
        search: the state that decides which values come next, and when it ends.
        at: gives the values of cells at which the closure is called next.
        done: whether it ends.

    Returns:
        What the first call returned, and the last state.
    """
    frame: Any = frames.current()
    key: Any = None

    def call(values: dict[Cell, Any], key: jax.Array | None) -> tuple[Any, frames.Frame]:
        child = frame.child(values, key)
        with frames.running(child):
            return closure(), child

    try:
        out, child = call(at(search), None)
    except frames.NeedsKey as need:
        key = frame.fork_key(need.what)
        out, child = call(at(search), jax.random.fold_in(key, 0))
    carried = list(child.written)
    frame.absorb(carried, child.written.values())

    def body(carry: Any) -> Any:
        search, values, count = carry
        given = {**dict(zip(carried, values, strict=True)), **at(search)}
        result, child = call(given, None if key is None else jax.random.fold_in(key, count))
        if not set(carried).issuperset(child.written):
            raise StateLeakError(
                "the closure of step(closure) writes other buffers in its second call than in its first"
            )
        news = [child.read(cell) for cell in carried]
        return advance(search, result), news, count + 1

    start = (advance(search, out), [frame.read(cell) for cell in carried], jnp.ones((), jnp.int32))
    search, news, _ = jax.lax.while_loop(lambda carry: ~done(carry[0]), body, start)
    frame.absorb(carried, news)
    return out, search


def evaluated(closure: Callable[[], Any]) -> tuple[Any, Any]:
    """Value and gradients out of a closure that was given to ``step``."""
    out = closure()
    if not isinstance(out, tuple) or len(out) != 2:
        raise DTypeError(
            "the closure of step(closure) must return the value and the gradients, as "
            "fn.value_and_grad(loss_fn)(model) gives them (loss, grads = fn.value_and_grad(loss_fn)(model); "
            f"optimizer.step(grads) does without one), but it returned {describe(out)}"
        )
    return out
