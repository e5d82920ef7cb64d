"""Where the boxes of a block diagram stand: in rows from left to right, branches of a row above one another."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from funcnets.look.graph import Graph, Group, Node, shape_text
from funcnets.look.places import BOX, Edge, Fork, Place, Strip, frame_title, heads, size_of, tails
from funcnets.look.theme import width_of

__all__ = ["BUS", "HEAD", "PAD", "STEP", "TURN", "Layout"]

PAD, LANE = 12, 22
HEAD = 25  # above a frame's boxes, for its title
STEP = 9  # between lines that go down beside boxes, from one to the next
LABELLED = 17  # between lines that go back between two rows, with their shapes
APART = 12  # between branches
TURN = 12  # beside a branch of several lines, for what goes from one to the next
DOWN = BOX + 30  # from one of its lines to the next
BUS = 14  # where lines part before branches, and meet after them


def _in_order(group: Group, edges: Any) -> None:
    """Put each box after those it gets from, one branch after the other where the calls alternate."""
    owner = {node: item for item in group.items for node in _nodes(item)}
    sources: dict[Any, dict[Any, None]] = {item: {} for item in map(id, group.items)}
    gives = set()
    number = {id(item): i for i, item in enumerate(group.items)}
    for a, b in edges:
        if a in owner and b in owner and owner[a] is not owner[b]:
            sources[id(owner[b])][id(owner[a])] = None
            gives.add(id(owner[a]))
    done: dict[int, None] = {}
    for end in [i for i in number if i not in gives]:
        stack = [end]
        while stack:
            missing = [i for i in sources[stack[-1]] if i not in done]
            if missing:
                stack.append(min(missing, key=number.__getitem__))
            else:
                done[stack.pop()] = None
    group.items = [group.items[number[i]] for i in done]
    for item in group.items:
        if isinstance(item, Group):
            _in_order(item, edges)


def _nodes(item: Node | Group) -> list[Node]:
    return [item] if isinstance(item, Node) else list(item.nodes())


class Layout:
    """The rows of a diagram.

    Args:
        graph: what to draw.
        width: of a row, about.
    """

    def __init__(self, graph: Graph, width: float) -> None:
        _in_order(graph.top, graph.edges)
        self.places: list[Place] = []
        self._collect(graph.top, [])
        at = {place.node: i for i, place in enumerate(self.places)}
        self.labels = {(at[a], at[b]): shape_text(s) for (a, b), s in graph.edges.items()}
        self.edges = sorted(self.labels, key=lambda e: (e[1] - e[0], e[0]))
        self.follow: list[list[int]] = [[] for _ in self.places]
        for a, b in self.edges:
            self.follow[a].append(b)
        self.ends: dict[int, tuple[int, int]] = {}
        for i, place in enumerate(self.places):
            for group in place.outer:
                self.ends[id(group)] = self.ends.get(id(group), (i, i))[0], i
        self.asked, self.widest = width, 1.6 * width
        self.top = self._strip(0, len(self.places), [])
        self.skips = [edge for edge in self.edges if not self.direct(edge)]
        for strip in self._strips(self.top):
            for item in strip.items:
                item.strip = strip
        self._gutters()
        self._measure(self.top)
        # A module that is opened, and branches, had better be seen in one row.
        forks = [self._whole(item) for item in self.top.items if isinstance(item, Fork)]
        frames = {id(g): g for item in self.top.items for g in item.outer}
        spans = [s for s in map(self._span, frames.values()) if s <= 1.25 * width]
        self.width = max([width, *forks, *spans])
        everything = self._measured(self.top)
        if everything <= 1.15 * self.width:  # rather than a row with an output alone
            self.width = everything + 1
        self._rows()
        self._lanes()
        self._heights()

    def _collect(self, group: Group, outer: list[Group]) -> None:
        for item in group.items:
            if isinstance(item, Group):
                self._collect(item, [*outer, item])
                continue
            # Within a frame, the path from there.
            path = next((g.path + "." for g in reversed(outer) if g.path), "")
            name = item.name.removeprefix(path)
            size = size_of(item, name)
            self.places.append(Place(item, name, len(self.places), *size, outer))

    # --- branches ---

    def _strip(self, lo: int, hi: int, outer: list[Group]) -> Strip:
        """A part of the boxes as one line, with branches where lines part and meet."""
        items: list[Place | Fork] = []
        end = hi
        while end > lo:
            fork = self._fork(end, lo) if end < hi else None
            if fork is not None:
                items.append(fork)
                end = fork.first
            end -= 1
            if end >= lo:
                items.append(self.places[end])
        strip = Strip(items[::-1], outer)
        for item in items:
            item.strip = strip
            if isinstance(item, Fork):
                for branch in item.branches:
                    branch.fork = item
        return strip

    def _fork(self, join: int, lo: int) -> Fork | None:
        """The branches that end before a box and meet in it."""
        found = self._branches(join, lo)
        while len(found) > 1:
            common = self._around(found[0][0], join - 1)
            whole = all(
                g in common or (self.ends[id(g)][0] >= a and self.ends[id(g)][1] <= b)
                for a, b in found
                for i in range(a, b + 1)
                for g in self.places[i].outer
            )
            if whole:
                fork = Fork([self._strip(a, b + 1, common) for a, b in found], common)
                self._measure(Strip([fork], common))
                self._break_long(fork)
                if self._whole(fork) <= self.widest:
                    return fork
            # What comes before the branches may have been taken for the beginning of the first one.
            (a, b), longest = found[0], max(y - x for x, y in found[1:])
            if b - a <= longest:
                return None
            found = [(b - longest, b), *found[1:]]
        return None

    def _whole(self, fork: Fork) -> float:
        """The width of a fork with the boxes where it begins and ends, about."""
        one, two = max(fork.first - 1, 0), fork.last + 1
        ends = self.places[one].width + self.places[two].width
        into = self._need((one, i) for i in heads(fork))
        out = self._need((i, two) for i in tails(fork))
        return fork.width + ends + into + out + 2 * (BUS + PAD)

    def _break_long(self, fork: Fork) -> None:
        """Give branches that are wider than a row several lines, where nothing but one line goes along them."""
        room = fork.width + 1.1 * self.asked - self._whole(fork)
        if fork.width <= room + 0.15 * self.asked:
            return
        for strip in fork.branches:
            lo, hi = strip.items[0].first, strip.items[-1].last
            chain = all(
                isinstance(item, Place) and item.outer == strip.outer for item in strip.items
            )
            ends = (fork.first - 1, lo), (hi, fork.last + 1)
            within = range(lo, hi + 1)
            alone = all(
                (a, b) in ends or (a in within and b == a + 1 <= hi)
                for a, b in self.edges
                if a in within or b in within
            )
            if chain and alone and self._measured(strip) > room:
                self._break(strip, room)
        fork.width = max(map(self._measured, fork.branches))

    def _break(self, strip: Strip, room: float) -> None:
        """As few lines as have room, of about the same width."""
        items = strip.items

        def turns(width: float) -> list[int]:
            found, used = [], 0.0
            for i, item in enumerate(items):
                used += item.width + (item.before if used else 0.0)
                if used > width and i:
                    found.append(i)
                    used = item.width
            return found

        number = len(turns(room - 2 * TURN))
        width = room - 2 * TURN
        while len(turns(width - 10)) == number and width > 100:
            width -= 10
        strip.turns = turns(width)

    def _branches(self, join: int, lo: int) -> list[tuple[int, int]]:
        """The chains of boxes before a box, each of which gives to it, and none to another one."""
        found: list[tuple[int, int]] = []
        first = last = join - 1
        while True:
            gives = self.follow[first - 1] if first > lo else []
            parts = any(last < b < join for b in gives)  # where the branches begin
            if first > lo and not parts and any(first <= b <= last for b in gives):
                first -= 1
                continue
            if not any(join in self.follow[i] for i in range(first, last + 1)):
                return found[::-1]
            found.append((first, last))
            if first == lo or parts:
                return found[::-1]
            first = last = first - 1

    def _around(self, first: int, last: int) -> list[Group]:
        """The frames that are around a range of boxes."""
        return [
            g
            for g in self.places[first].outer
            if self.ends[id(g)][0] <= first
            and last <= self.ends[id(g)][1]
            and (self.ends[id(g)] != (first, last) or first != last)
        ]

    def _strips(self, strip: Strip) -> Iterator[Strip]:
        yield strip
        for item in strip.items:
            for branch in item.branches if isinstance(item, Fork) else ():
                yield from self._strips(branch)

    def way(self, edge: Edge) -> tuple[list[Strip], Strip, list[Strip]]:
        """The strips that a line leaves, the one that both its ends are in, and those that it enters."""
        one, two = (list(self._up(self.places[i].strip)) for i in edge)
        common = next(strip for strip in one if strip in two)
        return one[: one.index(common)], common, two[: two.index(common)][::-1]

    @staticmethod
    def _up(strip: Strip) -> Iterator[Strip]:
        yield strip
        while strip.fork is not None:
            strip = strip.fork.strip
            yield strip

    def around(self, edge: Edge) -> tuple[Place | Fork, Place | Fork]:
        """What the two ends of a line are, or are in, in the strip that has both."""
        left, _, entered = self.way(edge)
        one, two = self.places[edge[0]], self.places[edge[1]]
        return (left[-1].fork or one) if left else one, (entered[0].fork or two) if entered else two

    def direct(self, edge: Edge) -> bool:
        """Whether a line goes from a box, or the end of a branch, to the next box or beginning of one."""
        one, two = self.around(edge)
        items = self.way(edge)[1].items
        place = items.index(one)
        return items[place + 1] is two and edge[0] in tails(one) and edge[1] in heads(two)

    def _gutters(self) -> None:
        for edge in self.skips:
            left, _, entered = self.way(edge)
            for strip in left:
                strip.fork.leaving.append(edge)  # pyright: ignore[reportOptionalMemberAccess]
            for strip in entered:
                strip.fork.entering.append(edge)  # pyright: ignore[reportOptionalMemberAccess]

    # --- from left to right ---

    def opens(self, item: Place | Fork) -> int:
        """How many frames begin with it."""
        inner = item.outer[len(item.strip.outer) :]
        return sum(self.ends[id(g)][0] == item.first for g in inner)

    def closes(self, item: Place | Fork) -> int:
        """How many frames end with it."""
        inner = item.outer[len(item.strip.outer) :]
        return sum(self.ends[id(g)][1] == item.last for g in inner)

    def _measure(self, strip: Strip) -> float:
        """The widths of forks, and the free space before everything; gives the width of it all."""
        for item in strip.items:
            item.strip = strip
            if isinstance(item, Fork):
                sides = STEP * (len(item.entering) + len(item.leaving))
                item.width = max(map(self._measure, item.branches)) + sides
        for one, two in itertools.pairwise(strip.items):
            pairs = itertools.product(tails(one), heads(two))
            buses = isinstance(one, Fork) + isinstance(two, Fork)
            borders = self.closes(one) + self.opens(two)
            two.before = self._need(pairs) + BUS * buses + PAD * borders
        # A frame with a long title has to be as wide as that.
        for group in {id(g): g for i in strip.items for g in i.outer[len(strip.outer) :]}.values():
            inside = [item for item in strip.items if group in item.outer]
            room = sum(i.width for i in inside) + sum(i.before for i in inside[1:])
            inside[0].width += max(0.0, min(width_of(frame_title(group), 11), 200) - room)
        return self._measured(strip)

    def _need(self, pairs: Iterable[Edge]) -> float:
        """The room for the shapes on lines."""
        texts = [self.labels[pair] for pair in pairs if pair in self.labels]
        return max((max(36, width_of(text, 11) + 22) for text in texts), default=24)

    def _span(self, group: Group) -> float:
        inside = [item for item in self.top.items if group in item.outer]
        return (
            sum(i.width for i in inside)
            + sum(i.before for i in inside[1:])
            + 2 * PAD * (1 + len(inside[0].outer))
        )

    def _rows(self) -> None:
        items = self.top.items

        @functools.cache
        def cost(i: int) -> float:
            """Of a new row: lines that have to go along, and frames that are broken."""
            crossing = sum(a < items[i].first <= b for a, b in self.edges)
            broken = sum(group in items[i - 1].outer for group in items[i].outer)
            return 2 * crossing + 5 * broken

        # The cheapest way to break what comes before each item: its cost, and where the last row begins.
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(items) + 1):
            options, used, i = [], 0.0, end - 1
            while i >= 0:
                used += items[i].width + (items[i + 1].before if i + 1 < end else 0.0)
                wide = used + len(items[i].outer) * PAD
                if wide > self.width and i < end - 1:
                    break
                # Few rows, and none that is nearly empty.
                empty = max(0.0, 1 - wide / self.width)
                options.append((best[i][0] + (cost(i) if i else 0.0) + 8 + 4 * empty**2, i))
                i -= 1
            best.append(min(options))
        starts = [best[-1][1]]
        while starts[0]:
            starts.insert(0, best[starts[0]][1])
        self.rows = [items[a:b] for a, b in itertools.pairwise([*starts, len(items)])]
        for row, line in enumerate(self.rows):
            # Frames that go on from the row above begin again.
            self._across(line, PAD * (len(line[0].outer) - self.opens(line[0])), row)
        self.right = max(
            line[-1].x + line[-1].width + PAD * len(line[-1].outer) for line in self.rows
        )

    def _across(self, items: Sequence[Place | Fork], x: float, row: int) -> None:
        """Give what stands in a line its place from left to right."""
        for number, item in enumerate(items):
            item.x = x = x + (item.before if number else self.opens(item) * PAD)
            x += item.width
            if isinstance(item, Place):
                item.row = row
                continue
            room = item.width - STEP * (len(item.entering) + len(item.leaving))
            for branch in item.branches:
                spare = room - self._measured(branch)
                free = any(b == branch.items[0].first for _, b in self.edges)
                shift = spare / 2 if free else spare  # inputs stand before what uses them
                start = item.x + STEP * len(item.entering) + shift + TURN * bool(branch.turns)
                for line in branch.lines:
                    self._across(line, start, row)

    def _measured(self, strip: Strip) -> float:
        if strip.turns:
            lines = [sum(i.width + i.before for i in li) - li[0].before for li in strip.lines]
            return max(lines) + 2 * TURN
        items = strip.items
        ends = (self.opens(items[0]) + self.closes(items[-1])) * PAD
        return sum(i.width for i in items) + sum(i.before for i in items[1:]) + ends

    def gutter(self, edge: Edge, fork: Fork, leaves: bool) -> float:
        """Where a line goes up or down beside the branches."""
        if leaves:
            return fork.x + fork.width - STEP * (len(fork.leaving) - fork.leaving.index(edge)) + 3
        return fork.x + STEP * fork.entering.index(edge) - 3

    # --- lines below boxes ---

    def _lanes(self) -> None:
        """Below each line of boxes, a height for every connection that passes boxes."""
        taken: dict[Any, list[tuple[float, float, int]]] = {}
        for edge in self.skips:
            for strip, row, left, right in self._runs(edge):
                left, right = min(left, right), max(left, right)
                there = taken.setdefault((strip.items[0].first, row), [])
                lane = 0
                while any(n == lane and left < end and start < right for start, end, n in there):
                    lane += 1
                there.append((left, right, lane))
                strip.lanes[row, edge] = lane
                strip.depth[row] = max(strip.depth.get(row, 0), lane + 1)

    def _runs(self, edge: Edge) -> Iterator[tuple[Strip, int, float, float]]:
        """The parts of a line that go along below boxes: strip, row, and from where to where."""
        one, two = self.places[edge[0]], self.places[edge[1]]
        left, common, entered = self.way(edge)
        x = one.middle
        for strip in left:
            yield strip, one.row, x, (x := self.gutter(edge, strip.fork, True))  # pyright: ignore[reportArgumentType]
        ends = [self.gutter(edge, s.fork, False) for s in entered]  # pyright: ignore[reportArgumentType]
        ends.append(two.middle)
        for row in range(one.row, two.row + 1):
            begin = x if row == one.row else -1e9
            yield common, row, begin, ends[0] if row == two.row else 1e9
        for strip, begin, end in zip(entered, ends, ends[1:], strict=False):
            yield strip, two.row, begin, end

    def lane(self, edge: Edge, strip: Strip, row: int) -> float:
        """The height of a line below boxes."""
        line, down = self.levels[id(strip), row]
        return line + down + 18 + strip.lanes[row, edge] * LANE

    @functools.cached_property
    def carried(self) -> list[list[Edge]]:
        """For each row the lines that go on to the next, those past boxes first."""
        skips = set(self.skips)
        return [
            sorted(
                (e for e in self.edges if self.places[e[0]].row <= row < self.places[e[1]].row),
                key=lambda e: (e not in skips, e[1] - e[0]),
            )
            for row in range(len(self.rows))
        ]

    def channel(self, edge: Edge, row: int) -> tuple[float, float, float]:
        """Where a line goes from a row to the next: right side, height between, left side."""
        at, n = self.carried[row].index(edge), len(self.carried[row])
        line, down = self.levels[id(self.top), row]
        low = line + down + self.top.depth.get(row, 0) * LANE + 30 + LABELLED * at
        low += 5 * max(len(item.outer) for item in self.rows[row])
        return self.right + 12 + STEP * at, low, -PAD - 8 - STEP * (n - 1 - at)

    # --- from top to bottom ---

    def _heights(self) -> None:
        #: By strip and row: the height of its boxes' middle, and how far they and their frames reach below it.
        self.levels: dict[tuple[int, int], tuple[float, float]] = {}
        y = 0.0
        for row, items in enumerate(self.rows):
            frames = max(len(item.outer) for item in items)
            up, down = self._extent(items, 0, row)
            y += up + (18 if frames == 0 and row else 6 if row else 0)
            self._down(items, self.top, y, row)
            y += down + self.top.depth.get(row, 0) * LANE + 16 + frames * 5
            y += LABELLED * len(self.carried[row]) + STEP

    def _extent(self, items: Sequence[Place | Fork], level: int, row: int) -> tuple[float, float]:
        """How far a line of boxes reaches up and down."""
        half = [
            BOX / 2 if isinstance(i, Place) else sum(self._room(b, row) for b in i.branches) / 2
            for i in items
        ]
        up = max(h + HEAD * (len(i.outer) - level) for h, i in zip(half, items, strict=True))
        down = max(h + 5 * (len(i.outer) - level) for h, i in zip(half, items, strict=True))
        return up, down

    def _room(self, branch: Strip, row: int) -> float:
        lanes = branch.depth.get(row, 0)
        below = 18 + LANE * lanes - 8 if lanes else 0
        lines = DOWN * len(branch.turns)
        return sum(self._extent(branch.items, len(branch.outer), row)) + lines + below + APART

    def _down(self, items: Sequence[Place | Fork], strip: Strip, y: float, row: int) -> None:
        """Give what stands in a line its height."""
        self.levels[id(strip), row] = y, self._extent(items, len(strip.outer), row)[1]
        for item in items:
            if isinstance(item, Place):
                item.y = y
                continue
            top = y - sum(self._room(b, row) for b in item.branches) / 2 + APART / 2
            for branch in item.branches:
                up, _ = self._extent(branch.items, len(branch.outer), row)
                for number, line in enumerate(branch.lines):
                    self._down(line, branch, top + up + DOWN * number, row)
                top += self._room(branch, row)
