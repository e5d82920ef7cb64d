"""Train a character-level language model on Python's own library: ``python -m funcnets.examples.charlm``.

The text is the source of a few modules of the standard library, which every Python has. ``--model
lstm`` (the default) or ``--model transformer`` says which network learns to continue it. At the end the
model writes some source of its own.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sysconfig
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn, optim, train
from funcnets.optim.lr_scheduler import OneCycleLR

MODULES = (
    "bisect calendar contextlib csv fractions functools heapq random statistics string textwrap"
)


class CharLSTM(nn.Module):
    """Embedding, LSTM, and a linear layer to the logits of the next character."""

    def __init__(self, vocabulary: int, width: int = 256, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width // 2)
        self.lstm = nn.LSTM(width // 2, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: jax.Array) -> jax.Array:
        hidden, _ = self.lstm(self.embedding(tokens))  # (batch, time, width)
        return self.head(hidden)


class CharTransformer(nn.Module):
    """Embeddings of characters and places, and blocks of attention that look back only."""

    def __init__(
        self, vocabulary: int, context: int, width: int = 128, layers: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(context, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, layers, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: jax.Array) -> jax.Array:
        time = tokens.shape[1]
        x = self.embedding(tokens) + self.places(jnp.arange(time))[None]  # (batch, time, width)
        mask = nn.Transformer.generate_square_subsequent_mask(time)
        return self.head(self.blocks(x, mask=mask, is_causal=True))


class Text(NamedTuple):
    """A text as indices into its sorted characters."""

    tokens: np.ndarray
    characters: str

    def encode(self, text: str) -> np.ndarray:
        unknown = set(text) - set(self.characters)
        if unknown:
            raise SystemExit(f"the training text has no {', '.join(map(repr, sorted(unknown)))}")
        return np.array([self.characters.index(c) for c in text], np.int32)

    def decode(self, tokens: Any) -> str:
        return "".join(self.characters[i] for i in np.asarray(tokens))


def load(modules: Sequence[str] = tuple(MODULES.split()), size: int | None = None) -> Text:
    """The source of some modules of the standard library, one after the other."""
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    files = [library / f"{name}.py" for name in modules]
    missing = [str(path) for path in files if not path.exists()]
    if missing:
        raise SystemExit(f"this Python has no source of its library: {', '.join(missing)}")
    text = "".join(path.read_text("utf-8").encode("ascii", "ignore").decode() for path in files)
    text = text[:size]
    characters = "".join(sorted(set(text)))
    return Text(Text(np.array([]), characters).encode(text), characters)


def windows(tokens: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """``(n, context)`` characters, and for each the one that follows."""
    count = (len(tokens) - 1) // context
    if count < 1:
        raise SystemExit(f"{len(tokens)} characters are too few for a context of {context}")
    cut = lambda start: tokens[start : start + count * context].reshape(count, context)  # noqa: E731
    return cut(0), cut(1)


def loader(tokens: np.ndarray, context: int, batch: int, shuffle: bool) -> train.ArrayLoader:
    """Batches of windows, all of one size, so that one program does for all."""
    pair = windows(tokens, context)
    return train.ArrayLoader(pair, min(batch, len(pair[0])), shuffle, drop_last=True)


def loss_fn(model: nn.Module, batch: tuple[jax.Array, jax.Array]) -> train.Outcome:
    """Cross entropy of the next character, in nats."""
    tokens, following = batch
    logits = model(tokens)  # (batch, time, vocabulary)
    loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), following.reshape(-1))
    return train.Outcome(loss, logits, following)


def write(
    model: nn.Module,
    prompt: np.ndarray,
    length: int,
    context: int,
    temperature: float = 0.8,
    seed: int = 0,
) -> np.ndarray:
    """Let the model continue ``prompt`` by ``length`` characters.

    It sees a window of ``context`` characters that moves along, so that one compiled program writes
    them all.
    """
    prompt = prompt[-context:]
    start = jnp.zeros(context, jnp.int32).at[: len(prompt)].set(prompt)

    def one(carry: Any, key: jax.Array) -> Any:
        window, filled = carry
        logits = model(window[None])[0, filled - 1]
        token = jax.random.categorical(key, logits / temperature).astype(jnp.int32)
        full = filled == context
        window, place = jnp.where(full, jnp.roll(window, -1), window), filled - full.astype(int)
        return (window.at[place].set(token), place + 1), token

    @fn.jit
    def compiled(start: jax.Array, filled: jax.Array, keys: jax.Array) -> jax.Array:
        return fn.scan(one, (start, filled), keys)[1]

    was_training = model.training
    model.eval()
    tokens = compiled(
        start, jnp.asarray(len(prompt)), jax.random.split(jax.random.key(seed), length)
    )
    model.train(was_training)
    return np.asarray(tokens)


def run(
    kind: str = "lstm",
    epochs: int = 8,
    context: int = 128,
    batch: int = 16,
    size: int | None = None,
    seed: int = 0,
    prompt: str = "def ",
    length: int = 400,
    progress: bool = True,
    width: int | None = None,
    layers: int | None = None,
) -> tuple[train.History, str]:
    """Train, and let the model write.

    Args:
        kind: ``"lstm"`` or ``"transformer"``.
        epochs: passes over the text.
        context: characters in a window.
        batch: windows in a step.
        size: how much of the text is used.
        seed: of the initial values, the order of the windows and what is written.
        prompt: what the model goes on with.
        length: how many characters it writes.
        progress: show the training.
        width: features of the model, its own default if None.
        layers: layers of the model, its own default if None.

    Returns:
        The history, with the loss in nats a character, and the text.
    """
    fn.manual_seed(seed)
    text = load(size=size)
    vocabulary = len(text.characters)
    start = text.encode(prompt)
    if not prompt:
        raise SystemExit("the prompt must have a character or more")
    shape = {k: v for k, v in (("width", width), ("layers", layers)) if v is not None}
    if kind == "lstm":
        model: nn.Module = CharLSTM(vocabulary, **shape)
    else:
        model = CharTransformer(vocabulary, context, **shape)
    print(model)
    cut = len(text.tokens) * 9 // 10
    data = loader(text.tokens[:cut], context, batch, shuffle=True)
    val = loader(text.tokens[cut:], context, batch, shuffle=False)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{len(text.tokens):,} characters of {vocabulary} kinds\n"
    )
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    history = train.fit(
        model,
        optimizer,
        loss_fn,
        data,
        val_data=val,
        epochs=epochs,
        metrics={"perplexity": train.Perplexity(axis=-1)},
        scheduler=OneCycleLR(optimizer, 3e-3, epochs * len(data)),
        scheduler_every="step",
        clip_norm=1.0,
        progress=progress,
    )
    written = text.decode(write(model, start, length, context, seed=seed))
    return history, prompt + written


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train a character-level language model on the source of Python's library."
    )
    parser.add_argument("--model", choices=("lstm", "transformer"), default="lstm")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--width", type=int, help="features of the model")
    parser.add_argument("--layers", type=int, help="layers of the model")
    parser.add_argument("--size", type=int, help="characters of the text, all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompt", default="def ")
    parser.add_argument("--length", type=int, default=400)
    options = vars(parser.parse_args(argv))
    history, written = run(options.pop("model"), **options)
    loss = history["val_loss"][-1]
    print(
        f"\nvalidation: {loss / math.log(2):.3f} bits a character, perplexity {math.exp(loss):.2f}"
    )
    print(f"\n{written}")


if __name__ == "__main__":
    main()
