"""``FromLayer``: a hand-written pair of pure functions as a Module.

The pair's pytrees become a tree of cells once, when the module is built: ``jax.eval_shape`` tells the
leaves, nothing is drawn. All leaves of one FromLayer come from one call of the pair's own ``init``: in
the pure face with the key of the FromLayer (``Leaf.levels_up``), in the stateful face with the key of the
one ticket that its cells share.
"""

from __future__ import annotations

import functools
import inspect
from operator import attrgetter
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.core.cell import Buffer, Cell, Parameter
from funcnets.core.derived import Draw, Leaf
from funcnets.core.layer import Layer
from funcnets.core.module import Module
from funcnets.core.tree import TreeNameError
from funcnets.errors import ArgumentError, DTypeError, ModeError, RngError, TreeError

__all__ = ["FromLayer"]


# --- checking a pair --------------------------------------------------------------------------


def as_layer(name: str, pair: Any) -> Layer:
    """``pair`` as a Layer, if it is a pair of functions with our signatures.

    Args:
        name: what the argument is called, for errors.
        pair: anything.

    Raises:
        DTypeError: it is not a pair of callables.
        ArgumentError: one of the two cannot be called in the one way there is.
    """
    if isinstance(pair, Module):
        raise DTypeError(
            f"{name} must be an (init, apply) pair, but got a Module: use fn.functionalize(module)"
        )
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(callable, pair))):
        raise DTypeError(
            f"{name} must be a pair of functions (init, apply), but got {describe(pair)}"
        )
    layer = Layer(*pair)
    _check_signature(name, "init", layer.init, "init(key)", 1, ())
    _check_signature(
        name,
        "apply",
        layer.apply,
        "apply(params, state, *args, rng=None, training=None)",
        2,
        ("rng", "training"),
    )
    return layer


def _check_signature(
    name: str, which: str, function: Any, wanted: str, positional: int, keywords: tuple[str, ...]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return
    bind = signature.bind if which == "init" else signature.bind_partial
    try:
        bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError as error:
        raise ArgumentError(
            f"{name} must have {wanted}, but its {which} takes {signature}: {error}"
        ) from None


# --- the module -------------------------------------------------------------------------------


class Branch(Module):
    """A dict, list or tuple of the pair's trees; its entries are cells and other branches."""

    def extra_repr(self) -> str:
        cells = {**self._parameters, **self._buffers}
        return ", ".join(f"{name}: {describe(cell)}" for name, cell in cells.items())


class FromLayer(Branch):
    """A pair of pure functions ``(init, apply)`` as a Module, to be used among others.

    The leaves of ``params`` become Parameters, those of ``state`` Buffers, under names made of their dict
    keys, field names and positions: the state_dict key of ``params["dense"][0]`` is ``dense.0``.
    Their initial values are those of the pair's own ``init``, called once for all of them.
    ``functionalize`` of the result gives the numbers of ``init`` with the same key, as nested dicts.

    A call hands ``apply`` the mode of the module, or None in a pure call that was not told, and keeps
    the new state. ``apply`` gets a key only if it draws one: it is called with ``rng=None`` first, and
    again with a key if that raises ``funcnets.errors.RngError``. The layers and functions of funcnets
    raise it where they need a key; code that calls ``jax.random`` must do so itself.

    Args:
        pair: a :class:`funcnets.Layer` or a tuple of two functions, ``init(key) -> (params, state)`` and
            ``apply(params, state, *args, rng=None, training=None, **kwargs) -> (out, new_state)``. Both
            trees can be any pytree of arrays, a bare array (named ``params`` or ``state``), or empty.
            Integer and boolean leaves of ``params`` become Parameters that are not trained.

    Shape:
        - Input and output: those of ``apply``.

    Raises:
        DTypeError: ``pair`` is not a pair of functions, or a leaf is a PRNG key.
        ArgumentError: ``init`` or ``apply`` takes other arguments; ``init`` does not give a pair; or the
            names of two leaves are the same, contain a dot, or are attributes of every Module.
        TreeError: (from a call) ``apply`` gives a state of another structure than ``init``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> def init(key):
        ...     return {"scale": jax.random.normal(key, (3,))}, {"calls": jnp.zeros((), jnp.int32)}
        >>> def apply(params, state, x, *, rng=None, training=None):
        ...     return x * params["scale"], {"calls": state["calls"] + 1}
        >>> model = nn.Sequential(nn.FromLayer((init, apply)), nn.Linear(3, 2))
        >>> model(jnp.ones(3)).shape
        (2,)
        >>> int(model[0].calls)
        1
        >>> key = jax.random.key(0)
        >>> params, _ = fn.functionalize(model).init(key)
        >>> bool((params["0"]["scale"] == init(fn.child_key(key, "0"))[0]["scale"]).all())
        True

    References:
        :func:`funcnets.functionalize`, the way back.
    """

    def __init__(self, pair: Layer | tuple[Any, Any]) -> None:
        super().__init__()
        self._pair = as_layer("pair", pair)
        trees = _shapes(self._pair.init)
        draw, cells = Draw(self._pair.init), []
        self._structures = tuple(jax.tree.structure(tree) for tree in trees)
        self._names: list[list[str]] = []
        for what, tree in zip(("params", "state"), trees):
            names = []
            for path, spec in jax.tree_util.tree_leaves_with_path(tree):
                parts = _parts(what, path)
                cell = _cell(what, spec, Leaf(draw, len(cells), len(parts)), ".".join(parts))
                try:
                    self._put(parts, cell)
                except TreeNameError as error:
                    error.add_note(
                        f"FromLayer names a cell after its place in {what}, here {parts}."
                    )
                    raise
                names.append(".".join(parts))
                cells.append(cell)
            self._names.append(names)
        for cell in cells:
            cell._ticket = cells[0]._ticket

    def _put(self, parts: list[str], cell: Cell) -> None:
        """Register ``cell`` at the path ``parts``, with branches on the way to it."""
        where: Module = self
        for part in parts[:-1]:
            if part not in where._modules:
                where.register_module(part, Branch())
            where = where._modules[part]  # pyright: ignore[reportAssignmentType]
        if isinstance(cell, Parameter):
            where.register_parameter(parts[-1], cell)
        else:
            where.register_buffer(parts[-1], cell)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the pair's ``apply`` and keep the new state."""
        # An attribute of a running module is an array.
        given, old = ([attrgetter(name)(self) for name in names] for names in self._names)
        params = jax.tree.unflatten(self._structures[0], given)
        state = jax.tree.unflatten(self._structures[1], old)
        try:
            training = self.training
        except ModeError:  # a pure call without training=: whether it matters is up to apply
            training = None
        call = functools.partial(
            self._pair.apply, params, state, *args, training=training, **kwargs
        )
        try:
            result = call(rng=None)
        except RngError:
            result = call(rng=self.make_rng())
        if not (isinstance(result, tuple) and len(result) == 2):
            raise DTypeError(f"apply must return (out, new_state), but gave {describe(result)}")
        out, state = result
        for name, before, after in zip(self._names[1], old, self._state_leaves(state)):
            if after is not before:
                owner, _, last = name.rpartition(".")
                setattr(attrgetter(owner)(self) if owner else self, last, after)
        return out

    def _state_leaves(self, state: Any) -> list[Any]:
        leaves, structure = jax.tree.flatten(state)
        expected = self._structures[1]
        if structure != expected and (leaves or expected.num_leaves):
            raise TreeError(
                f"the new state that apply returns must have the structure that init gives:\n    {expected}\n"
                f"but it has\n    {structure}"
            )
        return leaves


def _shapes(init: Any) -> tuple[Any, Any]:
    """What ``init`` gives, with shapes and dtypes in place of arrays."""
    try:
        trees = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    except Exception as error:
        error.add_note("This is nn.FromLayer, tracing init(key) for the shapes of its result.")
        raise
    if not (isinstance(trees, tuple) and len(trees) == 2):
        raise ArgumentError(f"init(key) must return (params, state), but gave {describe(trees)}")
    return trees


def _parts(what: str, path: tuple[Any, ...]) -> list[str]:
    """The names on the way to a leaf: dict keys, field names and positions."""
    parts = [
        str(next(getattr(p, a) for a in ("key", "name", "idx") if hasattr(p, a))) for p in path
    ]
    return parts or [what]


def _cell(what: str, spec: Any, rule: Leaf, name: str) -> Cell:
    if jnp.issubdtype(spec.dtype, jax.dtypes.prng_key):
        raise DTypeError(
            f"{what} '{name}' is a PRNG key: keep jax.random.key_data(key) instead, which is an array"
        )
    if what == "state":
        return Buffer(spec, rule)
    return Parameter(spec, rule, requires_grad=jnp.issubdtype(spec.dtype, jnp.inexact))
