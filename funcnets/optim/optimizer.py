"""``Optimizer``: an optax transformation with PyTorch's stateful interface.

The moments are cells like a module's buffers, so ``fn.jit`` threads and donates them without knowing
what an optimizer is. The learning rate is a cell, too: it is data, and changing it never recompiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.cell import Buffer, Cell, Parameter, Stateful, Version
from funcnets.core.jit import jit
from funcnets.core.layer import cells_of_tree, flatten
from funcnets.core.tree import Same, freeze
from funcnets.errors import ArgumentError, DTypeError, TreeError, UnsupportedError
from funcnets.init import Initializer

__all__ = ["Optimizer", "ParamGroup"]


class ParamGroup(dict[str, Any]):
    """The hyper-parameters of some parameters; assigning to one takes effect at the next step.

    ``group["lr"]`` is data of the compiled step. Other hyper-parameters are part of the program: a new
    value traces the step again, an earlier one finds its program.
    """

    def __init__(self, cells: list[Parameter], names: list[str] | None, options: Mapping[str, Any]) -> None:
        super().__init__(params=cells, **options)
        self.names = names
        self.rate: Buffer | None = None
        if "lr" in options:
            self.rate = Buffer(_rate(options["lr"]))
        # What optax keeps for these parameters: the tree's structure and a cell for every array.
        self.structure: Any = None
        self.memory: list[Buffer] = []

    @property
    def cells(self) -> list[Parameter]:
        return self["params"]

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if name == "lr" and self.rate is not None:
            self.rate._set(_rate(value))
        else:
            Version.structure += 1

    def update(self, *args: Any, **kwargs: Any) -> None:
        for name, value in dict(*args, **kwargs).items():
            self[name] = value


def _rate(value: Any) -> jax.Array:
    """A learning rate as an array of JAX's default float."""
    return jnp.asarray(np.asarray(value, jnp.result_type(float)))


class _Start(Initializer):
    """The initial memory of a group: ``tx.init``, run once when the first of its cells is needed."""

    needs_key: ClassVar[bool] = False

    def __init__(self, begin: Callable[[], list[jax.Array]], index: int) -> None:
        object.__setattr__(self, "begin", begin)
        object.__setattr__(self, "index", index)

    def __call__(self, key: Any, shape: Any, dtype: Any = None) -> jax.Array:
        return self.begin()[self.index]  # pyright: ignore[reportAttributeAccessIssue]

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Optimizer(Stateful):
    """Any optax transformation, used statefully; the base class of this package's optimizers.

    Args:
        params: parameters (``model.parameters()``), ``(name, parameter)`` pairs
            (``model.named_parameters()``), or a list of groups: dicts with ``"params"`` and options
            that differ from the defaults.
        tx: an ``optax.GradientTransformation``, with its learning rate in it.

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
        self._compiled_step = jit(self._step)
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
            ArgumentError: an unknown option, or a parameter that the optimizer holds already.
            DTypeError: something else than parameters.
        """
        if frames.current() is not None:
            raise ArgumentError("parameter groups are added outside of a call")
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise DTypeError(f"param_group must be a dict with 'params', but got {describe(param_group)}")
        given = param_group["params"]
        entries = [given] if isinstance(given, Cell) else list(given)
        names: list[str] | None = None
        if entries and all(isinstance(e, tuple) and len(e) == 2 for e in entries):
            names, entries = [n for n, _ in entries], [p for _, p in entries]
        for cell in entries:
            if not isinstance(cell, Parameter):
                raise DTypeError(f"optimizer can only optimize Parameters, but one of the params is {describe(cell)}")
        options = {**self.defaults, **{k: v for k, v in param_group.items() if k != "params"}}
        unknown = [k for k in options if k not in self.defaults and k not in ("initial_lr", "name")]
        if unknown:
            raise ArgumentError(
                f"unknown options {unknown} in a parameter group; {type(self).__name__} has {sorted(self.defaults)}"
            )
        known = {id(c) for group in self.param_groups for c in group.cells}
        if len({id(c) for c in entries}) < len(entries) or any(id(c) in known for c in entries):
            raise ArgumentError("some parameters appear in more than one parameter group, or twice in one")
        self._check(options)
        group = ParamGroup(entries, names, options)
        self._remember(group)
        self.param_groups.append(group)
        Version.structure += 1

    # --- what a subclass defines ---

    def _check(self, options: Mapping[str, Any]) -> None:
        """Refuse hyper-parameters that cannot be."""

    def _transformation(self, group: Mapping[str, Any], lr: Any) -> optax.GradientTransformation:
        """The pure transformation for a group; ``lr`` may be a traced array."""
        if self._tx is None:
            raise ArgumentError("Optimizer needs an optax transformation: optim.Optimizer(params, optax.adam(1e-3))")
        return self._tx

    # --- memory ---

    def _remember(self, group: ParamGroup) -> None:
        """Describe what the transformation keeps for a group, without allocating it."""
        tx = self._transformation(group, 0.0)
        shapes = {str(i): jax.ShapeDtypeStruct(c.shape, c.dtype) for i, c in enumerate(group.cells)}
        leaves, group.structure = jax.tree.flatten(jax.eval_shape(tx.init, shapes))
        started: list[jax.Array] = []

        def begin() -> list[jax.Array]:
            if not started:
                values = jax.tree.leaves(tx.init({str(i): c.lend() for i, c in enumerate(group.cells)}))
                held = {id(c._value) for c in group.cells}
                for value in values:  # a transformation may keep the parameters themselves
                    value = jnp.asarray(value)
                    started.append(jnp.copy(value) if id(value) in held else value)
                    held.add(id(started[-1]))
            return started

        group.memory = [
            Buffer(leaf.shape, _Start(begin, i), dtype=leaf.dtype) for i, leaf in enumerate(leaves)
        ]

    def _cells(self) -> Iterator[tuple[str, Cell]]:
        for g, group in enumerate(self.param_groups):
            yield from ((f"{g}.params.{i}", cell) for i, cell in enumerate(group.cells))
            yield from ((f"{g}.memory.{i}", cell) for i, cell in enumerate(group.memory))
            if group.rate is not None:
                yield f"{g}.lr", group.rate

    def _will_write(self) -> Iterator[Cell]:
        for group in self.param_groups:
            yield from (c for c in group.cells if c.requires_grad)
            yield from group.memory

    def _fingerprint(self) -> Any:
        return type(self), [
            (
                [(Same(c), c.requires_grad) for c in group.cells],
                [(k, freeze(v)) for k, v in group.items() if k not in ("params", "lr", "initial_lr")],
            )
            for group in self.param_groups
        ]

    # --- the step ---

    def step(self, grads: Any) -> None:
        """Update the parameters.

        Args:
            grads: what ``fn.grad`` or ``fn.value_and_grad`` of the model returned, possibly changed
                (clipped, averaged); a tuple of them if several modules were differentiated.

        Raises:
            TreeError: the names or shapes are not those of the parameters.
        """
        if callable(grads):
            raise DTypeError(
                "step(closure) is not how gradients arrive here: "
                "loss, grads = fn.value_and_grad(loss_fn)(model); optimizer.step(grads)"
            )
        if frames.current() is not None:
            self._step(grads)
        else:
            # Find the parameters now: an error should not come out of a trace.
            self._gradients(grads)
            self._compiled_step(grads)

    def _step(self, grads: Any) -> None:
        frame = frames.current()
        assert frame is not None
        frame.used[self] = None
        gradients = self._gradients(grads)
        for group in self.param_groups:
            present = {str(i): c for i, c in enumerate(group.cells) if c in gradients}
            if not present:
                continue
            params = {str(i): frame.read(c) for i, c in enumerate(group.cells)}
            tree = {
                name: gradients[present[name]] if name in present else jnp.zeros_like(value)
                for name, value in params.items()
            }
            memory = [frame.read(cell) for cell in group.memory]
            lr = None if group.rate is None else frame.read(group.rate)
            tx = self._transformation(group, lr)
            updates, state = tx.update(tree, jax.tree.unflatten(group.structure, memory), params)
            for name, cell in present.items():
                new = optax.apply_updates(params[name], updates[name])
                frame.write(cell, new, "a parameter")
            absent = params.keys() - present.keys()
            rows = jax.tree_util.tree_flatten_with_path(state)[0]
            for cell, (path, value) in zip(group.memory, rows, strict=True):
                # A parameter without a gradient is left alone, and so is what is kept for it.
                if not any(getattr(entry, "key", None) in absent for entry in path):
                    frame.write(cell, value, "an optimizer's memory")

    def _gradients(self, grads: Any) -> dict[Cell, Any]:
        """The gradient of each parameter that has one."""
        owned = {c for group in self.param_groups for c in group.cells}
        found: dict[Cell, Any] = {}
        for tree in grads if isinstance(grads, (tuple, list)) else (grads,):
            if not isinstance(tree, dict):
                raise DTypeError(
                    "step takes the gradients that fn.grad or fn.value_and_grad returned (a nested dict), "
                    f"but got {describe(tree)}"
                )
            found |= self._named(tree) or cells_of_tree(tree, owned) or self._refuse(tree)
        for cell, value in found.items():
            if tuple(value.shape) != cell.shape:
                raise TreeError(f"a gradient has shape {tuple(value.shape)} for a parameter of shape {cell.shape}")
        return {cell: value for cell, value in found.items() if cell in owned and cell.requires_grad}

    def _named(self, tree: Any) -> dict[Cell, Any] | None:
        """By the names that ``named_parameters`` gave, if they are the tree's."""
        names = {
            name: cell
            for group in self.param_groups
            for name, cell in zip(group.names or (), group.cells, strict=False)
        }
        rows = dict(flatten(tree))
        return {names[n]: g for n, g in rows.items()} if names and names.keys() == rows.keys() else None

    def _refuse(self, tree: Any) -> dict[Cell, Any]:
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
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def refuse_flags(owner: str, **flags: Any) -> None:
    """torch's implementation switches, which have no counterpart: XLA fuses the whole step."""
    for name, value in flags.items():
        if value:
            raise UnsupportedError(f"{owner}({name}=True) selects one of torch's kernels; XLA fuses the step: leave it out")


def require(condition: bool, what: str, value: Any) -> None:
    if not condition:
        raise ArgumentError(f"Invalid {what}: {value}")


def betas_of(options: Mapping[str, Any]) -> Sequence[float]:
    """Two decay rates within [0, 1)."""
    betas = options["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ArgumentError(f"betas must be a pair of numbers, but got {betas!r}")
    for i, beta in enumerate(betas):
        require(0.0 <= beta < 1.0, f"beta parameter at index {i}", beta)
    return betas
