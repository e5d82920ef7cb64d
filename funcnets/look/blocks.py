"""A graph as a block diagram: boxes in rows from left to right, skip connections below them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from funcnets.look.graph import Graph, Group, Node, shape_text
from funcnets.look.svg import Canvas
from funcnets.look.theme import fit, width_of

__all__ = ["draw_blocks"]

BOX, PILL, PAD, LANE, MARGIN = 58, 28, 12, 22, 26
HEAD = 25  # above a frame's boxes, for its title
STEP = 9  # between lines that go down beside the rows, from one to the next
LABELLED = 17  # between lines that go back between two rows, with their shapes


@dataclass(eq=False)
class Place:
    """Where a node is: its row, left edge, width and height."""

    node: Node
    name: str
    width: float
    height: float
    before: float  # free space on its left
    outer: list[Group] = field(default_factory=list)
    opens: int = 0  # frames that begin with it
    closes: int = 0  # frames that end with it
    row: int = 0
    x: float = 0.0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def _title(node: Node) -> str:
    return f"{node.times} × {node.title}" if node.times > 1 else node.title


def _size(node: Node, name: str) -> tuple[float, float]:
    if node.kind == "function":
        return max(PILL, width_of(node.title, 12) + 20), PILL
    if node.kind in ("input", "output"):
        return width_of(node.title, 12) + 18, PILL
    texts = [width_of(_title(node), 13, True), width_of(name, 11), width_of(node.detail, 11)]
    extra = 8 if node.times > 1 else 0
    return min(max(*texts, 54) + 20 + extra, 300), BOX if name and node.detail else BOX - 14


class Layout:
    """The rows of a diagram.

    Args:
        graph: what to draw.
        width: of a row, about.
    """

    def __init__(self, graph: Graph, width: float) -> None:
        self.graph, self.width = graph, width
        self.places: list[Place] = []
        self._collect(graph.top, [])
        self.at = {place.node: i for i, place in enumerate(self.places)}
        self.edges = sorted(
            ((self.at[a], self.at[b], shape_text(s)) for (a, b), s in graph.edges.items()),
            key=lambda e: (e[1] - e[0], e[0]),
        )
        self.labels = {(a, b): text for a, b, text in self.edges}
        self._gaps()
        # A module that is opened had better be seen in one row.
        spans = [self._span(g) for g in {id(g): g for p in self.places for g in p.outer}.values()]
        self.width = max([width, *(s for s in spans if s <= 1.4 * width)])
        self._rows()
        self._lanes()
        self._heights()

    def _collect(self, group: Group, outer: list[Group]) -> None:
        for item in group.items:
            if isinstance(item, Node):
                # Within a frame, the path from there.
                path = next((g.path + "." for g in reversed(outer) if g.path), "")
                name = item.name.removeprefix(path)
                self.places.append(Place(item, name, *_size(item, name), 0.0, outer))
                continue
            first = len(self.places)
            self._collect(item, [*outer, item])
            if len(self.places) > first:
                self.places[first].opens += 1
                self.places[-1].closes += 1

    def _gaps(self) -> None:
        for i, place in enumerate(self.places[1:], 1):
            text = self.labels.get((i - 1, i))
            frames = (place.opens + self.places[i - 1].closes) * PAD
            place.before = (24 if text is None else max(36, width_of(text, 11) + 22)) + frames
        # A frame with a long title has to be as wide as that.
        for group in {id(g): g for p in self.places for g in p.outer}.values():
            inside = [p for p in self.places if group in p.outer]
            room = sum(p.width for p in inside) + sum(p.before for p in inside[1:])
            need = min(width_of(frame_title(group), 11), 200) - room
            if need > 0:
                inside[0].width += need

    def _span(self, group: Group) -> float:
        inside = [p for p in self.places if group in p.outer]
        return (
            sum(p.width for p in inside)
            + sum(p.before for p in inside[1:])
            + 2 * PAD * (1 + len(inside[0].outer))
        )

    def crossing(self, i: int) -> int:
        """From how many boxes before box ``i`` lines go to it or beyond."""
        return len({a for a, b, _ in self.edges if a < i <= b})

    def broken(self, i: int) -> int:
        """How many frames go on over the gap before box ``i``."""
        before = self.places[i - 1].outer
        return sum(group in before for group in self.places[i].outer)

    def _rows(self) -> None:
        self.starts, start = [0], 0
        while True:
            used, end = 0.0, start
            while end < len(self.places):
                place = self.places[end]
                used += place.width + (place.before if end > start else place.opens * PAD)
                if used > self.width and end > start:
                    break
                end += 1
            if end == len(self.places):
                break
            # Between modules rather than within an opened one, and where few lines have to go along.
            options = range(start + max(1, (end - start) // 3), end + 1)
            start = min(
                options, key=lambda i: 2 * self.crossing(i) + 3 * self.broken(i) + 0.6 * (end - i)
            )
            self.starts.append(start)
        bounds = [*self.starts, len(self.places)]
        for row, (a, b) in enumerate(itertools.pairwise(bounds)):
            x = 0.0
            for i in range(a, b):
                place = self.places[i]
                x += place.opens * PAD if i == a else place.before
                place.row, place.x = row, x
                x += place.width
        self.right = max(p.x + p.width + p.closes * PAD for p in self.places)

    def _lanes(self) -> None:
        """Below each row, a height for every line that passes boxes."""
        self.lanes: dict[tuple[int, int, int], int] = {}
        self.depth = [0] * len(self.starts)
        taken: list[list[tuple[float, float, int]]] = [[] for _ in self.starts]
        for a, b, _ in self.edges:
            one, two = self.places[a], self.places[b]
            if b == a + 1:
                continue
            for row in range(one.row, two.row + 1):
                left = one.middle if row == one.row else -1e9
                right = two.middle if row == two.row else 1e9
                lane = 0
                while any(
                    n == lane and left < end and start < right for start, end, n in taken[row]
                ):
                    lane += 1
                taken[row].append((left, right, lane))
                self.lanes[a, b, row] = lane
                self.depth[row] = max(self.depth[row], lane + 1)

    def carried(self, row: int) -> list[tuple[int, int]]:
        """The lines that go from a row to the next, those past boxes first."""
        return sorted(
            ((a, b) for a, b, _ in self.edges if self.places[a].row <= row < self.places[b].row),
            key=lambda e: (e[1] == e[0] + 1, e[1] - e[0]),
        )

    def _heights(self) -> None:
        self.lines, y = [], 0.0
        for row in range(len(self.starts)):
            frames = max(
                (len(p.outer) for p in self.places if p.row == row),
                default=0,
            )
            y += HEAD * frames + (18 if frames == 0 else 6)
            self.lines.append(y + BOX / 2)
            y += BOX + self.depth[row] * LANE + 16 + frames * 10
            y += LABELLED * len(self.carried(row)) + STEP
        self.bottom = y

    def lane(self, a: int, b: int, row: int) -> float:
        """The height of a line below a row."""
        frames = max((len(p.outer) for p in self.places if p.row == row), default=0)
        return self.lines[row] + BOX / 2 + 18 + frames * 5 + self.lanes[a, b, row] * LANE

    def channel(self, a: int, b: int, row: int) -> tuple[float, float, float]:
        """Where a line goes from a row to the next: right side, height between, left side."""
        carried = self.carried(row)
        at, n = carried.index((a, b)), len(carried)
        low = self.lines[row] + BOX / 2 + self.depth[row] * LANE + 22
        low += 8 + 10 * max((len(p.outer) for p in self.places if p.row == row), default=0)
        low += LABELLED * at
        return self.right + 12 + STEP * at, low, -PAD - 8 - STEP * (n - 1 - at)


def frame_title(group: Group) -> str:
    """What is written on the frame of a group."""
    words = [f"{group.times} ×" if group.times > 1 else "", group.title, group.name]
    return " ".join(filter(None, words))


def draw_blocks(graph: Graph, width: float) -> Canvas:
    """The diagram.

    Args:
        graph: what to draw.
        width: of a row, about.
    """
    layout = Layout(graph, width)
    carried = max((len(layout.carried(r)) for r in range(len(layout.starts) - 1)), default=0)
    side = MARGIN + (STEP * carried + 14 if carried else 0)
    canvas = Canvas(layout.right + 2 * side, layout.bottom + 2 * MARGIN - 14, side, MARGIN - 8)
    _frames(layout, canvas)
    for a, b, text in layout.edges:
        _edge(layout, canvas, a, b, text)
    for place in layout.places:
        _box(layout, canvas, place)
    return canvas


def _frames(layout: Layout, canvas: Canvas) -> None:
    groups = {id(g): g for p in layout.places for g in p.outer}
    for group in groups.values():
        inside = [i for i, p in enumerate(layout.places) if group in p.outer]
        level = layout.places[inside[0]].outer.index(group)
        for row in sorted({layout.places[i].row for i in inside}):
            here = [i for i in inside if layout.places[i].row == row]
            first, last = layout.places[here[0]], layout.places[here[-1]]
            below = max(len(layout.places[i].outer) for i in here) - level
            left = first.x - PAD * (first.opens if here[0] == inside[0] else 1)
            left += PAD * _position(first, group) if here[0] == inside[0] else 0
            right = last.x + last.width + PAD * max(1, below)
            if here[-1] == inside[-1]:
                right = (
                    last.x
                    + last.width
                    + PAD * max(1, last.closes - _depth_of_end(layout, here[-1], group))
                )
            y = layout.lines[row]
            deep = [
                layout.lane(a, b, row)
                for a, b, _ in layout.edges
                if b > a + 1 and here[0] <= a and b <= here[-1]
            ]
            top = y - BOX / 2 - HEAD * below
            bottom = max([y + BOX / 2 + 2 + 5 * below, *(d + 3 + 3 * below for d in deep)])
            canvas.rect(left, top, right - left, bottom - top, "frame", radius=10)
            title = frame_title(group)
            if here[0] != inside[0]:
                title = f"… {title}"
            canvas.text(
                left + 9,
                top + 15,
                fit(title, 11, right - left - 14),
                "dim",
                size=11,
                anchor="start",
            )


def _position(place: Place, group: Group) -> int:
    """How many frames that begin here are around this one's."""
    fresh = place.outer[len(place.outer) - place.opens :]
    return fresh.index(group) if group in fresh else 0


def _depth_of_end(layout: Layout, index: int, group: Group) -> int:
    place = layout.places[index]
    fresh = place.outer[len(place.outer) - place.closes :]
    return fresh.index(group) if group in fresh else 0


def _edge(layout: Layout, canvas: Canvas, a: int, b: int, text: str) -> None:
    one, two = layout.places[a], layout.places[b]
    y, z = layout.lines[one.row], layout.lines[two.row]
    if one.row == two.row and b == a + 1:
        x = one.x + one.width
        canvas.path([(x, y), (two.x, y)], arrow=True)
        closing = one.closes * PAD
        middle = (x + closing + two.x - two.opens * PAD) / 2
        canvas.text(middle, y - 7, text, "dim", size=11)
        return
    direct = b == a + 1
    # Lines that leave or reach a box below it do so beside one another.
    out = into = 0.0
    if not direct:
        out = one.middle + _beside(layout, a, b, True)
        into = two.middle + _beside(layout, a, b, False)
    if direct:
        points = [(one.x + one.width, y)]
    else:
        points = [(out, y + one.height / 2), (out, layout.lane(a, b, one.row))]
    for row in range(one.row, two.row):
        right, low, left = layout.channel(a, b, row)
        next_ = z if direct else layout.lane(a, b, row + 1)
        points += [(right, points[-1][1]), (right, low), (left, low), (left, next_)]
    if direct:
        points.append((two.x, z))
        canvas.path(points, arrow=True)
        canvas.text((points[-3][0] + points[-4][0]) / 2, points[-3][1] - 5, text, "dim", size=11)
        return
    points += [(into, points[-1][1]), (into, z + two.height / 2)]
    canvas.path(points, arrow=True)
    flat = [(p, q) for p, q in itertools.pairwise(points) if p[1] == q[1]]
    p, q = max(flat, key=lambda pair: abs(pair[0][0] - pair[1][0]))
    if abs(p[0] - q[0]) > width_of(text, 11) + 30:
        canvas.text((p[0] + q[0]) / 2, p[1] - 4, text, "dim", size=11)


def _beside(layout: Layout, a: int, b: int, leaves: bool) -> float:
    place = layout.places[a if leaves else b]
    mine = [
        (x, y)
        for x, y, _ in layout.edges
        if y > x + 1 and (x == layout.at[place.node] or y == layout.at[place.node])
    ]
    # What comes from the left is on the left, so that lines do not cross.
    mine.sort(
        key=lambda e: (
            e[0] == layout.at[place.node],
            e[1] - e[0] if e[1] == layout.at[place.node] else e[0] - e[1],
        )
    )
    room = min(12.0, (place.width - 10) / max(1, len(mine)))
    return (mine.index((a, b)) - (len(mine) - 1) / 2) * room


def _box(layout: Layout, canvas: Canvas, place: Place) -> None:
    node, y = place.node, layout.lines[place.row]
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
        lines = [(_title(node), 13, True)]
        lines += [(text, 11, False) for text in (place.name, node.detail) if text]
        top = y - (len(lines) - 1) * 7.5 + 4
        for i, (text, size, bold) in enumerate(lines):
            shown = fit(text, size, wide - 14, bold)
            colour = "ink" if bold else "dim"
            canvas.text(x + wide / 2, top + i * 15, shown, colour, size=size, bold=bold)


def _tooltip(node: Node) -> str:
    head = " ".join(filter(None, (node.name, node.title)))
    return f"{head}({node.note})" if node.kind == "module" else head
