"""JAX transformations that know about modules: grad, scan, vmap, eval_shape; checkpoint is in remat.py.

Each is the same lift: the function runs in a child frame inside the transformation, reads fall
through to the enclosing frame, what it writes leaves the transformation as an output, and its random
keys are drawn outside and handed in. They work inside ``forward``, inside a function under ``fn.jit``,
and outside of any call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.cell import Cell, Parameter, Stateful
from funcnets.core.frame import Frame, running
from funcnets.core.layer import (
    call_abstractly,
    cell_rows,
    nest,
    refuse_unsettled,
    remember_tree,
)
from funcnets.core.lifting import entered, with_key
from funcnets.core.module import Module
from funcnets.core.remat import checkpoint
from funcnets.errors import ArgumentError, DTypeError

__all__ = ["checkpoint", "eval_shape", "grad", "scan", "value_and_grad", "vmap"]


# --- gradients --------------------------------------------------------------------------------


def value_and_grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The value and the gradient of ``fun`` with respect to modules or arrays among its arguments.

    For a Module the gradient is taken with respect to all parameters with ``requires_grad=True``, and
    is a nested dict with their names, as the ``params`` of the pure face. Buffers that the function
    writes (running statistics) are kept.

    Args:
        fun: returns a scalar, or ``(scalar, aux)`` with ``has_aux``.
        argnums: the position, or positions, of the arguments to differentiate.
        has_aux: whether ``fun`` returns something besides the scalar.

    Returns:
        A function with the arguments of ``fun`` that gives ``(value, gradient)``, or
        ``((value, aux), gradient)``; the gradient is a tuple if ``argnums`` is a sequence.

    Raises:
        DTypeError: an argument to differentiate is neither a Module nor floating point arrays.
        ArgumentError: ``argnums`` is out of range, or two modules share a parameter.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> model, x = nn.Linear(3, 1), jnp.ones((4, 3))
        >>> loss, grads = fn.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        >>> grads["weight"].shape
        (1, 3)

    References:
        jax.value_and_grad
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not callable(fun):
        raise DTypeError(
            f"the gradient is that of a function, such as lambda model: criterion(model(x), y), but got {describe(fun)}"
        )

    @functools.wraps(fun)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        for n in numbers:
            if not -len(args) <= n < len(args):
                raise ArgumentError(
                    f"argnums={argnums}, but the function was called with {len(args)} positional arguments"
                )
        positions = [n % len(args) for n in numbers]
        with entered() as parent:
            rows = {n: _differentiable(args[n], n) for n in positions}
            cells = [cell for n in positions for cell in (rows[n] or {}).values()]
            if not all(cell.settled for cell in cells):
                eval_shape(fun, *args, **kwargs)
                for n in positions:
                    refuse_unsettled((rows[n] or {}).items(), "the gradients are asked for")
            if len(set(cells)) != len(cells):
                raise ArgumentError(
                    "two of the modules to differentiate share a parameter: pass one module that holds both"
                )
            inputs = [
                args[n]
                if rows[n] is None
                else {path: parent.read(c) for path, c in (rows[n] or {}).items()}
                for n in positions
            ]
            last: list[Frame] = []

            def run(key: jax.Array | None) -> Any:
                def pure(inputs: list[Any]) -> Any:
                    given, values = list(args), {}
                    for n, value in zip(positions, inputs, strict=True):
                        if rows[n] is None:
                            given[n] = value
                        else:
                            values |= {cell: value[path] for path, cell in (rows[n] or {}).items()}
                    child = parent.child(values, key)
                    with running(child):
                        out = fun(*given, **kwargs)
                    if has_aux and not (isinstance(out, tuple) and len(out) == 2):
                        raise DTypeError(
                            f"with has_aux=True the function must return (scalar, aux), but gave {describe(out)}"
                        )
                    value, aux = out if has_aux else (out, None)
                    last[:] = [child]
                    return value, (aux, list(child.written.values()), child.tapped())

                return jax.value_and_grad(pure, has_aux=True)(inputs)

            (value, (aux, news, taps)), gradients = with_key(parent, run)
            parent.absorb(last[0].written, news)
            parent.take_taps(last[0], taps)
            gradients = [
                g if rows[n] is None else nest(g.items())
                for n, g in zip(positions, gradients, strict=True)
            ]
        out = (value, aux) if has_aux else value
        return out, gradients[0] if isinstance(argnums, int) else tuple(gradients)

    return lifted


def _differentiable(target: Any, position: int) -> dict[str, Cell] | None:
    """The trained cells of a module by path; None for arrays."""
    if isinstance(target, Module):
        remember_tree(target)
        return cell_rows(target)[0]
    for leaf in jax.tree.leaves(target):
        if isinstance(leaf, (Stateful, Parameter)):
            raise DTypeError(
                f"argument {position} to differentiate holds a {type(leaf).__name__} within a container: "
                "pass the Module itself, or nn.ModuleList([...])"
            )
    return None


def grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of ``fun`` with respect to modules or arrays; see :func:`value_and_grad`.

    Args:
        fun: returns a scalar, or ``(scalar, aux)`` with ``has_aux``.
        argnums: the position, or positions, of the arguments to differentiate.
        has_aux: whether ``fun`` returns something besides the scalar.

    Returns:
        A function that gives the gradient, or ``(gradient, aux)``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> fn.grad(lambda m: m(jnp.ones(2)).sum())(nn.Linear(2, 1))["weight"].tolist()
        [[1.0, 1.0]]

    References:
        jax.grad
    """
    both = value_and_grad(fun, argnums, has_aux)

    @functools.wraps(fun)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return lifted


# --- loops ------------------------------------------------------------------------------------


class _Writes(BaseException):
    """The body of a scan wrote cells that are not in its carry yet. Never leaves the lift."""

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__()
        self.cells = cells


def scan(
    fun: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """``jax.lax.scan`` whose body may call modules: buffers are carried, every step has its own keys.

    Args:
        fun: ``(carry, x) -> (carry, y)``.
        init: the first carry.
        xs: arrays scanned along their leading axis, or None.
        length: the number of steps, needed if ``xs`` is None.
        reverse: whether to go from the last element to the first.
        unroll: how many steps to write out in one iteration of the loop.

    Returns:
        ``(carry, ys)``.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> cell = nn.Linear(3, 3)
        >>> h, ys = fn.scan(lambda h, x: (cell(h) + x, h), jnp.zeros(3), jnp.ones((5, 3)))
        >>> ys.shape
        (5, 3)

    References:
        jax.lax.scan
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(xs)]
    if () in shapes:
        raise ArgumentError(
            "scan goes along the leading axis of xs, but one of them is a single number"
        )
    sizes = {shape[0] for shape in shapes} | ({length} if length is not None else set())
    if len(sizes) != 1:
        raise ArgumentError(
            f"scan needs xs of one common length, or length=, but got lengths {sorted(sizes)}"
        )
    steps = sizes.pop()
    with entered() as parent:
        carried: list[Cell] = []
        last: list[Frame] = []

        def run(key: jax.Array | None) -> Any:
            def body(carry: Any, x: Any) -> Any:
                (user, values), (item, step_key) = carry, x
                child = parent.child(dict(zip(carried, values, strict=True)), step_key)
                with running(child):
                    user, y = fun(user, item)
                new = [cell for cell in child.written if cell not in set(carried)]
                if new:
                    raise _Writes(new)
                last[:] = [child]
                return (user, [child.read(cell) for cell in carried]), (y, child.tapped())

            while True:
                keys = None if key is None else jax.random.split(key, steps)
                start = (init, [jnp.asarray(parent.read(cell)) for cell in carried])
                try:
                    return jax.lax.scan(body, start, (xs, keys), steps, reverse, unroll)
                except _Writes as more:
                    carried.extend(more.cells)

        (carry, news), (ys, taps) = with_key(parent, run)
        parent.absorb(carried, news)
        parent.take_taps(last[0], taps)
    return carry, ys


_AXIS = "fn.vmap"


def vmap(
    fun: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Any = None,
    axis_size: int | None = None,
) -> Callable[..., Any]:
    """``jax.vmap`` of a function that may call modules: each example has its own random keys.

    Parameters are shared by all examples. A buffer that the function writes becomes the mean over the
    examples if it is floating point and the maximum if it is an integer (a counter).

    Args:
        fun: a Module, or a function that uses modules. Modules among its arguments are not mapped.
        in_axes: as for ``jax.vmap``; the entry of a Module is ignored by nature and must be None or 0.
        out_axes: as for ``jax.vmap``.
        axis_name: a name for the mapped axis, for collectives.
        axis_size: the number of examples, if no array is mapped.

    Returns:
        A function with the arguments of ``fun``, each with one more axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> fn.vmap(nn.Linear(3, 2))(jnp.ones((7, 3))).shape
        (7, 2)

    References:
        jax.vmap
    """
    name = _AXIS if axis_name is None else axis_name

    @functools.wraps(fun.forward if isinstance(fun, Module) else fun)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        mapped = [i for i, arg in enumerate(args) if not isinstance(arg, Stateful)]
        axes = in_axes
        if isinstance(in_axes, (tuple, list)):
            if len(in_axes) != len(args):
                raise ArgumentError(
                    f"in_axes has {len(in_axes)} entries for {len(args)} positional arguments"
                )
            axes = tuple(in_axes[i] for i in mapped)
        else:
            axes = (in_axes,) * len(mapped)
        last: list[Frame] = []
        with entered() as parent:

            def run(key: jax.Array | None) -> Any:
                def pure(inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                    given = list(args)
                    for i, value in zip(mapped, inputs, strict=True):
                        given[i] = value
                    own = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(name))
                    child = parent.child(key=own)
                    with running(child):
                        out = fun(*given, **kwargs)
                    last[:] = [child]
                    news = [_over_examples(value, name) for value in child.written.values()]
                    return out, news, child.tapped()

                transformed = jax.vmap(
                    pure,
                    in_axes=(axes, 0),
                    out_axes=(out_axes, None, 0),
                    axis_name=name,
                    axis_size=axis_size,
                )
                return transformed(tuple(args[i] for i in mapped), kwargs)

            out, news, taps = with_key(parent, run)
            parent.absorb(last[0].written, news)
            parent.take_taps(last[0], taps)
        return out

    return lifted


def _over_examples(value: Any, name: Any) -> jax.Array:
    value = jnp.asarray(value)
    combine = jax.lax.pmean if jnp.issubdtype(value.dtype, jnp.inexact) else jax.lax.pmax
    return combine(value, name)


# --- shapes -----------------------------------------------------------------------------------


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The shapes and dtypes that ``fun`` would give, without computing or allocating anything.

    Parameters that have no value yet stay without one, so a model too large for this machine can be
    checked. Nothing is written to buffers.

    Args:
        fun: a Module, or a function that uses modules.
        *args: arrays or ``jax.ShapeDtypeStruct``; modules, numbers and strings are constants.
        **kwargs: likewise.

    Returns:
        The structure of the result with a ``jax.ShapeDtypeStruct`` for every array.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> fn.eval_shape(nn.Linear(10**6, 10**6), jax.ShapeDtypeStruct((8, 10**6), jnp.float32)).shape
        (8, 1000000)

    References:
        jax.eval_shape
    """
    return call_abstractly(fun, args, kwargs, frames.current())
