"""``fn.jit``: compile a function that uses modules and optimizers as if they were arguments.

One call gathers the values of the cells, runs one ``jax.jit`` and puts the new values back:

    donated = [c._value for c in written_cells];  kept = [c._value for c in other_cells]
    out, new = compiled(donated, kept, args, kwargs)
    for cell, value in zip(written_cells, new): cell._value = value

Which cells those are is found by tracing. The first guess is everything that the arguments, the closure
and the globals of the function reach; a cell met beyond that is noted, and the function is traced once
more. A program remembers the structure of all modules that its trace depended on (modes,
``requires_grad``, hyper-parameters, children), and the names by which the function knows them. While
nothing changed anywhere, which one integer tells, and the names mean the same, the last program runs;
otherwise the one whose structure is the present one, or a new trace.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state

from funcnets.core import frame as frames
from funcnets.core.arraylike import unwrap
from funcnets.core.cell import Cell, Stateful, Version
from funcnets.core.frame import CLEAN
from funcnets.core.idioms import note_idiom
from funcnets.core.module import Module
from funcnets.core.program import Again, Program
from funcnets.core.reach import reachable, unchanged
from funcnets.core.traces import tell
from funcnets.errors import StateLeakError

__all__ = ["jit"]

_ROUNDS = 16
_REBOUND = 8  # programs kept for modules whose names others have got


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    donate: bool = True,
) -> Any:
    """Compile ``fun``; modules and optimizers that it uses are threaded through.

    They may be arguments, or be reached by closure, by a global name or through other objects.
    Parameters, buffers, optimizer memory and random streams that the function changes have changed
    when the call returns, and if it raises nothing has. Changing a mode, the structure, ``requires_grad``
    or a hyper-parameter afterwards traces again; going back finds the earlier program.

    Within another compiled function, or within a pure call, ``fun`` simply runs as part of it.

    Args:
        fun: the function; without it, a decorator is returned.
        static_argnums: positions of arguments that are Python values to specialise on.
        static_argnames: names of keyword arguments likewise.
        donate: reuse the memory of values that are replaced. Arrays that somebody else holds are
            copied first.

    Returns:
        A function with the arguments of ``fun``.

    Raises:
        StateLeakError: the function creates modules or parameters anew each time it is traced.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn, optim
        >>> model = nn.Linear(3, 1)
        >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
        >>> @fn.jit
        ... def train_step(x, y):
        ...     loss, grads = fn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        ...     optimizer.step(grads)
        ...     return loss
        >>> first = train_step(jnp.ones((4, 3)), jnp.ones((4, 1)))
        >>> bool(train_step(jnp.ones((4, 3)), jnp.ones((4, 1))) < first)
        True

    References:
        jax.jit
    """
    if fun is None:
        return functools.partial(
            jit, static_argnums=static_argnums, static_argnames=static_argnames, donate=donate
        )
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)
    names = (static_argnames,) if isinstance(static_argnames, str) else tuple(static_argnames)
    return Jitted(fun, *_both_ways(fun, numbers, names), donate)


class Jitted:
    """A function compiled by :func:`jit`, with its programs."""

    def __init__(
        self, fun: Any, numbers: tuple[int, ...], names: tuple[str, ...], donate: bool
    ) -> None:
        # A module's own attributes are not those of a function that wraps it.
        own = isinstance(fun, Stateful)
        functools.update_wrapper(self, fun, updated=() if own else ("__dict__",))
        self._fun, self._numbers, self._names, self._donate = fun, numbers, names, donate
        self._special = bool(numbers or names)
        self._programs: dict[Any, list[Program]] = {}
        self._last: Program | None = None
        self._homes: dict[int, dict[str, Any]] = {}  # of objects without attributes

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        # Kept with the instance, so that its programs live as long as it does, and no longer.
        home = (
            vars(instance)
            if hasattr(instance, "__dict__")
            else self._homes.setdefault(id(instance), {})
        )
        methods = home.get("_jitted")
        if methods is None or methods.owner is not instance:
            methods = home["_jitted"] = Methods(instance)
        bound = methods.compiled.get(self)
        if bound is None:
            method = types.MethodType(self._fun, instance)
            numbers = tuple(n - 1 if n > 0 else n for n in self._numbers if n != 0)
            bound = methods.compiled[self] = Jitted(method, numbers, self._names, self._donate)
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A program that ran within somebody's trace would put tracers, or nothing, into the cells.
        if frames._current.get() is not None or get_opaque_trace_state() != CLEAN:
            return self._fun(*args, **kwargs)
        key, arrays, call = None, args, self._fun
        if self._special or _holds_more_than_arrays(args, kwargs):
            key, arrays, kwargs, call = self._specialise(args, kwargs)
        program = self._last
        if (
            program is None
            or program.version != Version.structure
            or program.key != key
            or not unchanged(program.bindings)
        ):
            program = self._find(key, call)
        try:
            try:
                return program.run(arrays, kwargs)
            except Again as more:
                return self._trace_until_closed(program, more, arrays, kwargs)
        except (AttributeError, TypeError, NotImplementedError) as error:
            note_idiom(error)
            raise

    # --- arguments that are not arrays ---

    def _specialise(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``(key, array leaves, {}, call)``: static values and modules become part of the key."""
        static = {n % max(len(args), 1): None for n in self._numbers if -len(args) <= n < len(args)}
        marked = (
            [_Static(a) if i in static else a for i, a in enumerate(args)],
            {k: _Static(v) if k in self._names else v for k, v in kwargs.items()},
        )
        leaves, structure = jax.tree.flatten(
            marked, is_leaf=lambda x: isinstance(x, (Stateful, _Static))
        )
        fixed = tuple((i, x) for i, x in enumerate(leaves) if isinstance(x, (Stateful, _Static)))
        places = [i for i, x in enumerate(leaves) if not isinstance(x, (Stateful, _Static))]
        count = len(leaves)

        def call(*arrays: Any) -> Any:
            filled: list[Any] = [None] * count
            for i, x in fixed:
                filled[i] = x.value if isinstance(x, _Static) else x
            for place, array in zip(places, arrays, strict=True):
                filled[place] = array
            new_args, new_kwargs = jax.tree.unflatten(structure, filled)
            return self._fun(*new_args, **new_kwargs)

        call.__name__ = getattr(self._fun, "__name__", "step")
        return (structure, fixed), tuple(unwrap(leaves[i]) for i in places), {}, call

    # --- programs ---

    def _find(self, key: Any, call: Callable[..., Any]) -> Program:
        """The program for the present structure, made if there is none."""
        programs = self._programs.setdefault(key, [])
        # Without those whose trace failed.
        programs[:] = [p for p in programs if p.fingerprint is not None]
        for program in [p for p in programs if not unchanged(p.bindings)][:-_REBOUND]:
            programs.remove(program)  # and with it what it was made for, which has no name any more
        for program in programs:
            if program.matches():
                program.version = Version.structure
                self._last = program
                return program
        roots: dict[Stateful | Cell, None] = dict.fromkeys(r for r, _ in reachable(self._fun))
        for _, fixed in key[1] if key is not None else ():
            if isinstance(fixed, Stateful):
                roots[fixed] = None
        program = Program(key, call, list(roots), self._donate)
        # Found through arbitrary objects: their cells are not threaded on a mere guess, but what the
        # function reads off them (a hyper-parameter) must not go stale.
        for thing, path in reachable(self._fun, objects=True):
            program.paths.setdefault(thing, []).extend(path)
        program.parts = [thing for thing in program.paths if isinstance(thing, Stateful)]
        program.owner = weakref.ref(self)
        tell("made", program, self._last)
        programs.append(program)
        self._last = program
        return program

    def _trace_until_closed(self, program: Program, more: Again, args: Any, kwargs: Any) -> Any:
        for _ in range(_ROUNDS):
            tell("again", program, more)
            program.widen(more)
            try:
                return program.run(args, kwargs)
            except Again as again:
                more = again
        kinds = ", ".join(f"{type(c).__name__} of shape {c.shape}" for c in more.met[:3])
        raise StateLeakError(
            f"every trace of {getattr(self._fun, '__name__', self._fun)} reads cells that did not exist before "
            f"({kinds}): create modules, parameters and optimizers outside of the function under fn.jit"
        )


class Methods:
    """The compiled methods of one object; a copy of the object makes its own."""

    def __init__(self, owner: Any = None) -> None:
        self.owner = owner
        self.compiled: dict[Jitted, Jitted] = {}

    def __reduce__(self) -> Any:
        return Methods, ()


def _both_ways(
    fun: Callable[..., Any], numbers: tuple[int, ...], names: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Static arguments by position and by name, if only one of the two was given."""
    try:
        rule = fun.forward if isinstance(fun, Module) else fun
        parameters = inspect.signature(rule).parameters.values()
    except (TypeError, ValueError):
        return numbers, names
    positional = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if names and not numbers:
        numbers = tuple(positional.index(name) for name in names if name in positional)
    elif numbers and not names:
        names = tuple(positional[n] for n in numbers if -len(positional) <= n < len(positional))
    return numbers, names


class _Static:
    """A static argument; compared by value, or by identity if it cannot be hashed."""

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self._hash = hash(value)
        except TypeError:
            raise TypeError(
                f"a static argument of fn.jit must be hashable, but got {type(value).__name__}: pass a tuple, or an array"
            ) from None

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Static)
            and type(self.value) is type(other.value)
            and bool(self.value == other.value)
        )


#: Types of arguments that need no further look; the array type itself has no public name.
_PLAIN = {type(None), bool, int, float, complex, np.ndarray}


def _holds_more_than_arrays(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a module or optimizer is among the arguments; quick where they are plain arrays."""
    for arg in args:
        if type(arg) not in _PLAIN:
            break
    else:
        if not kwargs:
            return False
    leaves = jax.tree.leaves((args, kwargs))
    _PLAIN.update(
        type(leaf) for leaf in args if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    )
    return any(isinstance(leaf, (Stateful, Cell)) for leaf in leaves)
