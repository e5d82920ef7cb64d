"""What a block diagram is laid out of: places for boxes, forks of branches, strips of both."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from funcnets.look.graph import Group, Node
from funcnets.look.theme import width_of

__all__ = [
    "BOX",
    "Edge",
    "Fork",
    "Place",
    "Strip",
    "box_title",
    "frame_title",
    "heads",
    "size_of",
    "tails",
]

BOX, PILL = 58, 28

Edge = tuple[int, int]


@dataclass(eq=False)
class Place:
    """Where a node is: its row, left edge, middle height, width and height."""

    node: Node
    name: str
    number: int
    width: float
    height: float
    outer: list[Group]
    row: int = 0
    x: float = 0.0
    y: float = 0.0
    before: float = 0.0  # free space on its left
    strip: Strip = field(init=False, repr=False)

    first = last = property(lambda self: self.number)

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(eq=False)
class Fork:
    """Branches above one another, with room on both sides for lines that end within them."""

    branches: list[Strip]
    outer: list[Group]
    strip: Strip = field(init=False, repr=False)
    width: float = 0.0
    x: float = 0.0
    before: float = 0.0
    entering: list[Edge] = field(default_factory=list)
    leaving: list[Edge] = field(default_factory=list)

    @property
    def first(self) -> int:
        return self.branches[0].items[0].first

    @property
    def last(self) -> int:
        return self.branches[-1].items[-1].last


@dataclass(eq=False)
class Strip:
    """Boxes and forks in one line: all of the diagram, or a branch."""

    items: list[Place | Fork]
    outer: list[Group]  # the frames that are around all of it
    fork: Fork | None = None
    lanes: dict[tuple[int, Edge], int] = field(default_factory=dict)
    depth: dict[int, int] = field(default_factory=dict)  # lanes below, by row
    turns: list[int] = field(default_factory=list)  # where a further line of a long branch begins

    @property
    def lines(self) -> list[list[Place | Fork]]:
        ends = [0, *self.turns, len(self.items)]
        return [self.items[a:b] for a, b in itertools.pairwise(ends)]


def size_of(node: Node, name: str) -> tuple[float, float]:
    """Width and height of a box."""
    if node.kind == "function":
        return max(PILL, width_of(node.title, 12) + 20), PILL
    if node.kind in ("input", "output"):
        return width_of(node.title, 12) + 18, PILL
    texts = [width_of(box_title(node), 13, True), width_of(name, 11), width_of(node.detail, 11)]
    extra = 8 if node.times > 1 else 0
    return min(max(*texts, 54) + 20 + extra, 300), BOX if name and node.detail else BOX - 14


def box_title(node: Node) -> str:
    """What is written in a module's box."""
    return f"{node.times} × {node.title}" if node.times > 1 else node.title


def frame_title(group: Group) -> str:
    """What is written on the frame of a group."""
    words = [f"{group.times} ×" if group.times > 1 else "", group.title, group.name]
    return " ".join(filter(None, words))


def tails(item: Place | Fork) -> list[int]:
    """The boxes that something ends with."""
    if isinstance(item, Place):
        return [item.number]
    return [i for branch in item.branches for i in tails(branch.items[-1])]


def heads(item: Place | Fork) -> list[int]:
    """The boxes that something begins with."""
    if isinstance(item, Place):
        return [item.number]
    return [i for branch in item.branches for i in heads(branch.items[0])]
