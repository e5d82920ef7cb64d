"""Pictures of models: what is drawn, read back out of the SVG."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import pytest

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from funcnets.look.theme import escape, fit, width_of

SVG = "{http://www.w3.org/2000/svg}"


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc = nn.Linear(16 * 6 * 6, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.reshape(x.shape[0], -1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return x + self.drop(self.two(self.norm(self.one(x))))


def texts(picture):
    return [node.text for node in ET.fromstring(picture.svg).iter(f"{SVG}text")]


def boxes(picture):
    """The rectangles with a coloured border: left, top, right, bottom."""
    found = []
    for node in ET.fromstring(picture.svg).iter(f"{SVG}g"):
        for rect in node.iter(f"{SVG}rect"):
            x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
            found.append((x, y, x + w, y + h))
    return found


def circles(picture):
    return [c for c in ET.fromstring(picture.svg).iter(f"{SVG}circle") if float(c.get("r")) > 5]


def mlp(*sizes):
    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_a_small_mlp_is_drawn_as_neurons_joined_by_lines():
    picture = fn.draw(mlp(4, 8, 3))
    # A neuron is two circles: paper, so that no line shows through, and colour.
    assert len(circles(picture)) == 2 * (4 + 8 + 3)
    lines = "".join(p.get("d") for p in ET.fromstring(picture.svg).iter(f"{SVG}path"))
    assert lines.count("M") == 4 * 8 + 8 * 3
    assert texts(picture) == ["input", "4", "hidden 1", "8", "ReLU", "output", "3"]


def test_a_wide_layer_is_elided():
    picture = fn.draw(mlp(784, 4096, 10), neurons=8)
    assert len(circles(picture)) == 2 * (7 + 7 + 7)
    assert {"784", "4,096", "10"} <= set(texts(picture))
    assert len(picture.svg) < 60_000


def test_functions_between_the_layers_are_activations_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return F.log_softmax(self.fc2(F.tanh(self.fc1(x))), -1)

    assert texts(fn.draw(Net())) == ["x", "3", "fc1", "4", "tanh", "fc2", "2", "log_softmax"]


def test_what_is_no_chain_of_linear_layers_is_drawn_as_boxes():
    assert not circles(fn.draw(Residual(), (5, 8)))
    assert not circles(fn.draw(mlp(4, 8, 3), style="blocks"))
    with pytest.raises(ArgumentError, match="style='neurons' draws a chain"):
        fn.draw(Residual(), (5, 8), style="neurons")


def test_lenet_is_drawn_with_its_functions_and_shapes():
    seen = texts(fn.draw(LeNet(), (8, 1, 32, 32), width=2000))
    order = [t for t in seen if t in ("Conv2d", "relu", "max_pool2d", "reshape", "Linear")]
    assert order == ["Conv2d", "relu", "max_pool2d"] * 2 + ["reshape", "Linear"]
    shapes = ["8×1×32×32", "8×6×28×28", "8×6×14×14", "8×16×12×12", "8×16×6×6", "8×576", "8×10"]
    assert set(shapes) <= set(seen)
    assert {"conv1", "1 → 6, 5×5", "576 → 10", "x", "output"} <= set(seen)


def test_functions_can_be_left_out():
    seen = texts(fn.draw(LeNet(), (8, 1, 32, 32), functions=False))
    assert not {"relu", "max_pool2d", "reshape"} & set(seen)
    assert {"8×6×14×14", "8×576"} <= set(seen)  # the shapes that arrive


def test_a_skip_connection_goes_below_the_boxes_it_skips():
    picture = fn.draw(Residual(), (5, 8), width=2000)
    assert "+" in texts(picture)
    bottom = max(b for *_, b in boxes(picture))
    below = [
        d
        for d in (p.get("d") for p in ET.fromstring(picture.svg).iter(f"{SVG}path"))
        if max(float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", d)) > bottom
    ]
    assert len(below) == 1


def test_drawing_changes_nothing():
    model = Residual()
    before = dict(vars(model.norm))
    step = fn.jit(lambda x: model(x))
    step(jnp.ones((4, 8)))
    traces = []
    model.two.register_forward_hook(lambda *_: traces.append(1))
    mean = model.norm.running_mean.numpy()
    step(jnp.ones((4, 8)))
    mean, seed = model.norm.running_mean.numpy(), fn.core.random.stream.data
    count = len(traces)
    fn.draw(model, (4, 8))
    assert vars(model.norm).keys() == before.keys()
    assert (model.norm.running_mean.numpy() == mean).all()
    assert fn.core.random.stream.data is seed
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert [len(m._forward_hooks) for m in model.modules()] == [0, 0, 0, 1, 0]
    step(jnp.ones((4, 8)))
    assert len(traces) == count + 1  # the drawing; the compiled step was not traced again
    fresh = mlp(4, 8, 3)
    fn.draw(fresh)
    assert not any(p.has_value for p in fresh.parameters())


def test_repeated_blocks_are_drawn_once():
    layer = {"d_model": 16, "nhead": 2, "dim_feedforward": 8, "batch_first": True}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 6)
    assert "6 × TransformerEncoderLayer" in texts(fn.draw(encoder, (2, 5, 16)))
    opened = texts(fn.draw(encoder, (2, 5, 16), depth=2, width=3000))
    assert opened.count("MultiheadAttention") == 1
    assert "6 × TransformerEncoderLayer layers.0–5" in opened
    assert opened.count("+") == 2
    stack = nn.Sequential(nn.Linear(4, 8), nn.Stack(Residual() for _ in range(12)))
    assert "12 × Residual" in texts(fn.draw(stack, (2, 4)))
    layers = [layer for _ in range(9) for layer in (nn.Linear(8, 8), nn.Tanh())]
    chain = texts(fn.draw(nn.Sequential(*layers), (2, 8), style="blocks"))
    assert "9 × 0–17" in chain
    assert chain.count("Linear") == 1


def test_what_is_used_out_of_turn_is_not_folded():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            outs = []
            for layer in self.layers:
                x = layer(x)
                outs.append(x)
            return sum(outs[:-1], outs[-1])

    assert texts(fn.draw(Dense(), (2, 8))).count("Linear") == 4


def test_depth_opens_modules_in_frames():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), nn.Linear(3, 2))
    shut = texts(fn.draw(model, (1, 2), style="blocks"))
    assert shut.count("Linear") == 1
    assert "Sequential" in shut
    opened = texts(fn.draw(model, (1, 2), style="blocks", depth=None))
    assert opened.count("Linear") == 2
    assert "Sequential 0" in opened


def test_long_chains_go_on_in_further_rows_and_boxes_do_not_overlap():
    model = nn.Sequential(*[nn.Linear(4 + i, 5 + i) for i in range(30)])
    picture = fn.draw(model, (2, 4), width=700)
    width, height = (float(ET.fromstring(picture.svg).get(k)) for k in ("width", "height"))
    found = boxes(picture)
    rects = list(dict.fromkeys(found))
    assert len({(a[1] + a[3]) / 2 for a in rects}) > 3
    assert width < 1000
    for i, a in enumerate(rects):
        assert 0 <= a[0] <= a[2] <= width and 0 <= a[1] <= a[3] <= height
        for b in rects[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_text_is_escaped_and_the_svg_is_whole():
    class Odd(nn.Linear):
        def _get_name(self):
            return "<script>&\"'\x00\ud800"

        def extra_repr(self):
            return "</title><b>"

    picture = fn.draw(Odd(2, 2))
    root = ET.fromstring(picture.svg)
    assert "<script>" not in picture.svg
    assert any("<script>&\"'" in (t.text or "") for t in root.iter(f"{SVG}title"))
    assert "prefers-color-scheme:dark" in picture.svg
    assert "http" not in picture.svg.replace("http://www.w3.org/2000/svg", "")
    assert picture._repr_svg_() == picture._repr_html_() == picture.svg


def test_saving(tmp_path):
    picture = fn.draw(nn.Linear(2, 3))
    path = tmp_path / "model.svg"
    picture.save(path)
    assert ET.parse(path).getroot().tag == f"{SVG}svg"
    with pytest.raises(UnsupportedError, match=r"saved as \.svg.*rsvg-convert"):
        picture.save(tmp_path / "model.png")
    assert [p.name for p in tmp_path.iterdir()] == ["model.svg"]


def test_integers_several_inputs_and_keyword_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.mix = nn.Embedding(10, 4), nn.Bilinear(4, 3, 2)

        def forward(self, words, other, scale=None):
            return self.mix(self.words(words), other) * scale

    seen = texts(fn.draw(Two(), jnp.zeros(5, jnp.int32), (5, 3), kwargs={"scale": jnp.ones(())}))
    assert {"words", "other", "scale", "5 int32", "5×3", "×", "10 → 4"} <= set(seen)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DTypeError, match="draw takes a Module, but got 3"):
        fn.draw(3)
    with pytest.raises(ArgumentError, match="draw needs to know what LeNet is called with"):
        fn.draw(LeNet())
    with pytest.raises(ShapeError):
        fn.draw(LeNet(), (8, 3, 32, 32))
    with pytest.raises(ArgumentError, match="depth must be positive"):
        fn.draw(LeNet(), (8, 1, 32, 32), depth=0)
    model = LeNet()
    with pytest.raises(ArgumentError, match="a shape has no negative numbers"):
        fn.draw(model, (-1, 1, 32, 32))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_checkpointed_and_scanned_parts_are_looked_into():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.GRUCell(4, 4)

        def forward(self, xs):
            h = fn.checkpoint(self.a)(xs[0])
            return fn.scan(lambda h, x: (self.b(x, h), h), h, xs)[0]

    seen = texts(fn.draw(Net(), jax.ShapeDtypeStruct((7, 2, 4), jnp.float32)))
    assert {"Linear", "GRUCell", "7×2×4"} <= set(seen)


def test_texts_are_fitted():
    assert fit("short", 12, 500) == "short"
    cut = fit("a_very_long_name_of_a_layer", 12, 80)
    assert "…" in cut and width_of(cut, 12) <= 80
    assert escape("a<b>\x07") == "a&lt;b&gt;\ufffd"
