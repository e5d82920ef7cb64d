"""What a notebook shows of modules, cells, optimizers and histories."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import funcnets as fn
from funcnets import look, nn, optim, train
from funcnets.core.cell import Version
from funcnets.core.pack import Pack
from funcnets.look import arrays


class Reader(HTMLParser):
    """Checks that tags close in order, and collects text and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def read(thing):
    html = thing._repr_html_()
    assert html is not None
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    tags = [tag for tag, _ in reader.tags]
    assert not {"script", "img", "link", "iframe"} & set(tags)
    assert "http" not in html and "url(" not in html
    for _, attrs in reader.tags:
        assert not any(name.startswith("on") for name in attrs)
        assert all(c.startswith("fnl-") for c in (attrs.get("class") or "fnl-").split())
    return reader


def words(thing):
    return " | ".join(text for text in read(thing).texts if text.strip())


def test_depth_says_how_many_levels_are_open():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 2)))
    for depth in range(4):
        opened = [
            "open" in attrs
            for tag, attrs in read(look.view(model, depth=depth)).tags
            if tag == "details"
        ]
        assert opened == [level < depth for level in range(3)]


def test_words_stay_apart_without_the_style_sheet():
    """A notebook that is not trusted yet is shown without it."""
    plain = "".join(read(nn.Sequential(nn.Linear(3, 2)).requires_grad_(False)).texts)
    assert "0 Linear in_features=3, out_features=2, bias=True → (*, 2) " in plain
    assert "weight 2×3 float32 frozen " in plain


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 5)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(24, 10)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean((2, 3)).repeat(4, 1))


def test_a_module_is_a_tree_that_opens_and_closes():
    model = Net()
    seen = read(model)
    assert sum(tag == "details" for tag, _ in seen.tags) == 4
    text = " | ".join(text for text in seen.texts if text.strip())
    for part in (
        "Net | training | 418 parameters · 1.72 kB",
        "conv | Conv2d | 1, 6, kernel_size=(5, 5), stride=(1, 1) | → (*, 6, *, *) | 156 parameters · 624 B",
        "in_features=24, out_features=10, bias=True | → (*, 10) | 250 parameters",
        "weight | 6×1×5×5 | float32 | not drawn yet",
        "running_mean | 6 | float32 | buffer | not drawn yet",
        "num_batches_tracked | number | int32",
    ):
        assert part in text


def test_looking_draws_nothing_and_changes_nothing():
    model = Net()
    version, lent = Version.structure, Version.lent
    model._repr_html_()
    model.fc.weight._repr_mimebundle_()
    assert not any(cell.has_value for cell in (*model.parameters(), *model.buffers()))
    assert (Version.structure, Version.lent) == (version, lent)


def test_packed_and_stacked_values_are_seen_where_they_are():
    model = nn.Sequential(nn.Stack(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    @fn.jit
    def step(x):
        loss, grads = fn.value_and_grad(lambda m: (m(x) ** 2).mean())(model)
        optimizer.step(grads)
        return loss

    step(jnp.ones((2, 4)))
    step(jnp.ones((2, 4)))
    bias = model[1].bias
    assert isinstance(bias._pack, Pack) and bias._value is None
    version, lent = Version.structure, Version.lent
    first = model._repr_html_()
    row = words(model[0][1].weight)
    assert bias._value is None and (Version.structure, Version.lent) == (version, lent)
    assert model._repr_html_() == first
    low = f"min {np.asarray(model[1].weight).min():.3g}"
    assert low in first
    assert f"max {np.asarray(model[0][1].weight).max():.3g}" in row
    step(jnp.ones((2, 4)))
    assert f"min {np.asarray(model[1].bias).min():.3g}" in words(model[1].bias)


def test_modes_and_frozen_parts_are_marked():
    model = Net()
    model.norm.eval()
    model.conv.requires_grad_(False)
    model.fc.bias.requires_grad_(False)
    text = words(model)
    assert "Net | training | 166 frozen" in text
    assert re.search(r"BatchNorm2d \| [^|]*\| eval \|", text)
    assert "→ (*, 6, *, *) | frozen" in text
    assert "→ (*, 10) | 10 frozen" in text
    assert text.count("training") == 1


def test_output_shapes_come_from_an_abstract_call():
    model = Net()
    shown = fn.look.view(model, (8, 1, 12, 12))
    text = words(shown)
    assert "→ 8×6×8×8" in text and "→ 8×10" in text
    assert repr(shown) == "View of 4 modules"
    assert not any(p.has_value for p in model.parameters())
    with pytest.raises(fn.errors.DTypeError, match="view takes a Module"):
        fn.look.view(jnp.ones(3))


def test_repeated_blocks_are_shown_once():
    def block():
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    for model in (nn.ModuleList(block() for _ in range(50)), nn.Stack(block() for _ in range(50))):
        text = words(model)
        assert "0–49 | 50 × | Sequential" in text
        assert text.count("in_features") == 1
    assert "Stack | 50 × Sequential" in text
    mixed = nn.ModuleList([*(block() for _ in range(3)), nn.Linear(4, 4), block()])
    mixed[1].eval()
    assert words(mixed).count("in_features") == 5


def test_tied_and_lazy_and_missing_parts():
    model = nn.Module()
    model.a, model.b, model.none = nn.LazyLinear(3), nn.Linear(4, 4), nn.Linear(2, 2)
    model.none = None
    model.c = model.b
    text = words(model)
    assert "weight | shape not known yet | float32" in text
    assert "c | Linear | is b" in text
    assert "none | None" in text
    assert not model.a.weight.settled


def test_text_from_outside_is_escaped():
    class Odd(nn.Module):
        def extra_repr(self):
            return "<script>alert(1)</script> \x00"

    class Broken(nn.Module):
        def extra_repr(self):
            raise RuntimeError

    model = Odd()
    model.register_buffer("<b>", jnp.ones(2))
    model.broken = Broken()
    html = model._repr_html_()
    assert "<script>" not in html and "<b>" not in html
    assert "&lt;script&gt;" in html and "Broken" in words(model)


def test_a_view_never_raises(monkeypatch):
    model = Net()
    monkeypatch.setattr("funcnets.look.page.html_of", lambda thing: 1 / 0)
    assert model._repr_html_() is None
    assert list(model.fc.weight._repr_mimebundle_()) == ["text/plain"]


def test_views_within_a_call_are_those_from_outside():
    class Shows(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            self.html = self.fc._repr_html_()
            return self.fc(x)

    model = Shows()
    fn.eval_shape(model, jnp.ones((1, 2)))
    assert "not drawn yet" in model.html


CASES = {
    "bfloat16": (jnp.arange(8, dtype=jnp.bfloat16), ["min 0", "mean 3.5", "max 7"]),
    "float8": (jnp.ones(2, jnp.float8_e4m3fn), ["all 1"]),
    "int32": (jnp.arange(-2, 2000), ["min -2", "mean 998", "max 1,999"]),
    "bool": (jnp.array([True, False, True, True]), ["75.0% true"]),
    "complex": (jnp.array([3 + 4j, 0j]), ["absolute values", "min 0", "mean 2.5", "max 5"]),
    "nan": (
        jnp.array([1.0, jnp.nan, jnp.inf, 3.0]),
        ["1 NaN", "1 infinite", "min 1", "mean 2", "max 3"],
    ),
    "only nan": (jnp.full(3, jnp.nan), ["3 NaN"]),
    "extreme": (
        jnp.array([-3.0e38, 3.0e38]),
        ["min -3e+38", "mean 0", "max 3e+38"],
    ),
    "empty": (jnp.zeros((0, 3)), ["empty"]),
    "one number": (jnp.ones(()), ["all 1"]),
    "keys": (jax.random.split(jax.random.key(0), 3), ["random keys"]),
}


@pytest.mark.parametrize("case", CASES)
def test_arrays_of_every_kind(case):
    value, said = CASES[case]
    seen = arrays.glance(value)
    assert seen.words == said
    buffer = nn.Buffer(value)
    text = words(buffer)
    assert ", ".join(said) in text and str(value.dtype) in text
    bundle = buffer._repr_mimebundle_()
    assert bundle["text/plain"] == repr(buffer)


def test_histograms_count_every_number():
    numbers = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    seen = arrays.glance(jnp.asarray(numbers))
    assert seen.heights == np.histogram(numbers.astype(np.float64), arrays.BINS)[0].tolist()
    assert arrays.bars(seen).count("<rect") == sum(h > 0 for h in seen.heights)


def test_a_large_array_is_sampled():
    large = jnp.zeros(1 << 21).at[::2].set(1.0)
    seen = arrays.glance(large)
    assert seen.words[0].startswith("of a sample of ")
    assert int(re.sub(r"\D", "", seen.words[0])) <= arrays.MOST


def test_sharded_and_deleted_arrays():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    split = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P("data")))
    copied = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P()))
    assert arrays.placement_text(split) == "split over 4 devices (data)"
    assert arrays.placement_text(copied) == "copied to 4 devices"
    assert (
        arrays.glance(split).words == arrays.glance(copied).words == ["min 0", "mean 3.5", "max 7"]
    )
    assert sum(arrays.glance(copied).heights) == 8
    assert "split over 4 devices" in words(nn.Parameter(split))
    value = jnp.ones(3)
    buffer = nn.Buffer(value)
    value.delete()
    assert "deleted" in words(buffer)
    assert buffer._repr_mimebundle_()["text/plain"]


def test_print_stays_as_it_is():
    weight = nn.Parameter((2,))
    assert not weight.has_value
    assert weight._repr_mimebundle_()["text/plain"] == (
        "Parameter(shape=(2,), dtype=float32), not drawn yet"
    )
    assert repr(weight) == "Parameter containing:\ntensor([0., 0.], requires_grad=True)"
    assert weight._repr_mimebundle_()["text/plain"] == repr(weight)


def test_a_model_of_many_modules_stays_small():
    model = nn.ModuleList(nn.Linear(2 + i, 3) for i in range(2000))
    html = model._repr_html_()
    assert "and 501 more" in html
    assert len(html) < 2_000_000


def test_optimizers_and_histories():
    model = Net()
    groups = [{"params": model.conv.parameters(), "lr": 1e-4}, {"params": model.fc.parameters()}]
    text = words(optim.AdamW(groups, lr=1e-3))
    assert "AdamW | group 0 | 2 tensors | 156 parameters | lr | 0.0001" in text
    assert "group 1 | 2 tensors | 250 parameters | lr | 0.001" in text
    history = train.History()
    assert "History | 0 epochs" in words(history)
    for epoch in range(20):
        history.record_epoch({"epoch": epoch + 1, "step": 1000 * epoch, "loss": 1 / (1 + epoch)})
    text = words(history)
    assert "20 epochs" in text and "… | … | …" in text
    assert "20 | 19,000 | 0.05" in text


def test_the_theme_follows_the_page():
    html = nn.Linear(1, 1)._repr_html_()
    for part in ("prefers-color-scheme:dark", "data-jp-theme-light", "--jp-layout-color0"):
        assert part in html
