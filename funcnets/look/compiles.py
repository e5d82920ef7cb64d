"""``fn.explain_compiles``: which functions under ``fn.jit`` were traced anew, and what had changed.

A trace belongs to what went in (shapes, dtypes and structure of the arguments, static values) and to the
structure of the modules and optimizers that the function used. Both are compared with those of the traces before.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnets._args import describe
from funcnets.core.cell import Cell, Stateful
from funcnets.core.module import Module
from funcnets.core.reach import unchanged
from funcnets.core.traces import Trace, observers
from funcnets.core.tree import Same
from funcnets.functional._autocast import low_dtype

__all__ = ["Compile", "Compiles", "explain_compiles"]

_LISTED = 4  # things of one kind that a reason names


class Compile(NamedTuple):
    """One trace of a function under ``fn.jit``.

    Attributes:
        function: its name.
        where: the file and the line where it is defined.
        number: which trace of the function it is, of those that it still has.
        reasons: what was different from the traces before; one sentence each.
        rounds: how often it was traced, until all modules that it uses were known.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> with fn.explain_compiles() as report:
        ...     y = fn.jit(jnp.sin)(jnp.ones(2))
        >>> report[0].function, report[0].reasons
        ('sin', ('the first call',))
    """

    function: str
    where: str
    number: int
    reasons: tuple[str, ...]
    rounds: int

    def __str__(self) -> str:
        again = f", {self.rounds} rounds" if self.rounds > 1 else ""
        head = f"{self.function} ({self.where}), trace {self.number}{again}:"
        return "\n  ".join([head, *self.reasons])


class Compiles:
    """The traces while it was entered, in order; :func:`explain_compiles` makes it.

    It prints, and is a sequence of :class:`Compile`.

    Args:
        echo: print each trace as it happens.

    Examples:
        >>> import funcnets as fn
        >>> with fn.explain_compiles() as report:
        ...     pass
        >>> len(report), str(report)
        (0, 'nothing was traced')
    """

    def __init__(self, echo: bool = False) -> None:
        self.echo = echo
        self._events: list[Compile] = []
        self._made: dict[Any, Any] = {}
        self._rounds: dict[Any, int] = {}

    def __enter__(self) -> Compiles:
        observers.append(self._observe)
        return self

    def __exit__(self, *exc: Any) -> None:
        observers.remove(self._observe)
        self._made.clear()
        self._rounds.clear()

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: int) -> Compile:
        return self._events[index]

    def __iter__(self) -> Iterator[Compile]:
        return iter(self._events)

    def __str__(self) -> str:
        return "\n".join(map(str, self._events)) or "nothing was traced"

    __repr__ = __str__

    def _observe(self, event: str, program: Any, fact: Any) -> None:
        if event == "made":
            self._made[program] = fact
        elif event == "again":
            self._rounds[program] = self._rounds.get(program, 1) + 1
        else:
            owner = program.owner and program.owner()
            fun = getattr(owner, "_fun", None)
            known = [p for each in owner._programs.values() for p in each] if owner else [program]
            reasons = _Explanation(fun, program).reasons(self._made, known)
            found = Compile(
                _name(fun),
                _where(fun),
                sum(len(p.traces) for p in known),
                tuple(reasons),
                self._rounds.pop(program, 1),
            )
            self._made.pop(program, None)
            self._events.append(found)
            if self.echo:
                print(found, file=sys.stderr)


def explain_compiles(*, echo: bool = False) -> Compiles:
    """Tell which functions under ``fn.jit`` are traced anew in a ``with`` block, and why.

    A reason names what is different: an argument's shape, dtype, structure or static value; a module's mode,
    children, hooks, attributes, what is frozen; a parameter's dtype; another object behind a name. Calls that
    run a program that there is are not slowed down, in the block or out of it.

    Args:
        echo: also print each trace to the standard error output as it happens.

    Returns:
        A :class:`Compiles`, to be entered.

    Examples:
        >>> import jax.numpy as jnp
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
        >>> predict = fn.jit(lambda x: model(x))
        >>> y = predict(jnp.ones((4, 3)))
        >>> with fn.explain_compiles() as report:
        ...     y = predict(jnp.ones((4, 3)))
        ...     y = predict(jnp.ones((5, 3)))
        ...     y = model.eval() and predict(jnp.ones((5, 3)))
        >>> for compile in report:
        ...     print(compile.reasons)
        ('argument x: float32[4,3] -> float32[5,3]',)
        ('mode of Sequential and 2 modules below: training -> evaluation',)

    References:
        torch's TORCH_LOGS="recompiles"
    """
    return Compiles(echo)


def _name(fun: Any) -> str:
    return getattr(fun, "__qualname__", None) or type(fun).__name__


def _where(fun: Any) -> str:
    rule = fun.forward if isinstance(fun, Module) else inspect.unwrap(fun) if fun else None
    code = getattr(rule, "__code__", None)
    if code is None:
        return "no source"
    # Of a cell of a notebook: In[3], and not the name of the file that stands for it.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    tell = getattr(getattr(shell, "compile", None), "format_code_name", lambda name: None)
    _, name = tell(code.co_filename) or ("", os.path.basename(code.co_filename))
    return f"{name}:{code.co_firstlineno}"


# --- why --------------------------------------------------------------------------------------


class _Explanation:
    """Why one program was traced."""

    def __init__(self, fun: Any, program: Any) -> None:
        self.fun, self.program = fun, program
        try:
            rule = fun.forward if isinstance(fun, Module) else fun
            self.parameters = list(inspect.signature(rule).parameters.values())
        except (TypeError, ValueError):
            self.parameters = []

    def reasons(self, made: dict[Any, Any], known: list[Any]) -> list[str]:
        """One sentence for each difference."""
        program, now = self.program, self.program.traces[-1]
        if program not in made:
            before = program.traces[:-1]
            if not before:
                return ["the first call"]
            # The most similar one, and of those the latest.
            differences = [self.arguments(t, program.key, now) for t in reversed(before)]
            low = low_dtype.value
            return min(differences, key=len) or [
                "a setting of JAX that computations depend on (fn.autocast, matmul precision, the default device, "
                "x64, ...) is another one, or JAX's caches were cleared; fn.autocast is "
                + ("off" if low is None else f"on, in {jnp.dtype(low).name}")
            ]
        others = [p for p in known if p is not program and p.traces and p.fingerprint is not None]
        if not others:
            return ["the first call"]
        last = made[program] if made[program] in others else others[-1]
        alike = [p for p in others if p.key == program.key]
        if alike:
            # The most similar one, and of those the one that ran before.
            order = sorted(alike, key=lambda p: p is not last)
            each = [(self.names(p) or _structure(p, program), p) for p in order]
            found, last = min(each, key=lambda pair: len(pair[0]))
        else:
            found = self.keys(last.key, program.key)
        found += min((self.arguments(t, last.key, now) for t in reversed(last.traces)), key=len)
        return list(dict.fromkeys(found)) or ["the structure of what the function uses is another"]

    # --- arguments ---

    def path(self, path: tuple[Any, ...], key: Any) -> str:
        """What the user calls a leaf of the arguments."""
        if key is not None:  # the leaves that are arrays, in order
            structure, fixed = key
            places = [i for i in range(structure.num_leaves) if i not in {n for n, _ in fixed}]
            path = _paths(structure)[places[path[1].idx]]
        steps = path[2:]
        if getattr(path[0], "idx", None) == 0:
            return self.positional(path[1].idx) + jax.tree_util.keystr(steps)
        return str(getattr(path[1], "key", path[1])) + jax.tree_util.keystr(steps)

    def positional(self, number: int) -> str:
        """The name of a positional argument."""
        for parameter in self.parameters[: number + 1]:
            if parameter.kind is parameter.VAR_POSITIONAL:
                return f"{parameter.name}[{number - self.parameters.index(parameter)}]"
        return self.parameters[number].name if number < len(self.parameters) else f"{number}"

    def arguments(self, before: Trace, old_key: Any, now: Trace) -> list[str]:
        """What is different about the arrays that came, and about the values of cells."""
        key = self.program.key
        old = {self.path(p, old_key): kind for p, kind in before.arguments.items()}
        new = {self.path(p, key): kind for p, kind in now.arguments.items()}
        found = [
            f"argument {name}: {_kind(old[name])} -> {_kind(new[name])}"
            for name in new
            if name in old and old[name] != new[name]
        ]
        found += [f"argument {name} is new: {_kind(new[name])}" for name in new if name not in old]
        found += [
            f"argument {name} is missing: {_kind(old[name])}" for name in old if name not in new
        ]
        if not found and before.structure != now.structure:
            found.append(f"the structure of the arguments: {before.structure} -> {now.structure}")
        changed = [c for c in now.cells if c in before.cells and before.cells[c] != now.cells[c]]
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in changed:
            pair = _dtype(before.cells[cell]), _dtype(now.cells[cell])
            if pair[0] == pair[1]:
                pair = before.cells[cell], now.cells[cell]
            groups.setdefault(pair, []).append(cell)
        names = _cell_names(self.program)
        for (was, became), cells in groups.items():
            found.append(f"{_list([names.get(c, 'a cell') for c in cells])}: {was} -> {became}")
        return found

    def keys(self, old: Any, new: Any) -> list[str]:
        """What is different about the static values, and the modules among the arguments."""
        if old is None or new is None:
            return [
                "static values or modules are among the arguments of one call and not of the other"
            ]
        (was, old_fixed), (became, new_fixed) = old, new
        if was != became:
            names = [[self.path(path, None) for path in _paths(each)] for each in (was, became)]
            came = [f"argument {name} is new" for name in names[1] if name not in names[0]]
            gone = [f"argument {name} is missing" for name in names[0] if name not in names[1]]
            return [*came, *gone] or [
                f"the structure of the arguments: {_plain(was)} -> {_plain(became)}"
            ]
        before, found = dict(old_fixed), []
        for place, value in new_fixed:
            path = _paths(became)[place]
            name = self.path(path, None)
            if place not in before:
                found.append(f"argument {name} is {_fixed(value)} now")
            elif isinstance(value, Stateful) and before[place] is not value:
                found.append(f"argument {name}: another {type(value).__name__}")
            elif before[place] != value:
                found.append(f"static argument {name}: {_fixed(before[place])} -> {_fixed(value)}")
        return found

    # --- names ---

    def names(self, last: Any) -> list[str]:
        """The names that stand for other objects now."""
        found = []
        for box, key, value in last.bindings:
            if not unchanged([(box, key, value)]):
                found.append(
                    f"{self.variable(box, key)} stands for another object than before (a {type(value).__name__})"
                )
        return found

    def variable(self, box: Any, key: Any) -> str:
        """What the user calls it."""
        if isinstance(key, (str, int)):
            return f"'{key}'"
        fun = inspect.unwrap(self.fun)
        names = getattr(getattr(fun, "__code__", None), "co_freevars", ())
        for name, cell in zip(names, getattr(fun, "__closure__", None) or ()):
            if cell is box:
                return f"'{name}'"
        return "a variable"


def _paths(structure: Any) -> list[Any]:
    filled = jax.tree.unflatten(structure, range(structure.num_leaves))
    return [path for path, _ in jax.tree_util.tree_flatten_with_path(filled)[0]]


def _plain(structure: Any) -> str:
    return str(structure).removeprefix("PyTreeDef(").removesuffix(")")


def _kind(text: str) -> str:
    return f"{text[1:]} (a Python number)" if text.startswith("~") else text


def _dtype(text: str) -> str:
    return text.partition("[")[0]


def _fixed(value: Any) -> str:
    return f"a {type(value).__name__}" if isinstance(value, Stateful) else repr(value.value)


def _list(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


# --- structure --------------------------------------------------------------------------------


def _module_names(program: Any) -> dict[Any, str]:
    """A name for each module and optimizer that the program depends on."""
    names: dict[Any, str] = {}
    for root in dict.fromkeys([*program.roots, *program.parts]):
        kind = type(root).__name__
        if not isinstance(root, Module):
            names.setdefault(root, kind)
        elif root not in names:
            for path, module in root._walk():
                text = f"'{path}' ({type(module).__name__})" if path else kind
                names.setdefault(module, text)
    return names


def _cell_names(program: Any) -> dict[Cell, str]:
    names: dict[Cell, str] = {}
    for root in dict.fromkeys([*program.roots, *program.parts]):
        for path, cell in root._cells():
            names.setdefault(cell, f"'{path}' of {type(root).__name__}")
    return names


def _structure(last: Any, program: Any) -> list[str]:
    """What is different about the modules and optimizers of two programs."""
    names = _module_names(last) | _module_names(program)
    old = dict(zip(last.parts, last.fingerprint, strict=True))
    new = dict(zip(program.parts, program.fingerprint, strict=True))
    found: list[str] = []
    modes: dict[tuple[str, str], list[str]] = {}
    for part, fingerprint in new.items():
        if part not in old or old[part] == fingerprint:
            continue
        if isinstance(part, Module):
            was, became = old[part], fingerprint
            if was[1] != became[1]:
                modes.setdefault((_mode(was[1]), _mode(became[1])), []).append(names[part])
            found += _module(names[part], was, became)
        else:
            found.append(f"the options, groups or hooks of {names[part]} changed")
    for (was, became), parts in modes.items():
        more = len(parts) - 1
        below = f" and {more} module{'s' * (more > 1)} below" if more else ""
        found.insert(0, f"mode of {parts[0]}{below}: {was} -> {became}")
    if not found:
        gone = [names[p] for p in old if p not in new]
        came = [names[p] for p in new if p not in old]
        found += [f"{_list(came)} is used now"] * bool(came)
        found += [f"{_list(gone)} is not used any more"] * bool(gone)
    return found


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def _module(name: str, was: Any, became: Any) -> Iterator[str]:
    old_kind, _, old_cells, old_children, old_hooks, old_plain = was
    kind, _, cells, children, hooks, plain = became
    if old_kind is not kind:
        yield f"the class of {name}: {old_kind.__name__} -> {kind.__name__}"
    before = {key: (cell, trained) for key, cell, trained in old_cells}
    after = {key: (cell, trained) for key, cell, trained in cells}
    for key in before | after:
        if key not in before or key not in after:
            yield f"{'parameter or buffer'} '{key}' of {name} is {'new' if key in after else 'gone'}"
        elif before[key][0] != after[key][0]:
            yield f"'{key}' of {name} is another Parameter or Buffer"
        elif before[key][1] != after[key][1]:
            yield f"'{key}' of {name} is {'trained' if after[key][1] else 'frozen'} now"
    before, after = dict(old_children), dict(children)
    for key in before | after:
        if before.get(key) != after.get(key):
            kinds = [
                type(each[key].value).__name__ if key in each else "nothing"
                for each in (before, after)
            ]
            yield f"child '{key}' of {name}: {kinds[0]} -> {kinds[1]}"
    if old_hooks != hooks:
        yield f"the hooks of {name}: there were {len(old_hooks)}, and now {len(hooks)}"
    before, after = dict(old_plain), dict(plain)
    for key in before | after:
        if before.get(key) != after.get(key):
            texts = [_thawed(each[key]) if key in each else "nothing" for each in (before, after)]
            what = f"{texts[0]} -> {texts[1]}" if texts[0] != texts[1] else f"another {texts[0]}"
            yield f"attribute '{key}' of {name}: {what}"


def _thawed(frozen: Any) -> str:
    """The text of what ``core.tree.freeze`` made comparable."""
    if isinstance(frozen, Same):
        return describe(frozen.value)
    kind, value = frozen
    if issubclass(kind, np.generic):
        return repr(np.frombuffer(value, kind)[0])
    if issubclass(kind, (tuple, list)):
        inner = ", ".join(map(_thawed, value))
        return f"[{inner}]" if issubclass(kind, list) else f"({inner})"
    if issubclass(kind, dict):
        return "{" + ", ".join(f"{_thawed(k)}: {_thawed(v)}" for k, v in value) + "}"
    return value if issubclass(kind, (float, complex)) else repr(value)
