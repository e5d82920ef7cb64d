"""The language model example: its data, that both networks learn, what they write, and the program."""

from __future__ import annotations

import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets.examples import charlm

TINY = {"epochs": 3, "context": 16, "batch": 16, "size": 6000, "length": 24, "progress": False}


def test_the_text_is_pythons_own():
    text = charlm.load()
    assert len(text.tokens) > 200_000
    assert text.tokens.max() + 1 == len(text.characters) < 128
    start = text.decode(text.tokens[:3000])
    assert 'def bisect_right(a, x, lo=0, hi=None, *, key=None):\n    """' in start
    np.testing.assert_array_equal(text.encode(start), text.tokens[:3000])


def test_windows_are_followed_by_themselves():
    x, y = charlm.windows(np.arange(34), 8)
    assert x.shape == y.shape == (4, 8)
    np.testing.assert_array_equal(x.ravel(), np.arange(32))
    np.testing.assert_array_equal(y, x + 1)


def entropy(tokens):
    """The loss of knowing only how often each character occurs, in nats."""
    share = np.bincount(tokens) / len(tokens)
    return -sum(p * math.log(p) for p in share if p)


def test_the_transformer_learns_and_writes(capsys):
    history, written = charlm.run("transformer", width=16, layers=1, **TINY)
    assert "CharTransformer(" in capsys.readouterr().out
    assert history["loss"][-1] < history["loss"][0]
    assert history["loss"][-1] < entropy(charlm.load(size=TINY["size"]).tokens) + 0.3
    assert history["val_perplexity"][-1] == pytest.approx(
        math.exp(history["val_loss"][-1]), rel=1e-4
    )
    assert written.startswith("def ")
    assert len(written) == len("def ") + 24


def test_the_lstm_as_a_program(capsys):
    """Bits a character in which a file of this size could be written, and some text."""
    options = "--width 16 --epochs 4 --size 6000 --context 16 --batch 8 --length 20"
    charlm.main(options.split())
    out = capsys.readouterr().out
    assert "CharLSTM(" in out
    loss = re.search(r"epoch 4/4  loss ([\d.]+)", out)
    assert loss is not None
    found = re.search(r"validation: ([\d.]+) bits a character, perplexity ([\d.]+)\n\n", out)
    assert found is not None
    assert 2 ** float(found[1]) == pytest.approx(float(found[2]), rel=1e-2)
    tokens = charlm.load(size=6000).tokens
    # The last tenth of so short a text may be another kind of text, depending on the version of Python.
    assert float(loss[1]) < entropy(tokens) + 0.3
    assert re.fullmatch(r"def .{20}\n", out[found.end() :], re.DOTALL)


class Counter(fn.Module):
    """Always continues with the next token, modulo 10."""

    def forward(self, tokens):
        return 100.0 * jnp.eye(10)[(tokens + 1) % 10]


@pytest.mark.parametrize("prompt", [[3], list(range(9))])
def test_writing_goes_on_where_the_prompt_ends(prompt):
    """Within the window, as it fills up, and when it moves."""
    model = Counter()
    tokens = charlm.write(model, np.array(prompt, np.int32), 30, context=5)
    np.testing.assert_array_equal(tokens, (prompt[-1] + 1 + np.arange(30)) % 10)
    assert model.training


def test_the_transformer_looks_back_only():
    model = charlm.CharTransformer(vocabulary=7, context=6, width=8, layers=1).eval()
    tokens = jnp.array([[1, 2, 3, 4, 5, 6]])
    before, after = model(tokens), model(tokens.at[0, 3].set(0))
    np.testing.assert_allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert np.abs(np.asarray(before - after)[:, 3:]).max(-1).min() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 40}, "too few for a context"),
        ({"prompt": "ä"}, "has no 'ä'"),
        ({"prompt": ""}, "a character or more"),
    ],
)
def test_what_it_refuses(options, message):
    with pytest.raises(SystemExit, match=message):
        charlm.run(**{**TINY, **options})


def test_a_python_without_its_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(charlm.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(SystemExit, match="no source of its library"):
        charlm.load()
