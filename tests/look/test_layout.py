"""Block diagrams: where branches, skips and rows stand, read back out of the SVG."""

from __future__ import annotations

import itertools
import random
import re
import xml.etree.ElementTree as ET

import jax.numpy as jnp
import pytest

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn
from tests.look.models import Bottleneck, Decoder

SVG = "{http://www.w3.org/2000/svg}"


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.three = nn.Conv2d(4, 4, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.squeeze = nn.Conv2d(4, 6, 1)
        self.pool, self.last = nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        parts = self.one(x), self.three(F.relu(self.squeeze(x))), self.last(self.pool(x))
        return jnp.concatenate(parts, 1)


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.user = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        self.item = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, user, item):
        return (self.user(user) * self.item(item)).sum(-1)


class Tangle(nn.Module):
    """Any graph of layers, sums and further tangles."""

    def __init__(self, seed, size, deep=2):
        super().__init__()
        draw = random.Random(seed)
        self.plan = []
        for i in range(size):
            kind = draw.choice("llaasm" if deep else "llaas")
            froms = [draw.randrange(max(0, i - draw.choice((0, 1, 3, 6))), i + 1) for _ in "ab"]
            self.plan.append((kind, froms[: 1 + (kind == "a")]))
            inner = nn.Linear(8, 8) if kind == "l" else None
            if kind == "m":
                inner = Tangle(7 * seed + i, draw.randrange(2, 7), deep - 1)
            self.register_module(f"m{i}", inner)
        used = {i for _, froms in self.plan for i in froms}
        self.ends = [i for i in range(size + 1) if i not in used]

    def forward(self, x):
        values = [x]
        for i, (kind, froms) in enumerate(self.plan):
            given = [values[j] for j in froms]
            if kind in "lm":
                values.append(getattr(self, f"m{i}")(*given))
            else:
                values.append(given[0] + given[1] if kind == "a" else F.silu(given[0]))
        return sum((values[i] for i in self.ends[1:]), values[self.ends[0]])


def boxes(picture):
    """By title the boxes with that: left, top, right, bottom."""
    found = {}
    for group in ET.fromstring(picture.svg).iter(f"{SVG}g"):
        rect = next(group.iter(f"{SVG}rect"))
        x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        name = group.find(f"{SVG}title").text.partition("(")[0]
        found.setdefault(name, []).append((x, y, x + w, y + h))
    return found


def refuse_disorder(picture):
    """No box lies on another, no line goes through a box or leaves the picture."""
    root = ET.fromstring(picture.svg)
    width, height = (float(root.get(k)) for k in ("width", "height"))
    every = [box for same in boxes(picture).values() for box in same]
    for a, b in itertools.combinations(every, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    lines = 0
    for path in root.iter(f"{SVG}path"):
        points = re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d"))
        for (x, y), (u, v) in itertools.pairwise([(float(x), float(y)) for x, y in points]):
            lines += 1
            left, right, top, bottom = min(x, u), max(x, u), min(y, v), max(y, v)
            assert left >= 0 and right <= width and top >= 0 and bottom <= height
            for a, b, c, d in every:
                # A rounded corner may touch a border.
                assert left > c - 1.5 or right < a + 1.5 or top > d - 1.5 or bottom < b + 1.5
    assert lines >= len(every) - 1


@pytest.mark.parametrize("seed", range(12))
def test_no_line_goes_through_a_box(seed):
    for depth in (1, None):
        model = Tangle(seed, 5 + seed)
        for width in (250, 500 + 150 * seed):  # in narrow rows many branches have several lines
            refuse_disorder(fn.draw(model, (2, 8), depth=depth, style="blocks", width=width))


def test_branches_stand_above_one_another_between_where_they_part_and_meet():
    picture = fn.draw(Inception(), (2, 4, 8, 8))
    refuse_disorder(picture)
    at = {name: found[0] for name, found in boxes(picture).items()}
    x, join = at["x"], at["concatenate"]
    branches = [["one Conv2d"], ["squeeze Conv2d", "relu", "three Conv2d"]]
    branches.append(["pool MaxPool2d", "last Conv2d"])
    heights = []
    for branch in branches:
        middles = {(at[name][1] + at[name][3]) / 2 for name in branch}
        assert len(middles) == 1
        heights += middles
        order = [x, *(at[name] for name in branch), join]
        assert all(a[2] < b[0] for a, b in itertools.pairwise(order))
    assert heights == sorted(heights) and len(set(heights)) == 3
    assert heights[1] == pytest.approx((x[1] + x[3]) / 2, abs=0.2)


def test_towers_of_two_inputs_meet_and_their_frames_do_not_touch():
    picture = fn.draw(Towers(), (3, 8), (3, 6), depth=2)
    refuse_disorder(picture)
    root = ET.fromstring(picture.svg)
    frames = [r for r in root.iter(f"{SVG}rect") if r.get("stroke-dasharray")]
    (top, high), (below, _) = sorted((float(r.get("y")), float(r.get("height"))) for r in frames)
    assert len(frames) == 2 and top + high < below


def test_a_shortcut_with_layers_is_a_branch():
    at = boxes(fn.draw(Bottleneck(64, 64, 2), (2, 64, 8, 8), width=1600))
    (short,), (main,) = at["downsample Sequential"], at["conv2 Conv2d"]
    assert main[3] < short[1] < short[3]
    assert at["x"][0][2] < short[0] < at["+"][0][0]


def test_calls_that_alternate_are_drawn_branch_by_branch():
    model = Decoder(1)
    model.layers[0].__init__(32, 16, 64, 4)
    picture = fn.draw(model.layers[0], (1, 6, 32), width=2500)
    refuse_disorder(picture)
    at = boxes(picture)
    rows = {(at[f"{name} Linear"][0][1] + at[f"{name} Linear"][0][3]) / 2 for name in "qkv"}
    assert len(rows) == 3


def test_no_row_has_the_output_alone():
    model = nn.Sequential(*[nn.Linear(4 + i, 5 + i) for i in range(30)])
    for width in range(500, 1500, 90):
        every = [b for f in boxes(fn.draw(model, (2, 4), width=width)).values() for b in f]
        last = max((b[1] + b[3]) / 2 for b in every)
        assert sum((b[1] + b[3]) / 2 == last for b in every) > 1


# --- what is recorded -------------------------------------------------------------------------


def test_a_stack_is_traced_once_and_shown_with_all_its_blocks():
    traced = []

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            traced.append(1)
            return x + F.relu(self.fc(x))

    model = nn.Sequential(nn.Linear(4, 8), nn.Stack(Block() for _ in range(40)))
    opened = fn.draw(model, (2, 4), depth=None)
    assert len(traced) == 1
    assert ">40 × Block 1.0–39<" in opened.svg
    view = fn.look.view(model, (2, 4))
    assert len(traced) == 2
    assert (
        view.html.count("→ 2×8") == 5
    )  # the model, its first layer, the Stack, its blocks, their layer
    model[1][3].eval()
    fn.draw(model, (2, 4))
    assert len(traced) == 42


def test_a_module_that_the_model_does_not_hold_is_a_box_too():
    other = nn.Linear(8, 3)

    class Uses(nn.Module):
        def forward(self, x):
            return other(F.relu(x))

    picture = fn.draw(Uses(), (2, 8), style="blocks")
    assert ">(Linear)<" in picture.svg and ">8 → 3<" in picture.svg


def test_a_call_whose_error_is_caught_ends():
    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Linear(5, 2), nn.Linear(8, 2)

        def forward(self, x):
            try:
                return self.wrong(x)
            except fn.errors.ShapeError:
                return F.relu(self.right(x))

    at = boxes(fn.draw(Tries(), (2, 8)))
    assert {"right Linear", "relu", "output"} <= set(at)


def test_lazy_modules_stay_lazy_and_trees_of_shapes_are_inputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.LazyLinear(3)

        def forward(self, batch):
            return {"y": self.fc(batch["x"])}

    model = Net()
    assert "5×3" in fn.draw(model, {"x": (5, 8)}, style="blocks").svg
    assert "5×3" in fn.look.view(model, {"x": (5, 8)}).html
    assert isinstance(model.fc, nn.LazyLinear)
    with pytest.raises(fn.errors.DTypeError) as caught:
        fn.draw(nn.Embedding(9, 4), (2, 3))
    assert "a shape stands for a float32 array" in caught.value.__notes__[-1]


def test_the_compiled_call_of_a_model_is_looked_at_as_the_model():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    compiled, x = fn.jit(model), jnp.ones((1, 2))
    assert fn.draw(compiled, x).svg == fn.draw(model, x).svg
    assert str(fn.summary(compiled, x)) == str(fn.summary(model, x))
    assert fn.look.view(compiled, x).html == fn.look.view(model, x).html
    assert list(fn.capture(compiled, x)[1]) == ["0", "1"]
    assert fn.find_nan(compiled, x * jnp.nan).path == "0"
    with pytest.raises(fn.errors.DTypeError, match="capture takes a Module"):
        fn.capture(fn.jit(lambda x: x), x)


def test_a_branch_that_is_wider_than_a_row_has_several_lines():
    """All of a bottleneck is beside its shortcut, and the picture is not much wider than a row."""
    for depth in (1, 2):
        picture = fn.draw(nn.Sequential(Bottleneck(64, 64, 2)), (2, 64, 8, 8), depth=depth + 1)
        refuse_disorder(picture)
        at = {name.split(".")[-1]: found[0] for name, found in boxes(picture).items()}
        kinds = {"conv": "Conv2d", "bn": "BatchNorm2d"}
        main = [at[f"{name}{i} {kind}"] for i in (1, 2, 3) for name, kind in kinds.items()]
        heights = sorted({round((b[1] + b[3]) / 2) for b in main})
        assert 3 <= len(heights) <= 4
        assert all(at["input"][2] < b[0] and b[2] < at["+"][0] for b in main)
        short = next(box for name, box in at.items() if "downsample" in name or name == "0 Conv2d")
        assert max(b[3] for b in main) < short[1]
        assert float(ET.fromstring(picture.svg).get("width")) < 900


@pytest.mark.parametrize("depth", [1, 2])
def test_little_room_is_left_below(depth):
    layer = nn.TransformerEncoderLayer(16, 2, 8, batch_first=True)
    for width in (300, 700, 2000):
        picture = fn.draw(nn.TransformerEncoder(layer, 2), (2, 5, 16), depth=depth, width=width)
        root = ET.fromstring(picture.svg)
        rects = [r for r in root.iter(f"{SVG}rect") if r.get("x")]
        ends = [float(r.get("y")) + float(r.get("height")) for r in rects]
        lines = [p.get("d") for p in root.iter(f"{SVG}path")]
        ends += [float(y) for d in lines for y in re.findall(r"[\d.]+ ([\d.]+)", d)]
        assert 10 < float(root.get("height")) - max(ends) < 20
        assert min(float(r.get("y")) for r in rects) < 35


def test_frames_of_broken_rows_stand_within_one_another():
    layer = nn.TransformerEncoderLayer(16, 2, 8, batch_first=True)
    model = nn.Sequential(nn.Sequential(nn.TransformerEncoder(layer, 1)), nn.Linear(16, 2))
    root = ET.fromstring(fn.draw(model, (2, 5, 16), depth=None, width=400).svg)
    frames = []
    for r in root.iter(f"{SVG}rect"):
        if r.get("stroke-dasharray"):
            x, y, w, h = (float(r.get(k)) for k in ("x", "y", "width", "height"))
            frames.append((x, y, x + w, y + h))
    assert len(frames) > 6
    for a, b in itertools.combinations(frames, 2):
        apart = a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        inside = all(p < q for p, q in zip(a[:2], b[:2])) and all(
            p > q for p, q in zip(a[2:], b[2:])
        )
        outside = all(p > q for p, q in zip(a[:2], b[:2])) and all(
            p < q for p, q in zip(a[2:], b[2:])
        )
        assert apart or inside or outside
