"""The classic picture of a fully connected network: columns of neurons, joined by lines."""

from __future__ import annotations

from dataclasses import dataclass

from funcnets.look.graph import Graph, Node
from funcnets.look.svg import Canvas
from funcnets.look.theme import fit, width_of
from funcnets.nn import Linear

__all__ = ["Column", "columns_of", "draw_neurons"]

#: What may stand between the layers without joining neurons with others.
_QUIET = ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "Flatten", "Identity", "dropout")
_SHAPING = ("reshape", "ravel", "squeeze", "flatten", "Flatten")
MOST = 8  # layers
RADIUS, PITCH = 9.0, 25.0


@dataclass
class Column:
    """A layer of neurons: how many, what it is called, and what is applied to it."""

    size: int
    name: str
    activations: list[str]


def columns_of(graph: Graph) -> list[Column] | None:
    """The layers, if the model is a chain of a few ``Linear`` with activations between; else None."""
    nodes = list(graph.top.nodes())
    follows = dict(graph.edges.keys())
    if len(follows) != len(graph.edges) or len({b for _, b in graph.edges}) != len(graph.edges):
        return None
    node: Node | None = nodes[0]
    if node.kind != "input" or sum(n.kind == "input" for n in nodes) != 1:
        return None
    columns, seen = [Column(0, node.title, [])], 1
    while (node := follows.get(node)) is not None:
        seen += 1
        if node.kind == "output":
            break
        if node.times > 1:
            return None
        if type(node.module) is Linear:
            columns[0].size = columns[0].size or node.module.in_features
            columns.append(Column(node.module.out_features, node.name or "output", []))
        elif node.title in _QUIET or (node.kind == "function" and node.title in _SHAPING):
            if node.title in _SHAPING and len(columns) > 1:
                return None
        elif node.family == "activation":
            columns[-1].activations.append(node.title)
        else:
            return None
    for number, column in enumerate(columns[1:], 1):
        if column.name.isdigit():  # the place in a Sequential says little
            column.name = "output" if number == len(columns) - 1 else f"hidden {number}"
    whole = node is not None and seen == len(nodes)
    return (
        columns if whole and 1 < len(columns) <= MOST + 1 and all(c.size for c in columns) else None
    )


def draw_neurons(columns: list[Column], most: int) -> Canvas:
    """The picture.

    Args:
        columns: the layers.
        most: neurons that a column shows; of a larger one the first and last, with dots between.
    """
    shown = [_shown(column.size, most) for column in columns]
    tall = (max(len(s) for s in shown) - 1) * PITCH + 2 * RADIUS
    room = [
        max(
            [
                width_of(fit(c.name, 12, 150, True), 12, True),
                *(width_of(fit(a, 11, 150), 11) for a in c.activations),
                60.0,
            ]
        )
        for c in columns
    ]
    xs, x = [], room[0] / 2
    for i, wide in enumerate(room):
        if i:
            x += max(130.0, (room[i - 1] + wide) / 2 + 18)
        xs.append(x)
    canvas = Canvas(xs[-1] + room[-1] / 2 + 40, 0, 20, 42)
    places = [[tall / 2 + (i - (len(s) - 1) / 2) * PITCH for i in range(len(s))] for s in shown]
    for i in range(len(columns) - 1):
        canvas.lines(
            [
                (xs[i] + RADIUS, y, xs[i + 1] - RADIUS, z)
                for y, kind in zip(places[i], shown[i], strict=True)
                if kind is not None
                for z, other in zip(places[i + 1], shown[i + 1], strict=True)
                if other is not None
            ]
        )
    for i, column in enumerate(columns):
        colour = "other" if i == 0 else "activation" if i == len(columns) - 1 else "linear"
        title = f"{column.name}: {column.size} " + ("inputs" if i == 0 else "neurons")
        with canvas.group(title):
            for y, kind in zip(places[i], shown[i], strict=True):
                if kind is not None:
                    canvas.circle(xs[i], y, RADIUS, colour)
                    continue
                for shift in (-6, 0, 6):
                    canvas.circle(xs[i], y + shift, 1.7, "dim", dot=True)
        canvas.text(xs[i], -16, fit(column.name, 12, 150, True), "ink", size=12, bold=True)
        bottom = tall + 22
        canvas.text(xs[i], bottom, f"{column.size:,}", "ink", size=12)
        for j, name in enumerate(column.activations, 1):
            canvas.text(xs[i], bottom + 15 * j, fit(name, 11, 150), "dim", size=11, italic=True)
    canvas.trim(16)
    return canvas


def _shown(size: int, most: int) -> list[int | None]:
    """The numbers of the neurons to draw, None for the dots."""
    if size <= most:
        return list(range(size))
    head = most // 2
    return [*range(head), None, *range(size - (most - head) + 1, size)]
