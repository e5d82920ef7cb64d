"""A graph as a block diagram: boxes in rows from left to right, skip connections below them."""

from __future__ import annotations

import itertools

from funcnets.look.graph import Graph, Group, Node
from funcnets.look.layout import BUS, HEAD, PAD, STEP, TURN, Layout
from funcnets.look.places import BOX, Edge, Fork, Place, box_title, frame_title
from funcnets.look.svg import Canvas
from funcnets.look.theme import fit, width_of

__all__ = ["draw_blocks"]

MARGIN = 26


def draw_blocks(graph: Graph, width: float) -> Canvas:
    """The diagram.

    Args:
        graph: what to draw.
        width: of a row, about.
    """
    layout = Layout(graph, width)
    carried = max(len(edges) for edges in layout.carried)
    side = MARGIN + (STEP * carried + 14 if carried else 0)
    canvas = Canvas(layout.right + 2 * side, 0, side, MARGIN - 8)
    routes = {edge: _past(layout, edge) for edge in layout.skips}
    for group in {id(g): g for p in layout.places for g in p.outer}.values():
        for row in range(len(layout.rows)):
            _frame(layout, canvas, group, row, routes)
    upright = [
        (p[0], min(p[1], q[1]), max(p[1], q[1]))
        for points in routes.values()
        for p, q in itertools.pairwise(points)
        if p[0] == q[0]
    ]
    for edge in layout.edges:
        if edge in routes:
            _skip(canvas, layout.labels[edge], routes[edge], upright)
        else:
            _direct(layout, canvas, edge)
    for place in layout.places:
        _box(canvas, place)
    canvas.trim(18)
    return canvas


def _frame(
    layout: Layout,
    canvas: Canvas,
    group: Group,
    row: int,
    routes: dict[Edge, list[tuple[float, float]]],
) -> None:
    """The part of a group's frame that is in a row, around its boxes and the lines between them."""
    inside = [p for p in layout.places if p.row == row and group in p.outer]
    if not inside:
        return
    begins, ends = layout.ends[id(group)]
    level = inside[0].outer.index(group)
    last = max(inside, key=lambda p: p.right)
    deep = {p: len(p.outer) - level for p in inside}
    within = {p: p.outer[level:] for p in inside}

    def side(place: Place, which: int, broken: bool) -> float:
        # The frames further in that begin or end here are between.
        there = sum(layout.ends[id(g)][which] == place.number for g in within[place][1:])
        turn = TURN if place.strip.turns else 0
        return PAD * (deep[place] if broken else 1 + there) + turn

    numbers = {p.number for p in inside}
    lines = [
        point
        for (a, b), points in routes.items()
        if a in numbers and b in numbers
        for point in points
    ]
    below = max(deep.values())
    left = min([p.x - side(p, 0, False) for p in inside] + [x - 8 for x, _ in lines])
    if begins not in numbers:  # it goes on from the row above
        left = min(left, PAD * level)
    right = max(
        [p.right + side(p, 1, p is last and ends not in numbers) for p in inside]
        + [x + 8 for x, _ in lines]
    )
    top = min(p.y - BOX / 2 - HEAD * deep[p] for p in inside)
    bottom = max(
        [p.y + BOX / 2 + 2 + 5 * deep[p] for p in inside] + [y + 3 + 3 * below for _, y in lines]
    )
    canvas.rect(left, top, right - left, bottom - top, "frame", radius=10)
    title = frame_title(group) if begins in numbers else f"… {frame_title(group)}"
    title = fit(title, 11, right - left - 14)
    canvas.text(left + 9, top + 15, title, "dim", size=11, anchor="start")


def _direct(layout: Layout, canvas: Canvas, edge: Edge) -> None:
    """A line to the next box, the next branch, or the box after branches."""
    one, two = (layout.places[i] for i in edge)
    text = layout.labels[edge]
    if one.row != two.row:
        points = [(one.right, one.y), (0.0, one.y)]
        for row in range(one.row, two.row):
            right, low, left = layout.channel(edge, row)
            points[-1:] = [(right, points[-1][1]), (right, low), (left, low), (left, two.y)]
        canvas.path([*points, (two.x, two.y)], arrow=True)
        canvas.text((points[-2][0] + points[-3][0]) / 2, points[-2][1] - 5, text, "dim", size=11)
        return
    if one.strip is two.strip and one.y != two.y:  # the lines of a branch
        right = max(p.right for line in one.strip.lines for p in line if isinstance(p, Place))
        right, left, low = right + TURN - 2, two.x - TURN, two.y - BOX / 2 - 10
        points = [(one.right, one.y), (right, one.y), (right, low), (left, low), (left, two.y)]
        canvas.path([*points, (two.x, two.y)], arrow=True)
        canvas.text((left + right) / 2, low - 5, text, "dim", size=11)
        return
    before, after = layout.around(edge)
    start = one.right + PAD * layout.closes(one)
    end = two.x - PAD * layout.opens(two)
    # A shape does not stand on the frame around branches.
    if before is not one and layout.closes(before):
        start = before.x + before.width + PAD * layout.closes(before)
    if after is not two and layout.opens(after):
        end = after.x - PAD * layout.opens(after)
    bend = start
    if isinstance(before, Fork):  # lines meet before the box that is next
        end = bend = after.x - PAD * layout.opens(after) - BUS
    elif isinstance(after, Fork):  # lines part behind the box
        start = bend = before.x + before.width + PAD * layout.closes(before) + BUS - 4
    points = [(one.right, one.y), (bend, one.y), (bend, two.y), (two.x, two.y)]
    canvas.path(points if one.y != two.y else [points[0], points[-1]], arrow=True)
    y = one.y if isinstance(before, Fork) else two.y
    canvas.text((start + end) / 2, y - 7, text, "dim", size=11)


def _past(layout: Layout, edge: Edge) -> list[tuple[float, float]]:
    """The way of a line that passes boxes: below them, and beside branches."""
    one, two = (layout.places[i] for i in edge)
    left, common, entered = layout.way(edge)
    # Lines that leave or reach a box below it do so beside one another.
    x, y = one.middle + _beside(layout, edge, one), one.y + one.height / 2
    points = [(x, y)]
    for strip in left:
        y = layout.lane(edge, strip, one.row)
        points += [(x, y), (x := layout.gutter(edge, strip.fork, True), y)]  # pyright: ignore[reportArgumentType]
    y = layout.lane(edge, common, one.row)
    points.append((x, y))
    for row in range(one.row, two.row):
        right, low, x = layout.channel(edge, row)
        points += [(right, y), (right, low), (x, low)]
        y = layout.lane(edge, common, row + 1)
        points.append((x, y))
    for strip in entered:
        x = layout.gutter(edge, strip.fork, False)  # pyright: ignore[reportArgumentType]
        points.append((x, y))
        y = layout.lane(edge, strip, two.row)
        points.append((x, y))
    x = two.middle + _beside(layout, edge, two)
    return [*points, (x, y), (x, two.y + two.height / 2)]


def _skip(
    canvas: Canvas,
    text: str,
    points: list[tuple[float, float]],
    upright: list[tuple[float, float, float]],
) -> None:
    canvas.path(points, arrow=True)
    flat = [(p, q) for p, q in itertools.pairwise(points) if p[1] == q[1]]
    p, q = max(flat, key=lambda pair: abs(pair[0][0] - pair[1][0]))
    wide, y = width_of(text, 11), p[1]
    if abs(p[0] - q[0]) <= wide + 30:
        return

    def crossed(x: float) -> int:
        return sum(abs(x - u) < wide / 2 + 3 and a < y - 2 and b > y - 13 for u, a, b in upright)

    # In the middle, or beside it where another line would cross it.
    left, right = min(p[0], q[0]) + wide / 2 + 10, max(p[0], q[0]) - wide / 2 - 10
    middle = (left + right) / 2
    canvas.text(min((middle, left, right), key=crossed), y - 4, text, "dim", size=11)


def _beside(layout: Layout, edge: Edge, place: Place) -> float:
    at = place.number
    mine = [e for e in layout.skips if at in e]
    # What comes from the left is on the left, so that lines do not cross.
    mine.sort(key=lambda e: (e[0] == at, e[1] - e[0] if e[1] == at else e[0] - e[1]))
    room = min(12.0, (place.width - 10) / max(1, len(mine)))
    return (mine.index(edge) - (len(mine) - 1) / 2) * room


def _box(canvas: Canvas, place: Place) -> None:
    node, y = place.node, place.y
    x, w, h = place.x, place.width, place.height
    with canvas.group(_tooltip(node)):
        if node.kind in ("input", "output"):
            canvas.rect(x, y - h / 2, w, h, "end", radius=h / 2)
            canvas.text(
                place.middle, y + 4, fit(node.title, 12, w - 10), "ink", size=12, italic=True
            )
            return
        if node.kind == "function":
            canvas.rect(x, y - h / 2, w, h, "pill", node.family, radius=h / 2)
            canvas.text(place.middle, y + 4, fit(node.title, 12, w - 8), "ink", size=12)
            return
        for shift in (8, 4) if node.times > 1 else ():
            canvas.rect(x + shift, y - h / 2 - shift, w - 8, h, "box", node.family, radius=8)
        wide = w - 8 if node.times > 1 else w
        canvas.rect(x, y - h / 2, wide, h, "box", node.family, radius=8)
        lines = [(box_title(node), 13, True)]
        lines += [(text, 11, False) for text in (place.name, node.detail) if text]
        top = y - (len(lines) - 1) * 7.5 + 4
        for i, (text, size, bold) in enumerate(lines):
            shown = fit(text, size, wide - 14, bold)
            colour = "ink" if bold else "dim"
            canvas.text(x + wide / 2, top + i * 15, shown, colour, size=size, bold=bold)


def _tooltip(node: Node) -> str:
    head = " ".join(filter(None, (node.name, node.title)))
    return f"{head}({node.note})" if node.kind == "module" else head
