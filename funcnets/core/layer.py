"""The pure face: ``functionalize`` turns a module into a pair of pure functions.

``init`` draws every cell from a key that is folded from the cell's path, ``apply`` runs ``forward`` in a
frame made of the given ``params`` and ``state`` and returns what was written. Both work on plain
nested dicts keyed by attribute names.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.cell import Cell, Stateful, materialise
from funcnets.core.convert import as_array, refuse_tracer
from funcnets.core.draw import draw
from funcnets.core.frame import OWN, Frame, running
from funcnets.core.keys import check_key, path_keys
from funcnets.core.module import Module
from funcnets.core.rows import stack_rows
from funcnets.core.state_dict import store
from funcnets.errors import ArgumentError, DTypeError, ShapeError, StateLeakError, TreeError

__all__ = ["Layer", "functionalize", "get_variables", "set_variables"]

Tree = dict[str, Any]


class Layer(NamedTuple):
    """A pair of pure functions over plain pytrees.

    Attributes:
        init: ``init(key) -> (params, state)``; where shapes follow from an input,
            ``init(key, *example_args, **example_kwargs)``.
        apply: ``apply(params, state, *args, rng=None, training=None, **kwargs) -> (out, new_state)``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> def init(key):
        ...     return {"scale": jax.random.normal(key, (3,))}, {}
        >>> def apply(params, state, x, *, rng=None, training=None):
        ...     return x * params["scale"], state
        >>> layer = fn.Layer(init, apply)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.apply(params, state, jnp.ones(3))[0].shape
        (3,)
    """

    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., tuple[Any, Any]]


# --- trees ------------------------------------------------------------------------------------


def cell_rows(module: Module) -> tuple[dict[str, Cell], dict[str, Cell]]:
    """``(trained, others)``: the cells of ``params`` and of ``state`` by dotted path, each once."""
    trained: dict[str, Cell] = {}
    others: dict[str, Cell] = {}
    for path, cell in module._cells():
        (trained if cell.requires_grad else others)[path] = cell
    return trained, others


def nest(rows: Iterable[tuple[str, Any]]) -> Tree:
    """``{"fc": {"weight": ...}}`` out of ``("fc.weight", ...)`` rows."""
    tree: Tree = {}
    for path, value in rows:
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def flatten(tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The rows of a nested dict; whatever is not a dict is a leaf."""
    for name, value in tree.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict):
            yield from flatten(value, path)
        else:
            yield path, value


def match(cells: dict[str, Cell], tree: Any, what: str, module: Module) -> dict[Cell, Any]:
    """The array of every cell, or one error with everything that does not fit."""
    if not isinstance(tree, dict):
        raise TreeError(
            f"{what} must be a nested dict of arrays, as init(key) or get_variables(model) gives it, "
            f"but got {describe(tree)}"
        )
    given = dict(flatten(tree))
    problems = []
    missing = [path for path in cells if path not in given]
    unknown = [path for path in given if path not in cells]
    if missing:
        problems.append("missing: " + ", ".join(missing))
    if unknown:
        problems.append("unknown: " + ", ".join(unknown))
    for path, cell in cells.items():
        if path in given:
            value = given[path]
            shape = getattr(value, "shape", None)
            if shape is None or not (isinstance(value, jax.Array) or hasattr(value, "__array__")):
                problems.append(
                    f"{path} must be an array{f' of shape {cell.shape}' * cell.settled}, "
                    f"but is {describe(given[path])}"
                )
            elif cell.settled and tuple(shape) != cell.shape:
                problems.append(f"{path} must have shape {cell.shape}, but has {tuple(shape)}")
    if problems:
        listed = "\n    ".join(problems)
        raise TreeError(
            f"{what} do not fit {module._get_name()}:\n    {listed}\n"
            "params holds what has requires_grad=True, state all the rest; functionalize again after changing that"
        )
    return {
        cell: value if isinstance(value := given[path], jax.Array) else as_array(value, None)
        for path, cell in cells.items()
    }


def settle(values: dict[Cell, Any]) -> None:
    """Let arrays that fit settle the shapes that are not known yet."""
    for cell, value in values.items():
        if not cell.settled:
            cell._describe(tuple(value.shape), cell.dtype)


# --- functionalize ----------------------------------------------------------------------------


def _unknown(cell: Cell) -> Any:
    raise StateLeakError(
        f"the call reads a {type(cell).__name__} of shape {cell.shape} that is not part of the functionalized "
        "module: register the module that holds it as a sub-module, or pass its arrays as arguments"
    )


def call_abstractly(
    fun: Callable[..., Any],
    args: Any,
    kwargs: Any,
    parent: Frame | None = None,
    evaluate: Callable[..., Any] = jax.eval_shape,
    mode: Any = OWN,
) -> Any:
    """The shapes that a call gives, computing nothing; the shapes of lazy modules get known by it.

    ``evaluate`` is what traces the call, a function of its arrays: ``jax.make_jaxpr(f)(arrays)`` gives its program.
    """
    leaves, structure = jax.tree.flatten((args, kwargs), is_leaf=lambda x: isinstance(x, Stateful))
    kinds = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, kinds)]

    def pure(arrays: list[Any]) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        new_args, new_kwargs = jax.tree.unflatten(structure, filled)
        # Zeros under a trace are a description, not memory.
        frame = Frame(
            (lambda cell: jnp.zeros(cell.shape, cell.dtype)) if parent is None else parent.read,
            mode=mode,
            rng=lambda _frame, _what: jax.random.key(0),
            parent=parent,
        )
        frame.taps = None  # what is found here is no value
        with running(frame):
            return fun(*new_args, **new_kwargs)

    return evaluate(pure, [leaves[i] for i in places])


def refuse_unsettled(cells: Iterable[tuple[str, Cell]], what: str) -> None:
    """One error with the names of all cells whose shape is not known, if there are any."""
    names = [path for path, cell in cells if not cell.settled]
    if names:
        raise ShapeError(
            f"{what}, but the shapes of {', '.join(names)} are not known yet. They follow from an example of the "
            "input, an array or a jax.ShapeDtypeStruct: functionalize(model).init(key, example), "
            "fn.eval_shape(model, example), or a call of the model"
        )


def initial_values(module: Module, key: jax.Array) -> dict[Cell, Any]:
    """The initial value of every cell of a module, from one key."""
    rows = list(module._cells(rows=True))
    refuse_unsettled(rows, f"init draws the initial values of {module._get_name()}")
    paths = []
    for path, cell in rows:
        # Values that are made together have one key: that of another path (core/derived.py).
        rule, parts = cell.initializer, tuple(path.split("."))
        levels = getattr(rule, "levels_up", 0)
        paths.append((*parts[: len(parts) - levels], *getattr(rule, "below", ())))
    keys = path_keys(check_key("key", key), paths)
    values = draw([(c.initializer, c.shape, c.dtype) for _, c in rows], keys)
    drawn = {cell: value for (_, cell), value in zip(rows, values, strict=True)}
    return {
        cell: stack_rows([drawn[row] for row in cell.rows]) if cell.rows else drawn[cell]
        for _, cell in module._cells()
    }


def functionalize(module: Module) -> Layer:
    """The pure face of a module: ``init, apply = functionalize(model)``.

    ``init(key)`` gives ``(params, state)``: nested dicts, ``params`` with what has
    ``requires_grad=True`` and ``state`` with all the rest. A value depends on the key and on its own
    path only. ``init(key, *example_args, **example_kwargs)`` first runs ``forward`` on the shapes of the
    examples, computing nothing: so lazy modules learn their shapes, and an input that does not fit
    is found. ``apply(params, state, *args, rng=None, training=None, **kwargs)`` gives
    ``(out, new_state)``. Neither reads or changes the module's own
    values. Every JAX
    transformation takes both as they are.

    Args:
        module: any Module. Its structure is read when the functions run.

    Returns:
        A :class:`Layer`, which unpacks into the two functions.

    Raises:
        ShapeError: (from ``init``) there are lazy modules whose shapes are not known, all of them named.
        TreeError: (from ``apply``) params or state with missing, unknown or mis-shaped entries.
        ModeError: (from ``apply``) a layer that needs ``training=`` was reached without it.
        RngError: (from ``apply``) a layer that needs ``rng=`` was reached without it.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> init, apply = fn.functionalize(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)))
        >>> params, state = init(jax.random.key(0))
        >>> jax.tree.map(jnp.shape, params)
        {'0': {'bias': (3,), 'weight': (3, 4)}}
        >>> y, state = apply(params, state, jnp.ones((2, 4)), rng=jax.random.key(1), training=True)
        >>> y.shape
        (2, 3)
    """
    if not isinstance(module, Module):
        raise DTypeError(f"functionalize takes a Module, but got {describe(module)}")
    remember_tree(module)

    def init(key: jax.Array, *example_args: Any, **example_kwargs: Any) -> tuple[Tree, Tree]:
        if example_args or example_kwargs:
            call_abstractly(module, example_args, example_kwargs)
        values = initial_values(module, key)
        trained, others = cell_rows(module)
        return (
            nest((path, values[cell]) for path, cell in trained.items()),
            nest((path, values[cell]) for path, cell in others.items()),
        )

    def apply(
        params: Tree,
        state: Tree,
        *args: Any,
        rng: jax.Array | None = None,
        training: bool | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Tree]:
        trained, others = cell_rows(module)
        values = match(trained, params, "params", module) | match(others, state, "state", module)
        settle(values)
        if rng is not None:
            check_key("rng", rng)
        if training is not None and not isinstance(training, (bool, np.bool_)):
            raise DTypeError(f"training must be True, False or None, but got {describe(training)}")
        frame = Frame(_unknown, values=values, mode=training, rng=lambda _frame, _what: rng)
        if (outer := frames.current()) is not None:
            frame.used = outer.used
            # In a deeper trace what would be found could not leave it.
            if outer.taps is not None and outer.taps.token == get_opaque_trace_state():
                frame.taps = outer.taps
        with running(frame):
            out = module(*args, **kwargs)
        return out, nest((path, frame.values[cell]) for path, cell in others.items())

    vars(apply)["module"] = module  # for who looks into a call (core/watch.py)
    return Layer(init, apply)


# --- whose tree is it -------------------------------------------------------------------------

_handed_out: weakref.WeakKeyDictionary[Module, int] = weakref.WeakKeyDictionary()
_clock = itertools.count()


def remember_tree(module: Module) -> None:
    """Note that somebody holds a tree with this module's names: its parameters or gradients."""
    _handed_out[module] = next(_clock)


def cells_of_trees(trees: Sequence[Tree], owned: Set[Cell]) -> list[dict[Cell, Any] | None]:
    """The cell behind every entry of some trees of gradients; None for a tree that fits no module.

    Gradients are plain dicts, so that every JAX and optax function takes them. Which parameters they
    belong to follows from their names and shapes and from the modules whose trees were handed out,
    among those that hold ``owned`` cells. Several modules that fit must be as many as the trees, which
    then are theirs in the order of handing out, as ``fn.grad`` of several modules gives them.

    Args:
        trees: nested dicts of gradients.
        owned: the cells that are looked for.

    Returns:
        One dict for every tree, or None in its place.

    Raises:
        TreeError: more modules fit than there are trees, or fewer.
    """
    rows = [dict(flatten(tree)) for tree in trees]
    shapes = [{path: tuple(getattr(value, "shape", ())) for path, value in r.items()} for r in rows]
    owners: dict[frozenset[tuple[str, tuple[int, ...]]], list[dict[str, Cell]]] = {}
    for wanted in shapes:
        fitting: list[dict[str, Cell]] = []
        for module, _ in sorted(_handed_out.items(), key=lambda item: item[1]):
            try:
                trained, _ = cell_rows(module)
            except ArgumentError:  # an nn.Stack whose blocks are not alike
                continue
            if (
                {path: cell._shape for path, cell in trained.items()} == wanted
                and not owned.isdisjoint(trained.values())
                and not any(_same_cells(trained, other) for other in fitting)
            ):
                fitting.append(trained)
        owners[frozenset(wanted.items())] = fitting
    found: list[dict[Cell, Any] | None] = []
    alike = [frozenset(wanted.items()) for wanted in shapes]
    for i, kind in enumerate(alike):
        fitting, count = owners[kind], alike.count(kind)
        if not fitting:
            found.append(None)
            continue
        if len(fitting) != count:
            listed = ", ".join(list(rows[i])[:4]) + (", ..." if len(rows[i]) > 4 else "")
            raise TreeError(
                f"{count} tree(s) of gradients with the names {listed} fit {len(fitting)} modules that hold parameters "
                "of this optimizer: it cannot tell whose they are. Put the modules into one (nn.ModuleDict, say) and "
                "differentiate that, or make the optimizer with named_parameters(prefix=...) of each and pass the "
                "gradients under these prefixes"
            )
        trained = fitting[alike[:i].count(kind)]
        found.append({cell: rows[i][path] for path, cell in trained.items()})
    return found


def _same_cells(one: dict[str, Cell], other: dict[str, Cell]) -> bool:
    return all(one[path] is other[path] for path in one)


# --- the stateful face's values ---------------------------------------------------------------


def get_variables(module: Module) -> tuple[Tree, Tree]:
    """The values of a stateful module as the ``(params, state)`` of its pure face.

    Args:
        module: any Module; values not drawn yet are drawn.

    Returns:
        Two nested dicts of arrays.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> params, state = fn.get_variables(nn.Linear(2, 3))
        >>> sorted(params), state
        (['bias', 'weight'], {})
    """
    trained, others = cell_rows(module)
    refuse_unsettled((trained | others).items(), f"get_variables reads all of {module._get_name()}")
    frame = frames.current()
    if frame is None:
        materialise([*trained.values(), *others.values()])
    remember_tree(module)
    return (
        nest((path, cell.data) for path, cell in trained.items()),
        nest((path, cell.data) for path, cell in others.items()),
    )


def set_variables(module: Module, params: Tree | None = None, state: Tree | None = None) -> None:
    """Put the pure face's values into a stateful module; all of them fit, or none is changed.

    Args:
        module: any Module.
        params: a tree as ``init`` and ``get_variables`` give it; None leaves the parameters alone.
        state: likewise.

    Raises:
        TreeError: missing, unknown or mis-shaped entries, all of them listed.

    Examples:
        >>> import jax, funcnets as fn
        >>> from funcnets import nn
        >>> model = nn.Linear(2, 3)
        >>> fn.set_variables(model, *fn.functionalize(model).init(jax.random.key(0)))
    """
    trained, others = cell_rows(module)
    found: dict[Cell, Any] = {}
    if params is not None:
        found |= match(trained, params, "params", module)
    if state is not None:
        found |= match(others, state, "state", module)
    settle(found)
    arrays = {cell: as_array(value, None) for cell, value in found.items()}
    frame = frames.current()
    for cell, array in arrays.items():
        cell.check_dtype(array.dtype)
    for cell, array in arrays.items():
        if frame is not None:
            frame.write(cell, array, "a module's variables")
        else:
            refuse_tracer(array, "set_variables")
    if frame is None:
        for cell, array in arrays.items():
            store(cell, jnp.asarray(array))
