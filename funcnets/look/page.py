"""What a notebook shows of modules, parameters, buffers, optimizers and histories: HTML and CSS, without scripts.

Looking changes nothing. A cell without a value is said to have none, an array that lies in a pack or in a stack is
looked at where it is, of a large array a sample is looked at, and nothing is fetched from the network. All text from
outside is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from funcnets._args import positive
from funcnets.core.cell import Cell
from funcnets.core.lazy import unsettled_again
from funcnets.core.module import Module
from funcnets.core.pack import seen
from funcnets.look.arrays import bars, glance, placement_text
from funcnets.look.calls import record
from funcnets.look.graph import count, hyper, shape_text
from funcnets.look.inputs import OTHER_DTYPES, as_inputs, module_of, shapes_are_floats
from funcnets.look.style import STYLE
from funcnets.look.table_text import size as bytes_text
from funcnets.look.theme import escape, family_of
from funcnets.nn import Stack
from funcnets.optim import Optimizer

__all__ = ["View", "html_of", "view"]

LOOKED_AT = 160  # cells of one view of whose values something is said
SHOWN = 1500  # modules of one view


class View:
    """A view of a module as HTML, which notebooks show; :func:`view` returns one.

    Args:
        html: the text.

    Examples:
        >>> from funcnets import look, nn
        >>> look.view(nn.Linear(3, 2))
        View of 1 module
    """

    def __init__(self, html: str) -> None:
        #: The text, an HTML element with its style.
        self.html = html

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        number = self.html.count('class="fnl-module"')
        return f"View of {number} module" + "s" * (number != 1)


def view(
    model: Module, *inputs: Any, depth: int = 1, kwargs: Mapping[str, Any] | None = None
) -> View:
    """The view of a module that a notebook shows, with the shape of every output.

    A notebook shows a module that is the last value of a cell as a tree that opens and closes: the types with their
    hyper-parameters, parameter counts and bytes, what is in evaluation mode or frozen, and of every parameter and
    buffer the shape, dtype and placement, range and histogram. The shape of an output depends on the input, and a
    module keeps none. So the plain view tells what a class knows by itself (``out_features``, ``out_channels``,
    ...), with ``*`` for the rest; with inputs given here, the model is evaluated abstractly, as ``fn.eval_shape`` does
    it, and the view has the shapes of that call.

    Args:
        model: the module to show.
        *inputs: arguments of a call: arrays, ``jax.ShapeDtypeStruct``, or tuples of ints, which are shapes of
            float32 arrays.
        depth: how many levels are open at first.
        kwargs: keyword arguments of the call.

    Returns:
        A :class:`View`; its ``html`` is the text.

    Raises:
        DTypeError: ``model`` is no Module.

    Examples:
        >>> from funcnets import look, nn
        >>> model = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU())
        >>> shown = look.view(model, (8, 1, 28, 28))
        >>> "8×6×24×24" in shown.html, shown
        (True, View of 3 modules)
    """
    model = module_of(model, "view")
    positive("depth", depth, minimum=0)
    shapes: dict[str, str] = {}
    with unsettled_again(model):
        if inputs or kwargs:
            with shapes_are_floats(OTHER_DTYPES):
                recording = record(model, *as_inputs(inputs, kwargs or {}))
            for call in recording.calls:
                if call.outputs:
                    shapes.setdefault(call.path, shape_text(call.outputs))
        return View(_Page(shapes, depth).module(model))


def html_of(thing: Any) -> str | None:
    """The view of what has one, else None.

    Args:
        thing: a module, a parameter or buffer, an optimizer, or a History.
    """
    if isinstance(thing, Module):
        return _Page({}, 1).module(thing)
    if isinstance(thing, Cell):
        return _wrapped(_Page({}, 1).cell(type(thing).__name__, thing, alone=True))
    if isinstance(thing, Optimizer):
        return _optimizer(thing)
    if hasattr(thing, "epochs"):
        return _history(thing)
    return None


def _wrapped(body: str) -> str:
    return f'<div class="fnl-view"><style>{STYLE}</style>{body}</div>'


def _tag(text: Any, kind: str) -> str:
    # The space is for where the style sheet is taken out: in a notebook that is not trusted yet, on GitHub.
    return f'<span class="fnl-{kind}">{escape(text)}</span> ' if text else ""


# --- counting ---------------------------------------------------------------------------------


def _sums(module: Module) -> tuple[int, int, int, int, int]:
    """Parameters, those of them that are trained, numbers in buffers, bytes of all, cells without a shape."""
    params = trained = buffers = unknown = 0
    size = 0
    for _, cell in module._cells(rows=True):
        if not cell.settled:
            unknown += 1
            continue
        number = math.prod(cell.shape)
        size += number * cell.dtype.itemsize
        if hasattr(cell, "requires_grad_"):
            params += number
            trained += number * cell.requires_grad
        else:
            buffers += number
    return params, trained, buffers, size, unknown


def _sum_text(module: Module) -> str:
    params, _, buffers, size, unknown = _sums(module)
    words = [f"{count(params)} parameters"] if params else []
    words += [f"{count(buffers)} in buffers"] if buffers and not params else []
    words += [bytes_text(size)] if size else []
    words += ["shapes not known yet"] if unknown else []
    return " · ".join(words)


def _known_output(module: Module) -> str:
    """What a class knows of the shape of its output."""
    own = vars(module)
    room = type(module).__module__
    if not room.startswith("funcnets.nn."):
        return ""
    try:
        if "out_channels" in own and "kernel_size" in own:
            return f"(*, {own['out_channels']}{', *' * len(own['kernel_size'])})"
        for name in ("out_features", "embedding_dim", "hidden_size"):
            if isinstance(own.get(name), int):
                return f"(*, {own[name] * (2 if own.get('bidirectional') else 1)})"
    except Exception:
        return ""
    return ""


# --- modules ----------------------------------------------------------------------------------


class _Page:
    """One view: its shapes by path, and how much of it has been written."""

    def __init__(self, shapes: Mapping[str, str], depth: int) -> None:
        self.shapes, self.depth = shapes, depth
        self.modules = self.cells = 0
        self.known: dict[int, str] = {}

    def module(self, module: Module) -> str:
        return _wrapped(self.tree("", module, "", 0, None))

    def tree(self, name: str, module: Module, path: str, level: int, around: Module | None) -> str:
        self.modules += 1
        if id(module) in self.known:
            same = f"is {self.known[id(module)] or 'the root'}"
            return f'<div class="fnl-line">{_tag(name, "name")}{_type(module)}{_tag(same, "dim")}</div>'
        self.known[id(module)] = path
        body = "".join(self._inside(module, path, level))
        head = self._head(name, module, path, around)
        if not body:
            return f'<div class="fnl-module"><div class="fnl-line">{head}</div></div>'
        opened = " open" if level < self.depth else ""
        return (
            f'<details class="fnl-module"{opened}><summary class="fnl-line">{head}</summary>'
            f'<div class="fnl-inside">{body}</div></details>'
        )

    def _head(
        self, name: str, module: Module, path: str, around: Module | None, more: str = ""
    ) -> str:
        text = hyper(module)
        if isinstance(module, Stack):
            text = f"{len(module)} × {next(iter(module))._get_name()}"
        short = text if len(text) <= 160 else text[:157] + "..."
        output = self.shapes.get(path) or _known_output(module)
        marks = ""
        if around is None or around._training != module._training:
            marks += _tag("training" if module._training else "eval", "mark")
        _, trained, *_ = sums = _sums(module)
        if sums[0] and not trained:
            marks += _tag("frozen", "mark fnl-frozen")
        elif sums[0] > trained and (around is None or trained):
            marks += _tag(f"{count(sums[0] - trained)} frozen", "mark fnl-frozen")
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        if hooks:
            marks += _tag(f"{hooks} hook" + "s" * (hooks > 1), "mark")
        return (
            _tag(name, "name")
            + _tag(more, "times")
            + _type(module)
            + _tag(short.replace("\n", ", "), "hyper")
            + (_tag(f"→ {output}", "shape") if output else "")
            + marks
            + _tag(_sum_text(module), "sum")
        )

    def _inside(self, module: Module, path: str, level: int) -> Iterator[str]:
        for home in (module._parameters, module._buffers):
            for name, cell in home.items():
                if cell is not None:
                    yield self.cell(name, cell)
        children = list(module._modules.items())
        at = 0
        while at < len(children):
            name, child = children[at]
            if child is None:
                yield f'<div class="fnl-line">{_tag(name, "name")}{_tag("None", "dim")}</div>'
                at += 1
                continue
            if self.modules >= SHOWN:
                yield f'<div class="fnl-line">{_tag(f"and {len(children) - at} more", "dim")}</div>'
                return
            below = f"{path}.{name}" if path else name
            times = _repeated(children, at) if name.isdigit() else 1
            if times > 1 and id(child) not in self.known:
                yield self._repeats(children[at : at + times], below, level, module)
            else:
                times = 1
                yield self.tree(name, child, below, level + 1, module)
            at += times

    def _repeats(self, children: Any, path: str, level: int, around: Module) -> str:
        """Blocks that are alike, as the first of them."""
        (first, child), (last, _) = children[0], children[-1]
        self.modules += 1
        head = self._head(f"{first}–{last}", child, path, around, f"{len(children)} ×")
        for name, block in children:
            self.known[id(block)] = name
        body = "".join(self._inside(child, path, level + 1))
        note = _tag(f"each; below, the numbers of {first}", "dim")
        return (
            f'<details class="fnl-module"><summary class="fnl-line">{head}{note}</summary>'
            f'<div class="fnl-inside">{body}</div></details>'
        )

    # --- cells ---

    def cell(self, name: str, cell: Cell, alone: bool = False) -> str:
        """A parameter or buffer in one line."""
        shape = (
            "×".join(map(str, cell.shape)) or "number" if cell.settled else "shape not known yet"
        )
        line = _tag(name, "name") + _tag(shape, "shape") + _tag(cell.dtype, "dim")
        if alone and cell.settled:
            line += _tag(bytes_text(math.prod(cell.shape) * cell.dtype.itemsize), "dim")
        if hasattr(cell, "requires_grad_"):
            line += "" if cell.requires_grad else _tag("frozen", "mark fnl-frozen")
        elif not alone:
            line += _tag("buffer" if cell.persistent else "buffer, not saved", "mark")
        if id(cell) in self.known:
            return f'<div class="fnl-line fnl-cell">{line}{_tag(f"is {self.known[id(cell)]}", "dim")}</div>'
        self.known[id(cell)] = name
        self.cells += 1
        if self.cells <= LOOKED_AT:
            line += self._value(cell)
        return f'<div class="fnl-line fnl-cell">{line}</div>'

    @staticmethod
    def _value(cell: Cell) -> str:
        if not cell.has_value:
            return _tag("not drawn yet", "dim")
        try:
            looked, where = seen(cell, lambda value: (glance(value), placement_text(value)))
        except Exception as error:  # of a device that is gone, say: the rest is shown all the same
            return _tag(f"cannot be read ({type(error).__name__})", "dim")
        return bars(looked) + _tag(", ".join(looked.words), "stat") + _tag(where, "mark")


def _type(module: Module) -> str:
    return _tag(module._get_name(), f"type fnl-c-{family_of(type(module).__module__)}")


def _facts(module: Module) -> Any:
    """What two blocks have in common that are shown as one."""
    return [
        (
            path,
            type(m),
            hyper(m),
            m._training,
            [
                None if c is None else (name, c._shape, str(c.dtype), c.requires_grad, c.has_value)
                for home in (m._parameters, m._buffers)
                for name, c in home.items()
            ],
        )
        for path, m in module._walk()
    ]


def _repeated(children: Any, at: int) -> int:
    """How many children from one on are alike."""
    first, end = None, at + 1
    while end < len(children):
        other = children[end][1]
        if other is None or other is children[at][1] or type(other) is not type(children[at][1]):
            break
        first = first or _facts(children[at][1])
        # One line says as much as two; only what has an inside is worth folding.
        if _facts(other) != first or not (other._modules or other._parameters):
            break
        end += 1
    return end - at


# --- optimizers and histories -----------------------------------------------------------------


def _optimizer(optimizer: Any) -> str:
    groups = []
    for number, group in enumerate(optimizer.param_groups):
        cells = [cell for cell in group["params"] if cell.settled]
        total = sum(math.prod(cell.shape) for cell in cells)
        options = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(_short(group[name]))}</td></tr>"
            for name in group
            if name not in ("params", "param_names")
        )
        head = (
            _tag(f"group {number}", "name")
            + _tag(f"{len(group['params'])} tensors", "shape")
            + _tag(f"{count(total)} parameters", "sum")
        )
        opened = " open" * (number == 0)
        groups.append(
            f'<details class="fnl-module"{opened}><summary class="fnl-line">{head}</summary>'
            f'<div class="fnl-inside"><table>{options}</table></div></details>'
        )
    title = _tag(type(optimizer).__name__, "type fnl-c-other")
    return _wrapped(f'<div class="fnl-line">{title}</div>{"".join(groups)}')


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _history(history: Any) -> str:
    rows = history.epochs
    names = [n for n in history.names if all(not getattr(r.get(n), "shape", ()) for r in rows)]
    shown = rows if len(rows) <= 12 else [*rows[:6], None, *rows[-6:]]
    title = (
        _tag("History", "type fnl-c-other")
        + _tag(f"{len(rows)} epochs", "shape")
        + _tag(f"{history.step} steps", "sum")
    )
    body = ""
    if names:
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        lines = "".join(
            "<tr>"
            + "".join(
                "<td>…</td>" if row is None else f"<td>{escape(_cell_text(row.get(name)))}</td>"
                for name in names
            )
            + "</tr>"
            for row in shown
        )
        body = f'<table class="fnl-rows"><tr>{head}</tr>{lines}</table>'
    return _wrapped(f'<div class="fnl-line">{title}</div><div class="fnl-wide">{body}</div>')


def _cell_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{float(value):,.0f}" if 1e4 <= abs(float(value)) < 1e9 else f"{float(value):.4g}"
