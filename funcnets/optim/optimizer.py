"""``Optimizer``: an optax transformation with PyTorch's stateful interface.

The moments are cells like a module's buffers, so ``fn.jit`` threads and donates them without knowing
what an optimizer is. The learning rate is a cell, too: it is data, and changing it never recompiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.cell import Buffer, Cell, Parameter, Stateful, Version
from funcnets.core.jit import jit
from funcnets.core.layer import cells_of_trees, flatten
from funcnets.core.tree import Same, freeze
from funcnets.errors import ArgumentError, DTypeError, StateLeakError, TreeError, UnsupportedError
from funcnets.optim.memory import Memory

__all__ = ["Optimizer", "ParamGroup"]


class ParamGroup(dict[str, Any]):
    """The hyper-parameters of some parameters; assigning to one takes effect at the next step.

    ``group["lr"]`` is data of the compiled step. Other hyper-parameters are part of the program: a new
    value traces the step again, an earlier one finds its program.

    Args:
        cells: the parameters, which ``group["params"]`` gives.
        options: the hyper-parameters by name.

    Examples:
        >>> from funcnets import nn, optim
        >>> group = optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1).param_groups[0]
        >>> group["lr"] *= 0.5
        >>> group["lr"]
        0.05
    """

    def __init__(self, cells: Sequence[Parameter], options: Mapping[str, Any]) -> None:
        super().__init__(params=list(cells), **options)
        self.rate: Buffer | None = None
        if "lr" in options:
            self.rate = Buffer(_rate(options["lr"]))
        self.memories: list[Memory] = []
        # A guess of the parameters that the next step starts with; spares fn.jit a second trace.
        self._expected: Memory | None = None

    @property
    def cells(self) -> list[Parameter]:
        """The parameters."""
        return self["params"]

    def __setitem__(self, name: str, value: Any) -> None:
        if frames.current() is not None:
            raise StateLeakError(
                f"the option {name!r} was changed inside a call, where it would change once and not at every step: "
                "change it outside, between the steps"
            )
        super().__setitem__(name, value)
        if name == "lr" and self.rate is not None:
            self.rate._set(_rate(value, self.rate.dtype))
        else:
            Version.structure += 1

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign several options, as ``dict.update`` does."""
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __ior__(self, other: Any) -> ParamGroup:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.update(other)
        return self

    def share_out(self, ready: Any) -> list[Memory]:
        """The memories that a step uses; parameters in ``ready`` that have none get one together."""
        started = {cell for memory in self.memories for cell in memory.cells}
        fresh = [c for c in self.cells if c in ready and c not in started]
        if fresh:
            expected, self._expected = self._expected, None
            fits = expected is not None and list(map(id, expected.cells)) == list(map(id, fresh))
            memory = expected if expected is not None and fits else Memory(fresh)
            memory.started = True
            self.memories.append(memory)
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


def _rate(value: Any, dtype: Any = None) -> jax.Array:
    """A learning rate as an array, of JAX's default float if nothing else is asked."""
    return jnp.asarray(np.asarray(value, jnp.result_type(float) if dtype is None else dtype))


class Optimizer(Stateful):
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
        self._tx = tx
        self.defaults = dict(defaults or {})
        self.param_groups: list[ParamGroup] = []
        self._compiled_step = jit(self._step_by_place)
        groups = list(params)
        if not groups:
            raise ArgumentError("optimizer got an empty parameter list")
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
        if frames.current() is not None:
            raise StateLeakError("a parameter group was added inside a call: add it outside")
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
        unknown = [
            k
            for k in options
            if k not in self.defaults and k not in ("initial_lr", "name", "param_names")
        ]
        if unknown:
            raise ArgumentError(
                f"unknown options {unknown} in a parameter group; {type(self).__name__} has {sorted(self.defaults)}"
            )
        known = {c for group in self.param_groups for c in group.cells}
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
        self._check(options)
        self._transformation(options, 0.0)
        self.param_groups.append(ParamGroup(cells, options))
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
                _, _, buffers, _ = memory.arrange(tx)
                yield from ((f"{g}.memory.{m}.{i}", buffer) for i, buffer in enumerate(buffers))

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        for g, group in enumerate(self.param_groups):
            yield from ((f"{g}.params.{i}", cell) for i, cell in enumerate(group.cells))
            if group.rate is not None:
                yield f"{g}.lr", group.rate
        yield from self._memory()

    def _will_write(self) -> Iterator[Cell]:
        for group in self.param_groups:
            yield from (c for c in group.cells if c.requires_grad)
        for _, buffer in self._memory():
            yield buffer

    def _fingerprint(self) -> Any:
        return type(self), [
            (
                [(Same(c), c.requires_grad) for c in group.cells],
                [
                    (k, freeze(v))
                    for k, v in group.items()
                    if k not in ("params", "lr", "initial_lr")
                ],
            )
            for group in self.param_groups
        ]

    # --- the step ---

    def step(self, grads: Any) -> None:
        """Update the parameters.

        Args:
            grads: what ``fn.grad`` or ``fn.value_and_grad`` of the model returned, possibly changed
                (clipped, averaged); if several modules were differentiated, a tuple of them, in
                the order in which they were.

        Raises:
            TreeError: the names or shapes are not those of the parameters, or they are those of
                several modules whose parameters this optimizer holds.
            DTypeError: the gradients are not a nested dict, or have another dtype than the parameters.
        """
        if callable(grads):
            raise DTypeError(
                "step(closure) is not how gradients arrive here: "
                "loss, grads = fn.value_and_grad(loss_fn)(model); optimizer.step(grads)"
            )
        gradients = self._gradients(grads)
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

    def _step_by_place(self, gradients: dict[str, Any]) -> None:
        places = {place: tuple(map(int, place.split("."))) for place in gradients}
        self._update(
            {self.param_groups[g].cells[i]: gradients[place] for place, (g, i) in places.items()}
        )

    def _update(self, gradients: dict[Parameter, Any]) -> None:
        frame = frames.current()
        if frame is None:
            raise StateLeakError(
                "optimizer.step() inside a raw JAX transformation (jax.jit, jax.grad, ...): the new parameters would "
                "be lost. Use fn.jit, or the pure face: a transformation such as optim.sgd_tx, and optax.apply_updates"
            )
        frame.used[self] = None
        for group in self.param_groups:
            tx = self._transformation(group, None if group.rate is None else frame.read(group.rate))
            for memory in group.share_out(gradients):
                self._advance(frame, tx, memory, gradients)

    def _advance(
        self,
        frame: Any,
        tx: optax.GradientTransformation,
        memory: Memory,
        gradients: dict[Parameter, Any],
    ) -> None:
        """One update of the parameters of one memory."""
        cells = {str(i): cell for i, cell in enumerate(memory.cells)}
        params = {name: frame.read(cell) for name, cell in cells.items()}
        # JAX's gradient of a complex number points to the conjugate of the steepest ascent.
        tree = {
            name: jnp.conj(gradients[cell]) if cell in gradients else jnp.zeros_like(params[name])
            for name, cell in cells.items()
        }
        paths, leaves, buffers, structure = memory.arrange(tx)
        # The dtype differs if the model was converted since.
        values = [frame.read(b).astype(leaf.dtype) for b, leaf in zip(buffers, leaves, strict=True)]
        done: Any = tx.update(tree, jax.tree.unflatten(structure, values), params)
        updates, state = done
        absent = {name for name, cell in cells.items() if cell not in gradients}
        for name in params.keys() - absent:
            frame.write(
                cells[name], optax.apply_updates(params[name], updates[name]), "a parameter"
            )
        for buffer, path, value in zip(buffers, paths, jax.tree.leaves(state), strict=True):
            # A parameter without a gradient is left alone, and so is what is kept for it.
            if not any(getattr(entry, "key", None) in absent for entry in path):
                frame.write(buffer, value, "an optimizer's memory")

    def _gradients(self, grads: Any) -> dict[Parameter, Any]:
        """The gradient of each parameter that has one."""
        trees = list(grads) if isinstance(grads, (tuple, list)) else [grads]
        for tree in trees:
            if not isinstance(tree, dict):
                raise DTypeError(
                    "step takes the gradients that fn.grad or fn.value_and_grad returned (a nested dict), "
                    f"but got {describe(tree)}"
                )
        owned = {c for group in self.param_groups for c in group.cells}
        names = {id(value): name for tree in trees for name, value in flatten(tree)}
        found: dict[Any, Any] = {}
        matched: Any = self._named(trees) or cells_of_trees(trees, owned)
        for tree, rows in zip(trees, matched, strict=True):
            found |= self._refuse(tree) if rows is None else rows
        for cell, value in found.items():
            for what, error in (("shape", TreeError), ("dtype", DTypeError)):
                if getattr(value, what, None) != getattr(cell, what):
                    raise error(
                        f"the gradient of {names[id(value)]} must have its parameter's {what}, {getattr(cell, what)}, "
                        f"but is {describe(value)}"
                    )
        return {
            cell: value for cell, value in found.items() if cell in owned and cell.requires_grad
        }

    def _named(self, trees: list[Any]) -> list[dict[Parameter, Any]] | None:
        """By the names that ``named_parameters`` gave, if they are those of the gradients together."""
        names = {
            name: cell
            for group in self.param_groups
            for name, cell in zip(group.get("param_names", ()), group.cells, strict=False)
            if cell.requires_grad
        }
        found = [dict(flatten(tree)) for tree in trees]
        rows = [name for tree in found for name in tree]
        if not names or sorted(rows) != sorted(names):
            return None
        return [{names[name]: value for name, value in tree.items()} for tree in found]

    def _refuse(self, tree: Any) -> NoReturn:
        names = [name for name, _ in flatten(tree)]
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        count = sum(len(group.cells) for group in self.param_groups)
        raise TreeError(
            f"these gradients do not belong to the {count} parameters of this {type(self).__name__}: their names "
            f"are {listed or 'none'}. Pass what fn.grad or fn.value_and_grad of the model returned"
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients are values here and are never accumulated: this raises and says so."""
        raise UnsupportedError(
            "there is nothing to zero: fn.value_and_grad returns fresh gradients every time; delete this line"
        )

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            lines = [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
            text += "\n".join([f"\nParameter Group {i}", *lines, ""])
        return text + ")"
