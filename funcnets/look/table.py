"""``fn.summary``: what a model is made of and what a call of it takes, without making or computing anything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnets._args import describe, optional, positive
from funcnets.core.cell import Cell
from funcnets.core.lazy import unsettled_again
from funcnets.core.module import Module
from funcnets.core.watch import call, note, trace_abstractly
from funcnets.errors import ArgumentError
from funcnets.look.flops import Cost, costs, scope
from funcnets.look.inputs import as_inputs, module_of, shapes_are_floats
from funcnets.look.table_text import COLUMNS, as_html, as_rich, as_text

__all__ = ["Call", "Row", "Summary", "Totals", "summary"]

_DEFAULT = ("input_size", "output_size", "num_params", "trainable", "mult_adds", "bytes")
_numbers = itertools.count()


class Call(NamedTuple):
    """One call of a module.

    Attributes:
        args: what went in, with a ``jax.ShapeDtypeStruct`` in the place of an array.
        kwargs: likewise.
        output: what came out, likewise.
        cost: what the call takes, with all the calls within it.
        own: what it takes without these.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> fn.summary(nn.Linear(3, 2), (5, 3)).rows[0].calls[0].output.shape
        (5, 2)
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    cost: Cost
    own: Cost


class Row(NamedTuple):
    """One module of a :class:`Summary`, under one of its names.

    Attributes:
        path: where it stands; ``""`` is the model itself.
        name: the last part of that.
        type: the name of its class.
        depth: how deep it stands; 0 is the model itself.
        number: which one it is at that depth, from 1.
        parameters: the number of parameters in it and in all modules below, without those that a row
            before has counted.
        trainable: how many of them are trained.
        buffers: the number of elements of its buffers, likewise.
        bytes: of parameters and buffers, likewise.
        own_parameters: the number of parameters of the module itself, without the modules below.
        own_bytes: of its parameters and buffers, likewise.
        calls: of the module; empty if it is not called, or if there was no input.
        cost: what all its calls take together; of a container that is not called, what those of the
            modules in it take.
        own_cost: what they take without the calls of other modules within them.
        recursive: whether it has been counted before: another name of a module, or a module whose
            parameters are all those of others.
        training: its mode.
        leaf: whether there are no modules below it.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> row = fn.summary(nn.Sequential(nn.Linear(3, 2))).rows[1]
        >>> row.path, row.type, row.parameters
        ('0', 'Linear', 8)
    """

    path: str
    name: str
    type: str
    depth: int
    number: int
    parameters: int
    trainable: int
    buffers: int
    bytes: int
    own_parameters: int
    own_bytes: int
    calls: tuple[Call, ...]
    cost: Cost
    own_cost: Cost
    recursive: bool
    training: bool
    leaf: bool

    @property
    def frozen(self) -> bool:
        """Whether it has parameters and none of them is trained."""
        return bool(self.parameters) and not self.trainable


class Totals(NamedTuple):
    """The sums of a :class:`Summary`; sizes are in bytes.

    Attributes:
        parameters: the number of parameters, shared ones once.
        trainable: how many of them are trained.
        non_trainable: how many are not.
        buffers: the number of elements of all buffers.
        cost: what one call takes.
        input_bytes: of the arrays that go in.
        forward_bytes: of what those modules give that call no others.
        param_bytes: of parameters and buffers.
        total_bytes: of these three together, an estimate of what a forward pass needs.
        unsettled: how many parameters and buffers of lazy modules have no shape, as there was no input.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> totals = fn.summary(nn.Linear(3, 2), (5, 3)).totals
        >>> totals.parameters, totals.cost.mult_adds, totals.total_bytes
        (8, 30, 132)
    """

    parameters: int
    trainable: int
    non_trainable: int
    buffers: int
    cost: Cost
    input_bytes: int
    forward_bytes: int
    param_bytes: int
    total_bytes: int
    unsettled: int


class Summary:
    """What :func:`summary` gives: rows, totals, and the table of them.

    ``str(s)`` is plain text, ``s.show()`` prints it, in colour in a terminal with rich, and a notebook shows HTML.

    Args:
        rows: one for each module.
        totals: of all.
        depth: how deep the table goes; ``rows`` has all modules.
        columns: of the table.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> s = fn.summary(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (5, 3))
        >>> s["0"].parameters, len(s.rows), s.totals.trainable
        (8, 3, 8)
    """

    def __init__(
        self, rows: Sequence[Row], totals: Totals, depth: int | None, columns: Sequence[str]
    ) -> None:
        self.rows, self.totals = tuple(rows), totals
        self.depth, self.columns = depth, tuple(columns)

    def __getitem__(self, path: str) -> Row:
        for row in self.rows:
            if row.path == path:
                return row
        raise KeyError(path)

    def __str__(self) -> str:
        return as_text(self)

    __repr__ = __str__

    def __rich__(self) -> Any:
        return as_rich(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def show(self) -> None:
        """Print the table: with rich if it is installed and this is a terminal, else as plain text."""
        try:
            console = optional("rich.console", "train", "a table in colour").Console()
        except ImportError:
            print(self)
            return
        if console.is_terminal:
            console.print(as_rich(self))
        else:
            print(self)

    def to_dict(self) -> dict[str, Any]:
        """Rows and totals as plain dicts, lists, numbers and strings, as JSON has them.

        Returns:
            ``{"rows": [...], "totals": {...}}``.
        """
        return {"rows": [_plain(row) for row in self.rows], "totals": _plain(self.totals)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields: tuple[str, ...] = getattr(value, "_fields")  # noqa: B009
        return {name: _plain(item) for name, item in zip(fields, value, strict=True)}
    if isinstance(value, jax.ShapeDtypeStruct):
        return {"shape": list(value.shape), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else describe(value)


def summary(
    model: Module,
    *inputs: Any,
    depth: int | None = None,
    columns: Sequence[str] = _DEFAULT,
    dtypes: Any = None,
    training: bool | None = None,
    **kwargs: Any,
) -> Summary:
    """A table of a model: its modules, their shapes, parameters, operations and memory.

    The call is traced, not computed, and no array is made: parameters that have no value yet stay
    without one, lazy modules stay lazy, buffers and random streams stay as they are. So models that are much too large
    for this machine can be looked at.

    Args:
        model: any Module.
        *inputs: of a call: a shape such as ``(1, 3, 224, 224)``, an array, a ``jax.ShapeDtypeStruct``; tuples,
            lists and dicts of these; anything else goes in as it is, and so does a list of integers. Without any input
            the table has no shapes and no operations.
        depth: how deep the table goes; None for all. What is deeper counts in the row above it.
        columns: which ones, of ``"input_size"``, ``"output_size"``, ``"num_params"``, ``"params_percent"``,
            ``"trainable"``, ``"mult_adds"``, ``"flops"``, ``"bytes"``, ``"calls"``, ``"mode"`` and ``"path"``.
        dtypes: of the inputs that are given as shapes: one for all of them, or a list; float32 by default.
        training: the mode of the call; None for each module's own.
        **kwargs: keyword arguments of the call, as ``inputs``.

    Returns:
        A :class:`Summary`.

    Raises:
        ArgumentError: an unknown column, or another number of dtypes than of shapes.
        DTypeError: ``model`` is not a Module.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import nn
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> print(fn.summary(model, (32, 8), columns=["output_size", "num_params"]))
        ========================================
        Layer (type)       Output shape  Param #
        ========================================
        Sequential         [32, 4]            --
        ├─Linear: 1-1 (0)  [32, 16]          144
        ├─ReLU: 1-2 (1)    [32, 16]           --
        └─Linear: 1-3 (2)  [32, 4]            68
        ========================================
        Total params: 212
        Trainable params: 212
        Non-trainable params: 0
        Buffers: 0
        Multiply-adds: 6.14 k
        FLOPs: 13.44 k
        ========================================
        Input size: 1.02 kB
        Forward pass size: 4.61 kB
        Params size: 848 B
        Estimated total size: 6.48 kB
        ========================================

    References:
        torchinfo.summary
    """
    model = module_of(model, "summary")
    unknown = [c for c in columns if c not in COLUMNS]
    if unknown or isinstance(columns, str):
        raise ArgumentError(
            f"columns must be some of {', '.join(map(repr, COLUMNS))}, but got {columns!r}"
        )
    if depth is not None:
        positive("depth", depth, minimum=0)
    calls: dict[Module, list[Call]] = {}
    given = forward = 0
    with unsettled_again(model):
        if inputs or kwargs:
            args, words = as_inputs(inputs, kwargs, dtypes)
            given = _bytes((args, words))
            with shapes_are_floats("dtypes= gives another dtype"):
                calls, forward = _calls(model, args, words, training)
        rows, totals = _rows(model, calls, given, forward)
    return Summary(rows, totals, depth, columns)


# --- the call ---------------------------------------------------------------------------------


def _bytes(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(_size(leaf) for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct))


def _size(described: Any) -> int:
    # Of a key, what it is made of.
    if jnp.issubdtype(described.dtype, jax.dtypes.prng_key):
        return 8 * math.prod(described.shape)
    return math.prod(described.shape) * jnp.dtype(described.dtype).itemsize


class _Traced(NamedTuple):
    number: int
    above: int | None
    module: Module
    args: Any
    kwargs: Any
    output: Any


def _calls(
    model: Module, args: Any, kwargs: Any, training: bool | None
) -> tuple[dict[Module, list[Call]], int]:
    """The calls of each module, and the bytes of what those give that have no others within."""
    running: list[int] = []

    def watch(module: Module, args: Any, kwargs: Any) -> Any:
        number, above = next(_numbers), running[-1] if running else None
        running.append(number)
        try:
            # Names of what is computed tell, in the end, which call it belongs to.
            with jax.named_scope(scope(number)):
                out = call(module, args, kwargs)
        finally:
            running.pop()
        note(_Traced(number, above, module, *map(_outline, (args, kwargs, out))), [])
        return out

    jaxpr, traced = trace_abstractly(model, args, kwargs, watch, training)
    own = costs(jaxpr, {t.number for t in traced})
    total = {t.number: own.get(t.number, Cost()) for t in traced}
    for t in traced:  # what is within a call comes before it
        if t.above in total:
            total[t.above] += total[t.number]
    calls: dict[Module, list[Call]] = {}
    for t in sorted(traced, key=lambda t: t.number):
        cost, alone = total[t.number], own.get(t.number, Cost())
        calls.setdefault(t.module, []).append(Call(t.args, t.kwargs, t.output, cost, alone))
    callers = {t.above for t in traced}
    return calls, sum(_bytes(t.output) for t in traced if t.number not in callers)


def _outline(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: (
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
            else leaf
        ),
        tree,
    )


# --- rows -------------------------------------------------------------------------------------


def _rows(
    model: Module, calls: dict[Module, list[Call]], given: int, forward: int
) -> tuple[list[Row], Totals]:
    counted: set[int] = set()
    met: set[int] = set()
    numbers: dict[int, int] = {}
    rows: list[Any] = []

    def visit(module: Module, path: str, name: str, depth: int) -> list[Cell]:
        """Add the rows of a module and of all below; gives the cells that they count."""
        numbers[depth] = numbers.get(depth, 0) + 1
        number, place = numbers[depth], len(rows)
        rows.append(None)
        again, first = id(module) in met, len(counted)
        met.add(id(module))
        every = [
            c
            for home in (module._parameters, module._buffers)
            for c in home.values()
            if c is not None
        ]
        mine = [c for c in dict.fromkeys(every) if id(c) not in counted]
        counted.update(map(id, mine))
        cells: list[Cell] = list(mine)
        children = list(module._modules.items())
        below = []
        for key, child in children if not again else ():
            if child is not None:
                below.append(len(rows))
                cells += visit(child, f"{path}.{key}" if path else key, key, depth + 1)
        done = [] if again else calls.get(module, [])
        has_cells = bool(every) or (again and any(True for _ in module._cells()))
        parameters = [c for c in cells if hasattr(c, "requires_grad_")]
        sizes = {id(c): c.numel() if c.settled else 0 for c in cells}
        rows[place] = Row(
            path,
            name,
            module._get_name(),
            depth,
            number,
            sum(sizes[id(c)] for c in parameters),
            sum(sizes[id(c)] for c in parameters if c.requires_grad),
            sum(sizes[id(c)] for c in cells) - sum(sizes[id(c)] for c in parameters),
            sum(_size(c) for c in cells if c.settled),
            sum(sizes[id(c)] for c in mine if hasattr(c, "requires_grad_")),
            sum(_size(c) for c in mine if c.settled),
            tuple(done),
            sum((c.cost for c in done) if done else (rows[i].cost for i in below), Cost()),
            sum((c.own for c in done), Cost()),
            again or (has_cells and len(counted) == first and not cells),
            module._training,
            not any(child is not None for _, child in children),
        )
        return cells

    visit(model, "", "", 0)
    top = rows[0]
    totals = Totals(
        top.parameters,
        top.trainable,
        top.parameters - top.trainable,
        top.buffers,
        top.cost,
        given,
        forward,
        top.bytes,
        given + forward + top.bytes,
        sum(not cell.settled for _, cell in model._cells()),
    )
    return rows, totals
