"""What a call of a model does, found out without computing: which modules it calls, and where their outputs go.

The call is traced abstractly and watched (``core/watch.py``): all arrays that enter and leave a module pass through
``checkpoint_name``, which is the identity, and whose mark stands in the traced program. So the program says which
operation belongs to which call, and what depends on what: also where outputs meet in an addition, or skip a module.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from funcnets.core.alike import difference
from funcnets.core.module import Module
from funcnets.core.watch import Paths, call, trace_abstractly
from funcnets.nn import Stack

__all__ = ["Call", "Recording", "Step", "record"]

_MARK = "funcnets.look:"


@dataclass
class Call:
    """One call of a module: which, by what name, and the shapes that went in and came out.

    ``times`` is the number of blocks of an ``nn.Stack``, one after the other, for which the call stands.
    """

    module: Module
    path: str
    inputs: list[Any]
    outputs: list[Any] = field(default_factory=list)
    times: int = 1


@dataclass
class Step:
    """One thing that happens: a call begins or ends, or an operation makes values out of values."""

    kind: str
    call: int = -1
    label: str = ""
    room: str = ""
    place: Any = None
    ins: tuple[int, ...] = ()
    outs: tuple[int, ...] = ()


@dataclass
class Recording:
    """Calls by number, what happens in order, and the shape of every value by its number."""

    calls: list[Call]
    steps: list[Step]
    shapes: dict[int, Any]
    inputs: list[int]
    outputs: list[int]


def _mark(tree: Any, what: str) -> Any:
    checkpoint_name(jnp.zeros((), jnp.int8), f"{_MARK}{what}")  # of a call without arrays, too
    return jax.tree.map(
        lambda leaf: checkpoint_name(leaf, _MARK + what) if isinstance(leaf, jax.Array) else leaf,
        tree,
    )


def _shapes(tree: Any) -> list[Any]:
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]


def record(model: Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recording:
    """Trace a call abstractly.

    Args:
        model: the module to be called.
        args: its arguments, with a ``jax.ShapeDtypeStruct`` in the place of an array.
        kwargs: likewise.
    """
    calls: list[Call] = []
    running: list[Module] = []
    #: Of a Stack whose blocks are alike, the call of a block that gave what it was given: of the same shape and
    #: dtype, so that it stands for all blocks after it.
    stands: dict[Module, Call] = {}
    paths = Paths(model)

    def watch(module: Module, args: Any, kwargs: Any) -> Any:
        above = running[-1] if running else None
        if above in stands:
            stands[above].times += 1
            return args[0]
        number = len(calls)
        with paths.within(module) as path:
            calls.append(now := Call(module, path, _shapes((args, kwargs))))
            running.append(module)
            try:
                args, kwargs = _mark((args, kwargs), f"begin:{number}")
                out = call(module, args, kwargs)
                now.outputs = _shapes(out)
            except Exception:
                _mark((), f"end:{number}")  # a caller may go on without it
                raise
            finally:
                running.pop()
                stands.pop(module, None)
        if type(above) is Stack and _same(args[0], out) and _alike(above):
            stands[above] = now
        return _mark(out, f"end:{number}")

    closed, _ = trace_abstractly(model, args, kwargs, watch)
    return _Flattener(calls).run(closed)


def _same(one: Any, other: Any) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(other) and _shapes(one) == _shapes(other)


def _alike(stack: Stack) -> bool:
    first, *rest = stack
    return all(difference(first, block) is None for block in rest)


# --- the program as one list ------------------------------------------------------------------


def _inner(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def _marked(jaxpr: Any) -> bool:
    return any(
        _mark_of(eqn) is not None or any(_marked(inner) for inner in _inner(eqn.params))
        for eqn in jaxpr.eqns
    )


def _mark_of(eqn: Any) -> str | None:
    if eqn.primitive.name != "name":
        return None
    name = str(eqn.params.get("name", ""))
    return name[len(_MARK) :] if name.startswith(_MARK) else None


class _Flattener:
    def __init__(self, calls: list[Call]) -> None:
        self.calls, self.steps = calls, []
        self.shapes: dict[int, Any] = {}
        self.begun: set[int] = set()

    def run(self, closed: Any) -> Recording:
        env: dict[Any, int] = {}
        inputs = [self.new(var, env) for var in closed.jaxpr.invars]
        self.walk(closed.jaxpr, env)
        outputs = [i for i in (self.get(var, env) for var in closed.jaxpr.outvars) if i is not None]
        return Recording(self.calls, self.steps, self.shapes, inputs, outputs)

    def new(self, var: Any, env: dict[Any, int]) -> int:
        env[var] = number = len(self.shapes)
        self.shapes[number] = var.aval
        return number

    def get(self, var: Any, env: dict[Any, int]) -> int | None:
        if hasattr(var, "val"):  # a literal
            return None
        return env[var] if var in env else self.new(var, env)

    def walk(self, jaxpr: Any, env: dict[Any, int]) -> None:
        for eqn in jaxpr.eqns:
            ins = [self.get(var, env) for var in eqn.invars]
            mark = _mark_of(eqn)
            inner = [j for j in _inner(eqn.params) if _marked(j)]
            if mark is None and len(inner) == 1 and self.fits(eqn, inner[0]):
                self.inline(eqn, inner[0], ins, env)
                continue
            outs = tuple(self.new(var, env) for var in eqn.outvars)
            known = tuple(i for i in ins if i is not None)
            if mark is None:
                label, room, place = _function(eqn)
                self.steps.append(Step("op", -1, label, room, place, known, outs))
                continue
            kind, _, number = mark.partition(":")
            if (kind, int(number)) not in self.begun:
                self.begun.add((kind, int(number)))  # pyright: ignore[reportArgumentType]
                self.steps.append(Step(kind, int(number)))
            self.steps.append(Step("same", int(number), kind, ins=known, outs=outs))

    @staticmethod
    def fits(eqn: Any, jaxpr: Any) -> bool:
        sizes = len(jaxpr.invars), len(jaxpr.outvars)
        return sizes == (len(eqn.invars), len(eqn.outvars))

    def inline(self, eqn: Any, jaxpr: Any, ins: list[Any], env: dict[Any, int]) -> None:
        local: dict[Any, int] = {}
        for var, outer in zip(jaxpr.invars, ins, strict=True):
            number = self.new(var, local)
            known = () if outer is None else (outer,)
            self.steps.append(Step("same", ins=known, outs=(number,)))
        self.walk(jaxpr, local)
        for var, result in zip(eqn.outvars, jaxpr.outvars, strict=True):
            inner = self.get(result, local)
            known = () if inner is None else (inner,)
            self.steps.append(Step("same", ins=known, outs=(self.new(var, env),)))


# --- the names of operations ------------------------------------------------------------------

_JAX = os.path.dirname(jax.__file__)
_OURS = os.path.dirname(os.path.dirname(__file__))
_FUNCTIONAL = os.path.join(_OURS, "functional")
_OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "×",
    "div": "÷",
    "truediv": "÷",
    "matmul": "@",
    "dot_general": "@",
    "pow": "power",
    "integer_pow": "power",
    "getitem": "index",
    "gather": "index",
    "dynamic_slice": "index",
    "reduce_sum": "sum",
    "reduce_max": "max",
    "reduce_min": "min",
    "concatenate": "concat",
    "select_n": "where",
}
#: What changes no number, or only its type.
SILENT = frozenset(
    {
        "array",
        "asarray",
        "astype",
        "broadcast_in_dim",
        "broadcast_to",
        "convert_element_type",
        "copy",
        "optimization_barrier",
        "sharding_constraint",
        "stop_gradient",
        "with_sharding_constraint",
    }
)


@functools.cache
def _public(name: str) -> bool:
    return any(hasattr(home, name) for home in (jnp, jax.nn, jax.lax))


def _function(eqn: Any) -> tuple[str, str, Any]:
    """The function that made an operation: its name, its room if it is ours, and where it was called."""
    traceback = getattr(eqn.source_info, "traceback", None)
    library: list[Any] = []
    place: Any = None
    for frame in getattr(traceback, "frames", ()):
        if frame.file_name.startswith((_JAX, _FUNCTIONAL)):
            library.append(frame)
            continue
        place = frame.file_name, frame.function_name, getattr(frame, "line_num", 0)
        break
    for frame in reversed(library):
        name = frame.function_name.rpartition(".")[2]
        if frame.file_name.startswith(_FUNCTIONAL):
            if not name.startswith("_") and not frame.file_name.endswith("_one_program.py"):
                room = os.path.splitext(os.path.basename(frame.file_name))[0]
                return name, f"funcnets.functional.{room}", (name, place)
            continue
        operator = name.removeprefix("_operator_").strip("_")
        for known in (operator, operator.removeprefix("r")):
            if known in _OPERATORS and known != name:
                return _OPERATORS[known], "", (name, place)
        if not name.startswith("_") and _public(name) and name != "jit":
            return name, "", (name, place)
    name = eqn.params.get("name") if eqn.primitive.name in ("jit", "pjit") else None
    name = str(name or eqn.primitive.name)
    return _OPERATORS.get(name, name), "", (name, place)
