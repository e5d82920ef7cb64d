"""Operations counted from a jaxpr, against XLA's own analysis of the compiled program."""

from __future__ import annotations

import functools
import importlib

import jax
import jax.numpy as jnp
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.look.flops import Cost, costs
from tests.look.models import resnet50
from tests.seeds import test_002_training

RECURRENT = {"simple_rnn", "lstm_tagger", "sequence_model"}


def seeds():
    names = ("000_model", "001_model_class", "003_building_models", "004_layers")
    for name in names:
        module = importlib.import_module(f"tests.seeds.test_{name}")
        for value in list(vars(module).values()):
            for seed in value if isinstance(value, (list, tuple)) else [value]:
                if type(seed).__name__ == "Seed":
                    yield seed


def by_xla(monkeypatch, model, x, *, recurrent=False):
    """XLA's count. It is that of the form for all devices but CPUs, as ours is; of a loop XLA counts the
    body once, so loops are written out, and without fusion, which computes small things several times."""
    if not any(isinstance(m, (nn.Conv2d, nn.RNNBase)) for m in model.modules()):
        return analysis(model, x)
    default = lambda *args, default=None, **_: default(*args)  # noqa: E731
    monkeypatch.setattr(jax.lax, "platform_dependent", default)
    options = None
    if recurrent:
        monkeypatch.setattr(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True))
        options = {"xla_disable_hlo_passes": "fusion"}
    jax.clear_caches()
    try:
        return analysis(model, x, options)
    finally:
        monkeypatch.undo()
        jax.clear_caches()  # of what was traced with these


def analysis(model, x, options=None):
    init, apply = fn.functionalize(model)
    params, state = jax.eval_shape(init, jax.random.key(0))
    lowered = jax.jit(lambda p, s, x: apply(p, s, x, training=False)[0]).lower(params, state, x)
    return lowered.compile(compiler_options=options).cost_analysis()["flops"]


def close(model, x, expected):
    ours = fn.summary(model, x, training=False).totals.cost
    assert abs(ours.flops / expected - 1) < 0.05, (ours.flops, expected)
    return ours


@pytest.mark.parametrize("seed", list(seeds()), ids=str)
@pytest.mark.filterwarnings("ignore:softmax was called with dim=None")
def test_the_models_of_the_documents(seed, monkeypatch):
    model, x = seed.ours().eval(), jnp.asarray(seed.data()[0])
    if seed.name == "sequence_model":
        x = x[:, :6]  # of 100 steps, which would all be compiled
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    expected = by_xla(monkeypatch, model, shape, recurrent=seed.name in RECURRENT)
    close(model, shape, expected)


@pytest.mark.parametrize("build", [test_002_training.Net, test_002_training.PlainNet])
def test_the_models_of_the_training_document(build, monkeypatch):
    model, x = build().eval(), jax.ShapeDtypeStruct((8, 12), jnp.float32)
    close(model, x, by_xla(monkeypatch, model, x))


def test_resnet_50(monkeypatch):
    model, x = resnet50().eval(), jax.ShapeDtypeStruct((1, 3, 224, 224), jnp.float32)
    expected = by_xla(monkeypatch, model, x)
    cost = close(model, x, expected)
    assert cost.mult_adds == 4_089_184_256
    assert not any(cell.has_value for _, cell in model._cells())


def count(function, *args):
    every = costs(jax.make_jaxpr(function)(*args)).values()
    return functools.reduce(lambda a, b: a + b, every, Cost())


def test_rules():
    x, w = jnp.ones((4, 8)), jnp.ones((8, 2))
    assert count(lambda x, w: x @ w, x, w) == (2 * 64, 64, 0)
    assert count(lambda x: jnp.exp(x) + 1.0, x) == (32, 0, 32)
    assert count(lambda x: x.reshape(8, 4).T, x) == (0, 0, 0)
    assert count(lambda x: x.sum(1), x) == (4 * 7, 0, 0)
    loop = lambda x: jax.lax.scan(lambda c, _: (c * 2.0, None), x, None, length=5)[0]  # noqa: E731
    assert count(loop, x) == (5 * 32, 0, 0)
    either = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x * 2.0, lambda x: x * 2.0 + 1.0, x)  # noqa: E731
    assert count(either, x).flops == 2 + 64  # the comparison, and a number out of its answer
    forms = functools.partial(
        jax.lax.platform_dependent, cpu=lambda x: x + 1.0 + 1.0, default=lambda x: x * 2.0
    )
    assert count(forms, x) == (32, 0, 0)
    # Taps beyond the edge are no work, though they are multiply-adds of the textbook.
    conv = lambda x: jax.lax.conv(x, jnp.ones((1, 1, 3)), (1,), "SAME")  # noqa: E731
    assert count(conv, jnp.ones((1, 1, 4))) == (2 * 10, 12, 0)


def test_work_belongs_to_the_module_that_does_it_in_loops_and_gradients_too():
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x):
            h, _ = fn.scan(lambda h, _: (fn.checkpoint(self.cell)(h), None), x, length=7)
            return self.out(h) * 2.0

    s = fn.summary(Looped(), (3, 4))
    assert s["cell"].cost.mult_adds == 7 * 3 * 16
    assert s["out"].cost.mult_adds == 12
    assert s.rows[0].own_cost == (3, 0, 0)
    assert s.rows[0].cost == s["cell"].cost + s["out"].cost + s.rows[0].own_cost
