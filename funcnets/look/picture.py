"""``draw``: a model as a picture, drawn as SVG."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import choice, describe, positive
from funcnets.core.lazy import unsettled_again
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, UnsupportedError
from funcnets.io.atomic import replacing
from funcnets.look.blocks import draw_blocks
from funcnets.look.calls import record
from funcnets.look.graph import graph_of, input_names
from funcnets.look.inputs import OTHER_DTYPES, as_inputs, module_of, shapes_are_floats
from funcnets.look.neurons import columns_of, draw_neurons
from funcnets.nn import Linear

__all__ = ["Picture", "draw"]


class Picture:
    """A picture as SVG, which notebooks show; :func:`draw` returns one.

    It follows the light or dark theme of the page that it is on, and contains nothing that has to be loaded.

    Args:
        svg: the text of an SVG document.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import look, nn
        >>> picture = look.draw(nn.Linear(3, 2))
        >>> picture.svg[:4], picture
        ('<svg', Picture(230 x 151))
    """

    def __init__(self, svg: str) -> None:
        #: The SVG document.
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        words = self.svg.split('"', 12)
        width, height = (words[words.index(f" {name}=") + 1] for name in ("width", "height"))
        return f"Picture({float(width):.0f} x {float(height):.0f})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the SVG document to a file; an old one is replaced as a whole.

        Args:
            path: a name that ends in ``.svg``.

        Raises:
            UnsupportedError: another kind of file is asked for.
        """
        path = os.fspath(path)
        kind = os.path.splitext(path)[1].lower()
        if kind != ".svg":
            raise UnsupportedError(
                f"a picture is saved as .svg, but got {path!r}: no library that funcnets uses turns SVG into "
                f"{kind or 'something else'}; save it as .svg and convert that with a browser, Inkscape or rsvg-convert"
            )
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="UTF-8"?>\n' + self.svg + "\n")


def draw(
    model: Module,
    *inputs: Any,
    depth: int | None = 1,
    style: str = "auto",
    functions: bool = True,
    neurons: int = 10,
    width: int = 700,
    kwargs: Mapping[str, Any] | None = None,
) -> Picture:
    """Draw a model: as columns of neurons if it is small and fully connected, else as boxes.

    The model is called abstractly, as ``fn.eval_shape`` does it: nothing is computed, and parameters that have no
    value get none. The boxes are the modules that this call calls, and the functions that it applies between them,
    from left to right in the order of the calls; the lines are the arrays, with their shapes. Branches that meet in
    one box stand above one another. Where an array skips boxes its line goes below them. What is repeated is drawn
    once, with its number. Rows, and branches that are wider than a row, go on in a further line, so that a picture can
    be read at its size in a notebook and on a page.

    Args:
        model: the module to draw.
        *inputs: its arguments: arrays, ``jax.ShapeDtypeStruct``, tuples of ints, which are shapes of float32
            arrays, or trees of these. They may be left out if the first layer is ``Linear``.
        depth: how many levels of modules are opened; 1 shows the children of the model as boxes. None opens all.
        style: ``"neurons"``, ``"blocks"``, or ``"auto"``: neurons where the model is a chain of at most 8 ``Linear``
            with activations between them.
        functions: whether boxes show the functions that are called between modules (``relu``, ``+``, ``reshape``).
        neurons: how many neurons a column has at most; a larger layer has dots in its middle.
        width: where rows of boxes end, about, in pixels; what had better stay in one row may be a quarter wider.
        kwargs: keyword arguments of the call.

    Returns:
        A :class:`Picture`, which a notebook shows and which ``picture.save("model.svg")`` saves.

    Raises:
        DTypeError: ``model`` is no Module.
        ArgumentError: an option cannot be; no inputs, and none that can be guessed; or ``style="neurons"`` of a
            model that is no chain of ``Linear``.

    Examples:
        >>> import funcnets as fn
        >>> from funcnets import look, nn
        >>> look.draw(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
        Picture(360 x 291)
        >>> picture = look.draw(nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU()), (8, 1, 28, 28))
        >>> "8×6×24×24" in picture.svg
        True
    """
    model = module_of(model, "draw")
    choice("style", style, ("auto", "neurons", "blocks"))
    if depth is not None:
        positive("depth", depth)
    positive("neurons", neurons, minimum=2)
    positive("width", width, minimum=200)
    given = dict(kwargs or {})
    if not inputs and not given:
        inputs = _guessed(model)
    examples, named = as_inputs(inputs, given)
    names = input_names(
        model,
        [len(_arrays(x)) for x in examples],
        {name: len(_arrays(x)) for name, x in named.items()},
    )
    title = f"{model._get_name()}: a picture of the model"
    with unsettled_again(model), shapes_are_floats(OTHER_DTYPES):
        recording = record(model, examples, named)
        if style != "blocks":
            columns = columns_of(graph_of(recording, model, None, True, names, folds=False))
            if columns is not None:
                return Picture(draw_neurons(columns, neurons).document(title))
            if style == "neurons":
                raise ArgumentError(
                    "style='neurons' draws a chain of at most 8 Linear with activations between them, which "
                    f"{describe(model)} is not: use style='blocks'"
                )
        graph = graph_of(recording, model, depth, functions, names)
        return Picture(draw_blocks(graph, float(width)).document(title))


def _arrays(tree: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(tree) if hasattr(x, "shape") and hasattr(x, "dtype")]


def _guessed(model: Module) -> tuple[Any, ...]:
    """An input, if the first layer says what it takes."""
    first = next((m for _, m in model._walk() if not m._modules), None)
    if isinstance(first, Linear):
        return (jax.ShapeDtypeStruct((1, first.in_features), jnp.float32),)
    raise ArgumentError(
        f"draw needs to know what {model._get_name()} is called with: pass arrays or shapes, for example "
        "fn.draw(model, (8, 3, 32, 32)) or fn.draw(model, jax.ShapeDtypeStruct((8, 10), jnp.int32))"
    )
