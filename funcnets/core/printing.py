"""Text: modules and cells as PyTorch prints them, and where an exception came from.

The layout of arrays follows torch's rules: 4 digits, 80 columns, 3 items at either edge above 1,000
elements, and one width for all elements.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from funcnets._args import describe
from funcnets.core import frame as frames
from funcnets.core.idioms import note_idiom

__all__ = [
    "CellText",
    "ModuleText",
    "array_text",
    "cell_text",
    "describe_call",
    "indent",
    "rich_text",
]

PRECISION, THRESHOLD, EDGE, WIDTH = 4, 1000, 3, 80


def indent(text: str, spaces: int = 2) -> str:
    """``text`` with every line but the first indented; blank lines stay empty."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line if line.strip() else "" for line in rest)])


def rich_text(thing: Any) -> str | None:
    """The view that notebooks show of ``thing``, which is made by ``funcnets.look``; None if there is none.

    It is found by name: what draws a module stands above what a module is. A notebook shows the plain text when it
    gets None, and so it does if drawing fails.
    """
    try:
        with frames.outside():
            return importlib.import_module("funcnets.look.page").html_of(thing)
    except Exception:  # showing something must never stop what it is shown in
        return None


class ModuleText:
    """The part of ``Module`` that prints."""

    _modules: dict[str, Any]

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """The hyper-parameters as shown between the parentheses; override it in a layer."""
        return ""

    def _repr_html_(self) -> str | None:
        return rich_text(self)

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): {indent(repr(child))}" for name, child in self._modules.items()]
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({lines[0]})"
        if not lines and not children:
            return f"{self._get_name()}()"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines + children) + "\n)"


# --- arrays -----------------------------------------------------------------------------------


class _Format:
    """One width and one notation for all elements of an array."""

    def __init__(self, values: np.ndarray) -> None:
        self.floating = values.dtype.kind == "f"
        self.whole, self.scientific, self.width = True, False, 1
        if not self.floating:
            self.width = max([1, *(len(str(v)) for v in values.ravel().tolist())])
            return
        numbers = values[np.isfinite(values) & (values != 0)].astype(np.float64)
        if numbers.size == 0:
            return
        sizes = np.abs(numbers)
        small, large = sizes.min(), sizes.max()
        self.whole = bool((numbers == np.ceil(numbers)).all())
        self.scientific = bool(large / small > 1000.0 or large > 1.0e8 or small < 1.0e-4)
        self.width = max(len(self._number(v)) for v in numbers.tolist())

    def _number(self, value: float) -> str:
        if self.scientific:
            return f"{value:.{PRECISION}e}"
        if self.whole:
            return f"{value:.0f}" + ("" if math.isinf(value) or math.isnan(value) else ".")
        return f"{value:.{PRECISION}f}"

    def __call__(self, value: Any) -> str:
        return (self._number(value) if self.floating else str(value)).rjust(self.width)


class _ComplexFormat:
    def __init__(self, values: np.ndarray) -> None:
        self.real, self.imag = _Format(np.real(values)), _Format(np.imag(values))
        self.width = self.real.width + self.imag.width + 1

    def __call__(self, value: Any) -> str:
        imag = (self.imag(value.imag) + "j").lstrip()
        return self.real(value.real) + ("" if imag[0] in "+-" else "+") + imag


def _edges(values: np.ndarray) -> np.ndarray:
    """The corner elements that a summarised array shows."""
    for axis, size in enumerate(values.shape):
        if size > 2 * EDGE:
            keep = np.r_[:EDGE, size - EDGE : size]
            values = np.take(values, keep, axis)
    return values


def _rows(values: np.ndarray, spaces: int, summary: bool, element: Any) -> str:
    if values.ndim == 0:
        return element(values.item())
    elided = summary and values.shape[0] > 2 * EDGE
    ends = (list(values[:EDGE]), list(values[-EDGE:])) if elided else (list(values), [])
    if values.ndim == 1:
        head, tail = ([element(v.item()) for v in end] for end in ends)
        items = [*head, " ...", *tail] if elided else head
        per_line = max(1, (WIDTH - spaces) // (element.width + 2))
        lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
        return "[" + (",\n" + " " * (spaces + 1)).join(lines) + "]"
    head, tail = ([_rows(v, spaces + 1, summary, element) for v in end] for end in ends)
    rows = [*head, "...", *tail] if elided else head
    return "[" + ("," + "\n" * (values.ndim - 1) + " " * (spaces + 1)).join(rows) + "]"


def array_text(value: Any, prefix: str = "tensor(", suffixes: tuple[str, ...] = ()) -> str:
    """An array as ``torch.Tensor`` prints it.

    Args:
        value: anything NumPy can read.
        prefix: what stands before the brackets.
        suffixes: what follows them, such as ``requires_grad=True``.

    Returns:
        The text; dtypes other than float32, complex64, int64 and bool are named after torch's.
    """
    dtype = jnp.dtype(value.dtype)
    array = np.asarray(value)
    extra = []
    if array.size == 0:
        body = "[]"
        extra += [f"size={_size(array.shape)}"] if array.ndim != 1 else []
        extra += [] if dtype == jnp.float32 else [f"dtype=torch.{dtype.name}"]
    else:
        if dtype.kind == "V" or dtype.name == "bfloat16":
            array = array.astype(np.float32)
        if dtype.name not in ("float32", "complex64", "int64", "bool"):
            extra.append(f"dtype=torch.{dtype.name}")
        summary = array.size > THRESHOLD
        sample = _edges(array) if summary else array
        element = _ComplexFormat(sample) if dtype.kind == "c" else _Format(sample)
        body = _rows(array, len(prefix), summary, element)
    text = prefix + body
    column = len(text) - text.rfind("\n") + 1
    for suffix in (*extra, *suffixes):
        if column + len(suffix) + 2 > WIDTH:
            text += ",\n" + " " * len(prefix) + suffix
            column = len(prefix) + len(suffix)
        else:
            text += ", " + suffix
            column += len(suffix) + 2
    return text + ")"


def _size(shape: tuple[int, ...]) -> str:
    return str(tuple(shape))


def cell_text(cell: Any) -> str:
    """A Parameter or Buffer as torch prints it; its value is drawn if it has none yet."""
    value = cell.data
    parameter = hasattr(cell, "requires_grad_")
    head = "Parameter containing:\n" if parameter else ""
    if isinstance(value, Tracer):
        return f"{head}tensor(..., size={_size(cell.shape)}, dtype={cell.dtype})"
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):  # torch has no such thing
        return head + repr(value)
    return head + array_text(value, suffixes=("requires_grad=True",) if cell.requires_grad else ())


class CellText:
    """The part of ``Cell`` that prints."""

    __slots__ = ()

    def __repr__(self) -> str:
        return cell_text(self)

    def _repr_html_(self) -> str | None:
        return rich_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        # Notebooks ask for text and HTML. Showing a cell that has no value yet must not be what draws one.
        html = self._repr_html_()
        return {"text/plain": _notice(self)} | ({} if html is None else {"text/html": html})


def _notice(cell: Any) -> str:
    """The text of a cell, or that it has no value yet."""
    try:
        if cell.has_value:
            return cell_text(cell)
        shape = _size(cell.shape) if cell.settled else "not known yet"
        return f"{type(cell).__name__}(shape={shape}, dtype={cell.dtype}), not drawn yet"
    except Exception:  # of a value whose memory was given away, say
        return object.__repr__(cell)


# --- where an exception came from -------------------------------------------------------------


def describe_call(error: BaseException, module: Any, frame: Any, args: Any, kwargs: Any) -> None:
    """Note, once, which module an exception passed through first, and what it had been given."""
    if getattr(error, "_funcnets_noted", False):
        return
    try:
        root, path = next(
            ((t, p) for t in reversed(frame.trees) for p, m in t._walk() if m is module),
            (module, ""),
        )
        with frames.outside():  # where a lazy layer prints, too
            first, *rest = repr(module).split("\n")
        line = first + ("...)" if rest else "")
        where = f"'{path}' of {root._get_name()}" if path else f"{root._get_name()} itself"
        given = ", ".join(
            [*map(describe, args), *(f"{k}={describe(v)}" for k, v in kwargs.items())]
        )
        error.add_note(
            f"In module {where}: {line}\nwhich was called with: {given or 'no arguments'}"
        )
        error._funcnets_noted = True  # pyright: ignore[reportAttributeAccessIssue]
        note_idiom(error)
    except Exception:  # an exception's text must never hide the exception
        return
