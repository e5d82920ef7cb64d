"""What happened inside a model: :func:`capture` its intermediate outputs, :func:`find_nan` the first bad one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from funcnets._args import describe
from funcnets.core.jit import jit
from funcnets.core.layer import Layer, flatten
from funcnets.core.lifting import split_arrays
from funcnets.core.lifts import eval_shape
from funcnets.core.module import Module
from funcnets.core.nonfinite import Seen, bad, bad_cells, first_bad, observe
from funcnets.core.random import stream
from funcnets.core.watch import Paths, call, note, root_of, watching
from funcnets.errors import ArgumentError, StateLeakError
from funcnets.look.inputs import module_of

__all__ = ["NonFinite", "capture", "find_nan"]

Names = str | Iterable[str] | Callable[[str, Module], bool] | None


def capture(
    model: Module | Layer, *args: Any, names: Names = None, **kwargs: Any
) -> tuple[Any, dict[str, Any]]:
    """Call a model and keep the outputs of the modules in it.

    It is an ordinary call: buffers are updated, hooks run, random layers draw. In the pure face the
    first arguments are ``params`` and ``state``, and the output is ``(out, new_state)``. It may be part of a function
    under ``fn.jit``, ``jax.jit`` and the gradients, and a loss may use what was captured.

    Args:
        model: a Module, or the pair that :func:`funcnets.functionalize` gives.
        *args: of the call.
        names: whose outputs are kept. None for all modules below the model; a path, such as
            ``"layers.0"``, where ``*`` stands for any one name and ``**`` for any number of them; several
            of them; or a function of path and module that says yes or no.
        **kwargs: of the call.

    Returns:
        ``(output, captured)``. ``captured`` has the output of each module by its path, the first of its paths
        if it has several, in the order in which the first calls ended. A module that was called more than once
        has a list there, with the output of its first call first: ``captured["cell"][2]`` is that of the third.
        Of a module inside of ``fn.scan`` or ``fn.vmap`` the outputs of all steps or examples are one array, along
        a new first axis. A module that was not called is not in it. (What a function under ``jit`` returns, JAX
        sorts by path; the lists keep their order.)

    Raises:
        ArgumentError: a name that no module of the model has; all of them are listed.
        DTypeError: ``model`` is neither a Module nor a pair.
        StateLeakError: a module is called inside of a raw JAX transformation, which nothing can leave but
            its outputs.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> out, inside = fn.capture(model, jnp.ones((5, 4)))
        >>> {path: value.shape for path, value in inside.items()}
        {'0': (5, 3), '1': (5, 3), '2': (5, 2)}
        >>> init, apply = layer = fn.functionalize(model)
        >>> (out, state), inside = fn.capture(layer, *fn.get_variables(model), jnp.ones((5, 4)), names="1")
        >>> list(inside)
        ['1']

        A module that is called twice:

        >>> layer = nn.Tanh()
        >>> out, inside = fn.capture(nn.Sequential(layer, nn.Linear(4, 4), layer), jnp.ones((5, 4)))
        >>> {path: len(value) for path, value in inside.items() if isinstance(value, list)}
        {'0': 2}
        >>> bool((inside["0"][1] == out).all())
        True
    """
    model = _looked_at("capture", model)
    run, root = model if isinstance(model, Module) else model.apply, root_of(model)
    paths, rules = Paths(root), _rules(names)
    wanted = None if root is None else _selected(names, rules, root)
    met: dict[str, None] = {}

    def watch(module: Module, args: Any, kwargs: Any) -> Any:
        with paths.within(module) as path:
            out = call(module, args, kwargs)
        met[path] = None
        if names is None:
            chosen = [path] if path else []
        elif wanted is not None:
            chosen = wanted.get(module, [])
        else:  # a pair that is not of one module: what there is shows
            chosen = [path] if _fits(names, rules, path, module) else []
        for name in chosen:
            arrays, rebuild = split_arrays(out)
            if not note((name, rebuild), arrays):
                raise StateLeakError(
                    f"the output of '{name}' cannot be captured: it is called inside a raw JAX transformation "
                    "(jax.lax.scan, jax.vmap, ...), which only its own outputs leave. Use the lift of the same name "
                    "(fn.scan, fn.vmap, fn.checkpoint, ...), or name other modules with names="
                )
        return out

    with watching(watch) as found:
        out = run(*args, **kwargs)
    if wanted is None:
        _refuse_unknown(rules, list(met), "this pair")
    outputs: dict[str, list[Any]] = {}
    for (name, rebuild), arrays in found:
        outputs.setdefault(name, []).append(rebuild(arrays))
    return out, {name: each[0] if len(each) == 1 else each for name, each in outputs.items()}


def _looked_at(who: str, model: Any) -> Module | Layer:
    kinds = "a Module, or the Layer that fn.functionalize gives"
    return model if isinstance(model, Layer) else module_of(model, who, kinds)


def _rules(names: Names) -> dict[str, re.Pattern[str]]:
    if names is None or callable(names):
        return {}
    return {name: _rule(name) for name in ([names] if isinstance(names, str) else names)}


def _fits(names: Names, rules: dict[str, re.Pattern[str]], path: str, module: Module) -> bool:
    if callable(names):
        return bool(names(path, module))
    return any(rule.fullmatch(path) for rule in rules.values())


def _selected(
    names: Names, rules: dict[str, re.Pattern[str]], root: Module
) -> dict[Module, list[str]]:
    """The names under which each module's output is kept; nothing for None."""
    if callable(names):
        return {module: [path] for path, module in root.named_modules() if names(path, module)}
    every = list(root.named_modules(remove_duplicate=False))
    _refuse_unknown(rules, [path for path, _ in every], type(root).__name__)
    chosen: dict[Module, list[str]] = {}
    for name, rule in rules.items():
        for path, module in every:
            known = chosen.setdefault(module, [])
            # A shared module goes by its first name, unless another one is asked for itself.
            if rule.fullmatch(path) and path not in known and (not known or path == name):
                known.append(path)
    return chosen


def _refuse_unknown(rules: dict[str, re.Pattern[str]], paths: list[str], whose: str) -> None:
    unknown = [name for name, rule in rules.items() if not any(map(rule.fullmatch, paths))]
    if unknown:
        listed = ", ".join(repr(path) for path in paths if path)
        raise ArgumentError(
            f"no module of {whose} is called {', '.join(map(repr, unknown))}; "
            f"there are {listed or 'none below the model itself'}"
        )


def _rule(pattern: Any) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise ArgumentError(
            f"names must be paths, or a function of path and module, but got {describe(pattern)}"
        )
    parts = re.split(r"(\*\*\.|\.\*\*|\*\*|\*|\?)", pattern)
    glob = {"**.": r"(?:.*\.)?", ".**": r"(?:\..*)?", "**": ".*", "*": r"[^.]+", "?": r"[^.]"}
    return re.compile("".join(glob.get(part, re.escape(part)) for part in parts))


# --- numbers that are not finite --------------------------------------------------------------


class NonFinite(NamedTuple):
    """The first call of a module whose output holds NaN or infinity; :func:`find_nan` gives it.

    Attributes:
        path: where the module stands; ``""`` is the model itself.
        type: the name of its class.
        output: what came out, with a text such as ``float32[2, 3]`` in the place of an array.
        args: what went in, likewise.
        kwargs: likewise.
        inputs_bad: whether what went in was already not finite.
        parameters_bad: the names of its parameters and buffers that are not finite.
        module: the module.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> fn.find_nan(nn.Linear(2, 1), jnp.array([1.0, jnp.inf])).inputs_bad
        True
    """

    path: str
    type: str
    output: Any
    args: Any
    kwargs: Any
    inputs_bad: bool
    parameters_bad: tuple[str, ...]
    module: Module

    def __str__(self) -> str:
        name = f"'{self.path}' ({self.type})" if self.path else f"the model itself ({self.type})"
        given = [str(a) for a in self.args] + [f"{k}={v}" for k, v in self.kwargs.items()]
        what = "was not finite either" if self.inputs_bad else "was finite"
        own = "its parameters are finite"
        if self.parameters_bad:
            own = f"not finite is also its {', '.join(self.parameters_bad)}"
        return (
            f"the first output that is not finite is that of {name}: {self.output}\n"
            f"  it was given {', '.join(given) or 'nothing'}, which {what}; {own}"
        )

    __repr__ = __str__


def find_nan(model: Module | Layer, *args: Any, **kwargs: Any) -> NonFinite | None:
    """The first module, in order of execution, whose output is NaN or infinite.

    The model is left as it was: buffers are not updated, the random stream does not move. Of modules within one
    another the innermost comes first.

    Args:
        model: a Module, or the pair that :func:`funcnets.functionalize` gives.
        *args: of the call, with ``params`` and ``state`` in the pure face.
        **kwargs: of the call.

    Returns:
        A :class:`NonFinite`, which prints as a sentence; None if all outputs are finite.

    Raises:
        StateLeakError: it is called within a compiled function, where there are no numbers to look at.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> class Root(nn.Module):
        ...     def forward(self, x):
        ...         return jnp.sqrt(x)
        >>> model = nn.Sequential(nn.Identity(), Root(), nn.ReLU())
        >>> print(fn.find_nan(model, jnp.array([1.0, -1.0])))
        the first output that is not finite is that of '1' (Root): float32[2]
          it was given float32[2], which was finite; its parameters are finite
        >>> fn.find_nan(model, jnp.ones(2)) is None
        True
    """
    model = _looked_at("find_nan", model)
    run = model if isinstance(model, Module) else model.apply
    leaves = jax.tree.leaves((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Module))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        raise StateLeakError(
            "find_nan looks at numbers, which a function that is being compiled or differentiated does not have: "
            "call it outside, with the arrays themselves"
        )
    seen: list[Seen] = []

    def replay(arrays: list[Any]) -> Any:
        new_args, new_kwargs = rebuild(arrays)
        with watching(observe(Paths(root_of(model)))) as found:
            run(*new_args, **new_kwargs)
        seen[:] = [info for info, _ in found]
        return [flags for _, flags in found]

    arrays, rebuild = split_arrays((args, kwargs))
    if isinstance(model, Module):
        if not all(cell.settled for _, cell in model._cells()):
            eval_shape(model, *args, **kwargs)
        kept = {cell: cell.lend() for cell in (*(c for _, c in model._cells()), stream)}
        try:
            flags = jax.device_get(jit(replay, donate=False)(arrays))
        finally:
            for cell, value in kept.items():
                cell._set(value)
    else:
        flags = jax.device_get(jax.jit(replay)(arrays))
    first = first_bad(flags)
    if first is None:
        return None
    found = seen[first[0]]
    names = bad_cells(found.module) if isinstance(model, Module) else _bad_leaves(found.path, args)
    return NonFinite(
        found.path,
        type(found.module).__name__,
        found.output,
        found.args,
        found.kwargs,
        first[1],
        tuple(names),
        found.module,
    )


def _bad_leaves(path: str, args: tuple[Any, ...]) -> list[str]:
    """The names in params and state, below a path, of what is not finite."""
    prefix = f"{path}." if path else ""
    rows = [row for tree in args[:2] if isinstance(tree, dict) for row in flatten(tree)]
    return [
        name.removeprefix(prefix)
        for name, value in rows
        if name.startswith(prefix) and bool(bad(value))
    ]
