"""A recording as a graph: boxes for modules and functions down to some depth, and the arrays that go between them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp

from funcnets.core.module import Module
from funcnets.look.calls import SILENT, Call, Recording
from funcnets.look.theme import family_of
from funcnets.nn import Stack

__all__ = ["Graph", "Group", "Node", "count", "graph_of", "hyper", "shape_text"]


@dataclass(eq=False)
class Node:
    """A box: a module, a function that is called between modules, an input or the output."""

    kind: str
    title: str
    name: str = ""
    detail: str = ""
    note: str = ""
    family: str = "other"
    module: Module | None = None
    times: int = 1
    place: Any = None


@dataclass(eq=False)
class Group:
    """A module whose inside is shown, or some boxes that are repeated."""

    title: str
    name: str
    items: list[Node | Group] = field(default_factory=list)
    times: int = 1
    module: Module | None = None
    path: str = ""

    def nodes(self) -> Iterator[Node]:
        """All boxes within, in order."""
        for item in self.items:
            if isinstance(item, Node):
                yield item
            else:
                yield from item.nodes()


@dataclass
class Graph:
    """Boxes in the order of the calls, and for each pair of them the shapes that go from one to the other."""

    top: Group
    edges: dict[tuple[Node, Node], list[Any]]


def shape_text(shapes: list[Any]) -> str:
    """``8×3×32×32``, with the dtype if it is not float32; of several the first, and how many more."""
    first = shapes[0]
    text = "×".join(map(str, first.shape)) or "number"
    if jnp.issubdtype(first.dtype, jnp.integer) or first.dtype in (jnp.bfloat16, jnp.float16):
        text += f" {first.dtype}"
    others = len({(s.shape, str(s.dtype)) for s in shapes}) - 1
    return text + (f" +{others}" if others else "")


def count(number: int) -> str:
    """1,234 as such, larger numbers as 1.23M."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:,}"


def hyper(module: Module) -> str:
    """What a module says of itself between its parentheses; never an exception."""
    try:
        return str(module.extra_repr())
    except Exception:  # of a class that is being written just now, say
        return ""


def _brief(module: Module) -> str:
    """The hyper-parameters in a few characters."""
    known = vars(module)
    try:
        if "in_channels" in known and "kernel_size" in known:
            kernel = "×".join(map(str, known["kernel_size"]))
            stride = known.get("stride", (1,))
            step = f" /{stride[0]}" if set(stride) != {1} else ""
            return f"{known['in_channels']} → {known['out_channels']}, {kernel}{step}"
        if "in_features" in known and "out_features" in known:
            return f"{known['in_features']} → {known['out_features']}"
        if "num_embeddings" in known:
            return f"{known['num_embeddings']} → {known['embedding_dim']}"
        if "input_size" in known and "hidden_size" in known:
            return f"{known['input_size']} → {known['hidden_size']}"
    except Exception:  # somebody's own class, with other things of these names
        return ""
    cells = {id(c): c for _, c in module._cells(("_parameters",), rows=True)}
    if module._modules and cells and all(c.settled for c in cells.values()):
        return f"{count(sum(c.numel() for c in cells.values()))} parameters"
    return ""


def _module_node(call: Call) -> Node:
    module = call.module
    blocks = list(module) if isinstance(module, Stack) else []
    if blocks:
        return _blocks_node(blocks[0], len(blocks), f"{call.path}.0".lstrip("."))
    return _blocks_node(module, call.times, call.path)


def _blocks_node(module: Module, times: int, path: str) -> Node:
    node = Node("module", module._get_name(), _up_to(path, times), _brief(module), hyper(module))
    node.family, node.module, node.times = family_of(type(module).__module__), module, times
    return node


def _up_to(path: str, times: int) -> str:
    """The path of a block, or of so many blocks from it on."""
    head, dot, number = path.rpartition(".")
    return path if times == 1 else _range(path, f"{head}{dot}{int(number) + times - 1}")


def graph_of(
    recording: Recording,
    model: Module,
    depth: int | None,
    functions: bool,
    names: list[str],
    folds: bool = True,
) -> Graph:
    """The boxes down to ``depth`` calls within each other.

    Args:
        recording: of a call of ``model``.
        model: the module that was called.
        depth: None for all.
        functions: whether what happens between the modules is shown.
        names: of the inputs.
        folds: whether repeated boxes are shown once.
    """
    graph = _Builder(recording, model, depth, functions, names).run()
    if folds:
        fold(graph.top, graph.edges)
    return graph


def input_names(model: Module, leaves: list[int], kwargs: dict[str, int]) -> list[str]:
    """What ``forward`` calls its arguments, each as often as it has arrays."""
    try:
        known = [
            p.name
            for p in inspect.signature(model.forward).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        known = []
    named = [*itertools.zip_longest(known[: len(leaves)], leaves, fillvalue="input")]
    names = []
    for name, number in [*named, *kwargs.items()]:
        many = number != 1
        names += [f"{name}[{i}]" if many else str(name) for i in range(int(number))]
    return names


class _Builder:
    def __init__(
        self, recording: Recording, model: Module, depth: Any, functions: bool, names: Any
    ):
        self.recording, self.depth, self.functions = recording, depth, functions
        self.top = Group(model._get_name(), "", module=model)
        self.edges: dict[tuple[Node, Node], list[Any]] = {}
        #: By value: the boxes it comes from; none for a constant.
        self.makers: dict[int, tuple[Node, ...]] = {}
        self.ends: dict[int, int] = {}
        self.parents = self._parents()
        self.inputs = []
        for number, value in enumerate(recording.inputs):
            name = names[number] if number < len(names) else "input"
            node = Node("input", name)
            self.inputs.append(node)
            self.makers[value] = (node,)

    def _parents(self) -> set[int]:
        """The calls in which others happen."""
        open_: list[int] = []
        found = set()
        for step in self.recording.steps:
            if step.kind == "begin":
                found |= set(open_[-1:])
                open_.append(step.call)
            elif step.kind == "end" and step.call in open_:
                del open_[open_.index(step.call) :]
        return found

    def run(self) -> Graph:
        groups, box, calls = [self.top], None, self.recording.calls
        boxed, last = -1, (-1, None)
        opened: list[int] = []
        for step in self.recording.steps:
            if step.kind == "begin" and box is None:
                if self._opens(step.call, len(opened)):
                    if opened:
                        call = calls[step.call]
                        name = _up_to(call.path, call.times)
                        group = Group(call.module._get_name(), name, times=call.times)
                        group.module, group.path = call.module, call.path
                        groups[-1].items.append(group)
                        groups.append(group)
                    opened.append(step.call)
                else:
                    box, boxed = _module_node(calls[step.call]), step.call
                    groups[-1].items.append(box)
            elif step.kind == "end":
                if step.call == boxed:
                    last, box, boxed = (boxed, box), None, -1
                elif step.call in opened:
                    keep = opened.index(step.call)
                    del opened[keep:], groups[max(keep, 1) :]
            elif step.kind == "same":
                for out in step.outs:
                    self.makers[out] = self._sources(step.ins)
                    # Of what a module makes of nothing but its parameters, it is the maker all the same.
                    if step.label == "end" and step.call == last[0] and last[1] is not None:
                        self.makers[out] = (last[1],)
            elif step.kind == "op":
                self._operation(step, box, groups[-1])
        output = Node("output", "output")
        for value in self.recording.outputs:
            self._connect(value, output)
        self._place(output)
        self._drop_unused()
        return Graph(self.top, self.edges)

    def _opens(self, call: int, level: int) -> bool:
        module = self.recording.calls[call].module
        if self.depth is not None and level >= self.depth:
            return False
        own = not type(module).__module__.startswith("funcnets.")
        return call in self.parents or (level == 0 and own and self.functions)

    def _sources(self, values: tuple[int, ...]) -> tuple[Node, ...]:
        return tuple(dict.fromkeys(n for v in values for n in self.makers.get(v, ())))

    def _connect(self, value: int, node: Node) -> None:
        shape = self.recording.shapes[value]
        for maker in self.makers.get(value, ()):
            if maker is not node:
                shapes = self.edges.setdefault((maker, node), [])
                if all(s is not shape for s in shapes):
                    shapes.append(shape)

    def _operation(self, step: Any, box: Node | None, group: Group) -> None:
        sources = self._sources(step.ins)
        node = box
        if node is None:
            silent = step.label in SILENT or not self.functions
            if not sources or silent:
                for out in step.outs:
                    self.makers[out] = sources
                return
            last = group.items[-1] if group.items else None
            if isinstance(last, Node) and last.kind == "function" and last.place == step.place:
                node = last
            else:
                family = "activation" if not step.room else family_of(step.room)
                family = "other" if not step.room else family
                node = Node("function", step.label, family=family, place=step.place)
                group.items.append(node)
        for value in step.ins:
            self._connect(value, node)
        for out in step.outs:
            self.makers[out] = (node,) if sources else ()

    def _place(self, output: Node) -> None:
        """Put every input before what uses it first, and the output at the end."""
        for node in self.inputs:
            users = [b for a, b in self.edges if a is node]
            at = next(
                (
                    i
                    for i, item in enumerate(self.top.items)
                    if any(
                        u is item or (isinstance(item, Group) and u in item.nodes()) for u in users
                    )
                ),
                None,
            )
            if at is not None:
                self.top.items.insert(at, node)
            elif output in users:
                self.top.items.append(node)
        self.top.items.append(output)

    def _drop_unused(self) -> None:
        """Leave out functions whose results nobody needs."""
        while True:
            used = {a for a, _ in self.edges}
            unused = {n for n in self.top.nodes() if n.kind == "function" and n not in used}
            if not unused:
                return
            self.edges = {k: v for k, v in self.edges.items() if k[1] not in unused}
            _remove(self.top, unused)


def _remove(group: Group, nodes: set[Node]) -> None:
    group.items = [item for item in group.items if item not in nodes]
    for item in group.items:
        if isinstance(item, Group):
            _remove(item, nodes)


# --- repetitions ------------------------------------------------------------------------------

_LONGEST = 6  # boxes in what is repeated


def _nodes(items: list[Node | Group]) -> list[Node]:
    return list(Group("", "", items).nodes())


def fold(group: Group, edges: dict[tuple[Node, Node], list[Any]]) -> None:
    """Show repeated boxes once, with their number."""
    for item in group.items:
        if isinstance(item, Group):
            fold(item, edges)
    start = 0
    while start < len(group.items):
        found = _repetition(group.items, start, edges)
        if found is not None:
            _merge(group, start, *found, edges)
        start += 1


def _alike(item: Node | Group, edges: Any) -> Any:
    if isinstance(item, Group):
        return (item.title, item.times, [_alike(i, edges) for i in item.items])
    around = {
        (side, *[(tuple(s.shape), str(s.dtype)) for s in shapes])
        for pair, shapes in edges.items()
        for side in (0, 1)
        if pair[side] is item
    }
    return (item.kind, item.title, item.detail, item.note, item.times, sorted(around))


def _repetition(items: list[Node | Group], start: int, edges: Any) -> tuple[int, int] | None:
    """The period and the number of repetitions that begin here."""
    if isinstance(items[start], Node) and items[start].kind in ("input", "output"):  # pyright: ignore[reportAttributeAccessIssue]
        return None
    facts = [_alike(item, edges) for item in items[start:]]
    for period in range(1, min(_LONGEST, len(facts) // 2) + 1):
        times = 1
        while facts[times * period : (times + 1) * period] == facts[:period]:
            times += 1
        whole = isinstance(items[start], Group)
        while times >= (2 if whole or period > 1 else 3):
            copies = [items[start + i * period : start + (i + 1) * period] for i in range(times)]
            if _is_chain([set(_nodes(copy)) for copy in copies], edges):
                return period, times
            times -= 1
    return None


def _is_chain(copies: list[set[Node]], edges: Any) -> bool:
    """Whether each gives to the next only, and gets from it or from what all of them get from."""
    every = set().union(*copies)
    outside = {a for a, b in edges if a not in every and b in copies[0]}
    for number, copy in enumerate(copies):
        for a, b in edges:
            if a in copy and b not in copy:
                last = number == len(copies) - 1
                if not (last and b not in every) and not (not last and b in copies[number + 1]):
                    return False
            if b in copy and a not in every and a not in outside:
                return False
    return True


def _merge(group: Group, start: int, period: int, times: int, edges: Any) -> None:
    every = [group.items[start + i * period : start + (i + 1) * period] for i in range(times)]
    kept = every[0]
    nodes = [_nodes(copy) for copy in every]
    stands: dict[Node, Node] = {
        n: first for copy in nodes for n, first in zip(copy, nodes[0], strict=True)
    }
    number = {n: i for i, copy in enumerate(nodes) for n in copy}
    merged: dict[tuple[Node, Node], list[Any]] = {}
    for (a, b), shapes in edges.items():
        inside = a in number and b in number
        if (inside and (number[a] != number[b] or number[a] > 0)) or (
            a not in number and number.get(b, 0) > 0
        ):
            continue
        merged[stands.get(a) or a, stands.get(b) or b] = shapes
    edges.clear()
    edges.update(merged)
    first = kept[0]
    if period == 1:
        last = every[-1][0]
        first.times *= times
        first.name = _range(first.name, last.name)
        shown: list[Node | Group] = [first]
    else:
        names = [getattr(item, "name", "") for item in every[-1]]
        heads = [getattr(item, "name", "") for item in kept]
        shown = [Group("", _range(next(filter(None, heads), ""), names[-1]), kept, times)]
    group.items[start : start + period * times] = shown


def _range(first: str, last: str) -> str:
    """``layers.0`` and ``layers.5`` as ``layers.0–5``."""
    if not first or not last or first == last:
        return first or last
    head = first.rpartition(".")[0]
    head_, _, tail_ = last.rpartition(".")
    return f"{first}–{tail_}" if head == head_ else f"{first} – {last}"
