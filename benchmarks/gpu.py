"""Train steps on a GPU: ``python -m benchmarks.gpu [rounds] [names...]``.

Torch compiled and eager, funcnets by both faces, flax.nnx and equinox, with the layers and the loss of
``benchmarks.zoo``: a GPT-2-sized transformer in bfloat16, ResNet-50 in bfloat16, an LSTM in float32, and
attention alone in bfloat16, forward and backward. Parameters and moments have the dtype of the model in
every library, losses are float32. Here absolute times count. Without a GPU it says so and stops; with
``--tiny --device cpu`` everything runs once on small shapes, so that the script is known to work.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

# Torch needs some of the memory that JAX would take for itself; before the import of JAX.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np

from benchmarks import harness, zoo
from benchmarks.zoo import recipes
from benchmarks.zoo.recipes import Case

CONTENDERS = [
    "torch.compile",
    "torch eager",
    "funcnets, stateful",
    "funcnets, pure",
    "flax.nnx, nnx.jit",
    "equinox, filter_jit",
]
NO_GPU = "benchmarks.gpu: JAX sees no GPU on this machine; nothing was measured."


class Size(NamedTuple):
    """What is measured on the device, and what is run where there is none."""

    full: Case
    tiny: Case
    dtype: str


def gpt(depth: int, width: int, heads: int, length: int, batch: int, words: int) -> Case:
    recipe = recipes.language_model(words, length, depth, width, heads, length)
    title = f"transformer, {depth} layers of {width}, {words} words, T={length}, batch {batch}"
    shape = (batch, length)
    return Case(title, recipe, 0, shape, shape, classes=words, tokens=words)


def images(size: int, batch: int) -> Case:
    title = f"ResNet-50, 3x{size}x{size}, batch {batch}"
    return Case(title, recipes.resnet50, 0, (batch, 3, size, size), (batch,), classes=1000)


def sequences(hidden: int, length: int, batch: int) -> Case:
    x = (batch, length, hidden)
    title = f"LSTM, 2 layers of {hidden}, T={length}, batch {batch}"
    return Case(title, recipes.lstm(hidden, hidden, 2), 0, x, x, recipes.MEAN)


def attention(width: int, heads: int, length: int, batch: int) -> Case:
    x = (batch, length, width)
    title = f"causal self-attention of {width} in {heads} heads, T={length}, batch {batch}"
    return Case(title, lambda k: k.chain(k.attention(width, heads, length)), 0, x, x, recipes.MEAN)


SIZES = {
    "transformer": Size(gpt(12, 768, 12, 1024, 8, 50257), gpt(2, 16, 2, 8, 2, 64), "bfloat16"),
    "resnet50": Size(images(224, 64), images(32, 2), "bfloat16"),
    "lstm": Size(sequences(512, 256, 64), sequences(8, 4, 2), "float32"),
    "attention": Size(attention(1024, 16, 4096, 4), attention(16, 2, 8, 2), "bfloat16"),
}


def steps(case: Case, dtype: str, device: str, names: list[str]) -> dict[str, Callable[[], Any]]:
    """A train step for each contender, on the device."""
    x, y = case.data()
    found = {}
    for name in names:
        torch_device = {"device": "cuda" if device == "gpu" else device}
        kit = zoo.kit(name, dtype=dtype, **(torch_device if name.startswith("torch") else {}))
        found[name] = kit.train(kit.build(case.recipe, x), x, y, case.loss)
    return found


def measure(size: Size, tiny: bool, device: str, rounds: int, names: list[str]) -> str:
    case = size.tiny if tiny else size.full
    contenders = steps(case, size.dtype, device, names)
    losses = {name: float(step()) for name, step in contenders.items()}
    if not all(np.isfinite(loss) for loss in losses.values()):
        raise FloatingPointError(f"{case.title}: losses {losses}")
    title = f"{case.title}: Adam step, {size.dtype}, {device}"
    said = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    times = harness.interleave(contenders, rounds=rounds, target=0.0 if tiny else 0.2, warmup=3)
    return f"{harness.table(title, times)}\n  first loss: {said}"


def has_gpu() -> bool:
    return any(device.platform == "gpu" for device in jax.devices())


def main(*arguments: str) -> str:
    """Measure on the device; print the tables as they come and return them."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.gpu")
    parser.add_argument("rounds", type=int, nargs="?", default=20)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SIZES)}")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="gpu", choices=["gpu", "cpu"], help=argparse.SUPPRESS)
    parser.add_argument("--without", nargs="*", default=[], help="contenders to leave out")
    options = parser.parse_args(arguments)
    if options.device == "gpu" and not has_gpu():
        print(NO_GPU, flush=True)
        return NO_GPU
    names, missing = zoo.installed([n for n in CONTENDERS if n not in options.without])
    text = [harness.machine(), *([missing] if missing else [])]
    print(*text, sep="\n", flush=True)
    for name in options.names or SIZES:
        text.append(
            "\n" + measure(SIZES[name], options.tiny, options.device, options.rounds, names)
        )
        print(text[-1], flush=True)
    return "\n".join(text)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) == NO_GPU)
