"""``fn.summary``: its rows, totals and texts, and that it makes and changes nothing."""

from __future__ import annotations

import builtins
import json
import time

import jax
import jax.numpy as jnp
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.core.cell import tickets
from funcnets.errors import ArgumentError, DTypeError
from tests.look.models import Decoder


def test_the_table_of_a_sequential():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False))
    model[2].requires_grad_(False)
    s = fn.summary(model, (32, 8))
    assert [(r.path, r.type, r.depth, r.number) for r in s.rows] == [
        ("", "Sequential", 0, 1),
        ("0", "Linear", 1, 1),
        ("1", "ReLU", 1, 2),
        ("2", "Linear", 1, 3),
    ]
    assert [r.parameters for r in s.rows] == [208, 144, 0, 64]
    assert [r.own_parameters for r in s.rows] == [0, 144, 0, 64]
    assert [r.trainable for r in s.rows] == [144, 144, 0, 0]
    assert [r.frozen for r in s.rows] == [False, False, False, True]
    assert [r.cost.mult_adds for r in s.rows] == [32 * 192, 32 * 128, 0, 32 * 64]
    assert [r.calls[0].args[0].shape for r in s.rows] == [(32, 8), (32, 8), (32, 16), (32, 16)]
    assert [r.calls[0].output.shape for r in s.rows] == [(32, 4), (32, 16), (32, 16), (32, 4)]
    assert s.totals[:4] == (208, 144, 64, 0)
    assert s.totals.input_bytes == 32 * 8 * 4
    assert s.totals.forward_bytes == 32 * (16 + 16 + 4) * 4
    assert s.totals.param_bytes == 208 * 4
    assert s.totals.total_bytes == s.totals[5] + s.totals[6] + s.totals[7]
    lines = str(s).splitlines()
    assert lines[3].split() == [
        "Sequential",
        "[32,",
        "8]",
        "[32,",
        "4]",
        "--",
        "partly",
        "--",
        "--",
    ]
    assert lines[6].split()[-5:] == ["no", "2.05", "k", "256", "B"]
    assert "Trainable params: 144" in lines


def test_nothing_is_drawn_and_70_billion_parameters_take_no_time():
    model = Decoder()
    issued = tickets._issued
    start = time.perf_counter()
    s = fn.summary(model, (2, 128), dtypes=jnp.int32)
    text = str(s)
    assert time.perf_counter() - start < 2
    assert s.totals.parameters == 70_553_706_496 and "70,553,706,496" in text
    assert s["layers.79.down"].cost.mult_adds == 2 * 128 * 8192 * 28_672
    assert not any(cell.has_value for _, cell in model._cells())
    assert tickets._issued == issued


def test_lazy_modules_stay_lazy_and_draw_later_as_they_would_have():
    def build():
        fn.manual_seed(3)
        return nn.Sequential(
            nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2)
        )

    x = jnp.linspace(-1, 1, 108).reshape(1, 3, 6, 6)
    expected, other = build()(x), nn.Linear(2, 2).weight.data
    looked_at = build()
    text = str(looked_at)
    s = fn.summary(looked_at, (1, 3, 6, 6))
    assert [r.type for r in s.rows[1:]] == ["Conv2d", "BatchNorm2d", "Flatten", "Linear"]
    assert s.totals.parameters == 112 + 8 + 130 and s.totals.unsettled == 0
    assert str(looked_at) == text and not looked_at[0].weight.settled
    assert (looked_at(x) == expected).all()
    assert (nn.Linear(2, 2).weight == other).all()
    assert type(looked_at[3]).__name__ == "Linear"
    without = fn.summary(build())
    assert without.totals.unsettled == 8 and "unknown shape: 8" in str(without)


def test_modes_buffers_and_the_random_stream_stay_as_they_are():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    model(jnp.ones((2, 3)))
    before = {k: v.copy() for k, v in model.state_dict().items()}
    fn.manual_seed(5)
    expected = model(jnp.ones((2, 3)))
    fn.manual_seed(5)
    s = fn.summary(model, jnp.ones((2, 3)), columns=["mode", "calls"])
    assert (model(jnp.ones((2, 3))) == expected).all()
    assert [r.training for r in s.rows] == [True, True, False, True]
    assert [m.training for m in model] == [True, False, True]
    assert all((model.state_dict()[k] == v).all() for k, v in before.items())
    # Dropout draws in training only.
    training = fn.summary(model, (2, 3)).totals.cost.flops
    assert fn.summary(model, (2, 3), training=False).totals.cost.flops < training
    assert s.totals.buffers == 9


class Shared(nn.Module):
    """A module under two names, called three times; a tied weight; a module that is never called."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.mix = nn.Linear(4, 4)
        self.again = self.mix
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, tokens, *, scale, pair):
        x = self.embed(tokens)
        for layer in (self.mix, self.again, self.mix):
            x = layer(x)
        return {"out": self.head(x * scale) + pair[0]["a"], "extra": (pair[1], None)}


def test_what_is_shared_counts_once_and_is_marked():
    s = fn.summary(
        Shared(),
        (2, 5),
        dtypes=jnp.int32,
        scale=jnp.float32(2),
        pair=({"a": jnp.ones((1, 1, 7))}, jnp.ones(3)),
    )
    assert s.totals.parameters == 28 + 20 + 6
    rows = {r.path: r for r in s.rows}
    assert [p for p, r in rows.items() if r.recursive] == ["again", "head"]
    assert len(rows["mix"].calls) == 3 and rows["mix"].cost.mult_adds == 3 * 10 * 16
    assert rows["head"].parameters == 0 and rows["head"].calls
    assert not rows["unused"].calls and rows["unused"].parameters == 6
    text = str(s)
    assert text.count("(recursive)") == 2 and "(mix) x3" in text
    assert "[2, 5], pair=({a: [1, 1, 7]}, [3]), scale=[]" in text
    assert "{extra: ([3], --), out: [2, 5, 7]}" in text
    assert s.totals.cost.mult_adds == 3 * 160 + 10 * 28


def test_shapes_in_containers_dtypes_and_layers_with_several_outputs():
    lstm = nn.LSTM(3, 2)
    s = fn.summary(lstm, (5, 1, 3), ((1, 1, 2), (1, 1, 2)))
    assert "[5, 1, 3], ([1, 1, 2], [1, 1, 2])" in str(s)
    assert s.rows[0].calls[0].output[1][0].shape == (1, 1, 2)
    assert s.totals.cost.mult_adds == 5 * (3 + 2) * 8  # a scan counts as often as it runs
    attention = fn.summary(nn.MultiheadAttention(8, 2), (4, 1, 8), (6, 1, 8), (6, 1, 8))
    assert attention.totals.cost.mult_adds == 8 * 8 * (4 + 6 + 6 + 4) + 2 * 4 * 6 * 8
    # The output projection is not called as a module; its work is the attention's own.
    assert attention.rows[0].own_cost == attention.totals.cost
    half = fn.summary(nn.Linear(3, 2).to(jnp.bfloat16), (4, 3), dtypes=[jnp.bfloat16])
    assert half.rows[0].calls[0].output.dtype == jnp.bfloat16 and half.totals.param_bytes == 16
    stack = nn.Stack(nn.Linear(4, 4) for _ in range(3))
    deep = fn.summary(stack, (2, 4))
    assert [len(r.calls) for r in deep.rows] == [1, 1, 1, 1] and deep.totals.parameters == 60


def test_depth_and_columns():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 1))
    s = fn.summary(
        model, (1, 2), depth=1, columns=["num_params", "params_percent", "flops", "path"]
    )
    assert [line.split() for line in str(s).splitlines()[3:6]] == [
        ["Sequential", "--", "--", "--"],
        ["├─Sequential:", "1-1", "(0)", "12", "80.00", "%", "20", "0"],
        ["└─Linear:", "1-2", "(1)", "3", "20.00", "%", "5", "1"],
    ]
    assert len(s.rows) == 5
    # What is left out counts in the row above it, also where that is a container that is not called.
    held = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
    short = fn.summary(held, (1, 3, 4), depth=1, columns=["mult_adds"])
    assert short["layers"].cost.mult_adds == short.totals.cost.mult_adds > 0
    assert str(short).splitlines()[4].split()[-1] == str(short.totals.cost.mult_adds)
    with pytest.raises(ArgumentError, match="'mult_adds'"):
        fn.summary(model, columns=["size"])
    with pytest.raises(ArgumentError, match="2 dtypes were given for 1 shapes"):
        fn.summary(model, (1, 2), dtypes=[jnp.float32, jnp.int32])
    with pytest.raises(DTypeError, match="takes a Module"):
        fn.summary(lambda x: x, (1, 2))
    with pytest.raises(DTypeError, match="integers") as error:
        fn.summary(nn.Embedding(3, 2), (1, 3))
    assert any("dtypes=" in text for text in error.value.__notes__)
    with pytest.raises(ValueError, match="in_features") as error:
        fn.summary(model, (1, 3))
    assert "In module '0.0' of Sequential" in "".join(error.value.__notes__)


def test_data_html_and_terminal(monkeypatch, capsys):
    class Evil(nn.Linear):
        pass

    Evil.__name__ = "<script>alert(1)</script>"
    s = fn.summary(nn.Sequential(Evil(2, 1)), (1, 2))
    page = s._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and "http" not in page
    assert "prefers-color-scheme: dark" in page
    data = json.loads(json.dumps(s.to_dict()))
    assert data["totals"]["parameters"] == 3
    assert data["rows"][1]["calls"][0]["output"] == {"shape": [1, 1], "dtype": "float32"}
    s.show()
    assert capsys.readouterr().out == f"{s}\n"
    real = builtins.__import__

    def without_rich(name, *args, **kwargs):
        if name.partition(".")[0] == "rich":
            raise ImportError("no rich", name="rich")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", without_rich)
    s.show()
    assert capsys.readouterr().out == f"{s}\n"


def test_rich_shows_the_same_cells():
    console = pytest.importorskip("rich.console").Console(width=150, force_terminal=False)
    s = fn.summary(nn.Sequential(nn.Linear(3, 2)), jax.ShapeDtypeStruct((5, 3), jnp.float32))
    with console.capture() as captured:
        console.print(s)
    for line in str(s).splitlines()[3:5]:
        assert any(shown.split() == line.split() for shown in captured.get().splitlines()), line
