"""The models, as functions of a kit, and the shapes that they are measured on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

RATE = 1e-3  # of Adam, everywhere


def mlp(sizes: list[int]) -> Callable[[Any], Any]:
    def recipe(k: Any) -> Any:
        layers = [k.linear(a, b) for a, b in itertools.pairwise(sizes)]
        return k.chain(*(part for layer in layers[:-1] for part in (layer, k.relu())), layers[-1])

    return recipe


def lenet(k: Any) -> Any:
    return k.chain(
        *(k.conv(1, 6, 5), k.relu(), k.max_pool(2)),
        *(k.conv(6, 16, 5), k.relu(), k.max_pool(2)),
        *(k.flatten(), k.linear(400, 120), k.relu(), k.linear(120, 84), k.relu(), k.linear(84, 10)),
    )


def simple_cnn(k: Any) -> Any:
    return k.chain(
        *(k.conv(3, 16, 3, padding=1), k.relu(), k.max_pool(2)),
        *(k.conv(16, 32, 3, padding=1), k.relu(), k.max_pool(2)),
        *(k.flatten(), k.linear(32 * 7 * 7, 10)),
    )


def normed(k: Any, a: int, b: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
    padding = kernel // 2
    conv = k.conv(a, b, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return [conv, k.batch_norm(b)]


def basic_block(k: Any, a: int, b: int, stride: int) -> Any:
    branch = k.chain(*normed(k, a, b, 3, stride), k.relu(), *normed(k, b, b, 3))
    shortcut = None if (a, stride) == (b, 1) else k.chain(*normed(k, a, b, 1, stride))
    return k.chain(k.residual(branch, shortcut), k.relu())


def bottleneck(k: Any, a: int, middle: int, b: int, stride: int = 1, groups: int = 1) -> Any:
    branch = k.chain(
        *(*normed(k, a, middle, 1), k.relu()),
        *(*normed(k, middle, middle, 3, stride, groups), k.relu()),
        *normed(k, middle, b, 1),
    )
    shortcut = None if (a, stride) == (b, 1) else k.chain(*normed(k, a, b, 1, stride))
    return k.chain(k.residual(branch, shortcut), k.relu())


def resnet18(k: Any) -> Any:
    stem = [*normed(k, 3, 64, 7, 2), k.relu(), k.max_pool(3, stride=2, padding=1)]
    blocks, a = [], 64
    for b, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [basic_block(k, a, b, stride), basic_block(k, b, b, 1)]
        a = b
    return k.chain(*stem, *blocks, k.average(), k.linear(512, 1000))


def resnet50(k: Any) -> Any:
    stem = [*normed(k, 3, 64, 7, 2), k.relu(), k.max_pool(3, stride=2, padding=1)]
    blocks, a = [], 64
    for b, stride, depth in ((256, 1, 3), (512, 2, 4), (1024, 2, 6), (2048, 2, 3)):
        for i in range(depth):
            blocks.append(bottleneck(k, a, b // 4, b, stride if i == 0 else 1))
            a = b
    return k.chain(*stem, *blocks, k.average(), k.linear(2048, 1000))


def mobilenet(k: Any) -> Any:
    """Depthwise-separable blocks as in MobileNet v1, half as many."""
    layers, a = [*normed(k, 3, 32, 3, 2), k.relu()], 32
    for b, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers += [*normed(k, a, a, 3, stride, groups=a), k.relu(), *normed(k, a, b, 1), k.relu()]
        a = b
    return k.chain(*layers, k.average(), k.linear(512, 10))


def resnext(groups: int) -> Callable[[Any], Any]:
    """The first stage of ResNeXt-50 (which has 32 groups)."""

    def recipe(k: Any) -> Any:
        stem = [*normed(k, 3, 64, 3), k.relu()]
        blocks = [bottleneck(k, 64 if i == 0 else 256, 128, 256, groups=groups) for i in range(3)]
        return k.chain(*stem, *blocks, k.average(), k.linear(256, 10))

    return recipe


def lstm(features: int, hidden: int, layers: int) -> Callable[[Any], Any]:
    return lambda k: k.chain(k.lstm(features, hidden, layers))


def tagger(vocabulary: int, features: int, hidden: int, tags: int) -> Callable[[Any], Any]:
    return lambda k: k.chain(
        k.embedding(vocabulary, features), k.lstm(features, hidden, 1), k.linear(hidden, tags)
    )


def transformer(depth: int, width: int, heads: int, causal: int = 0) -> Callable[[Any], Any]:
    """Blocks that normalise first; ``causal`` is the length of the causal mask, 0 for none."""

    def recipe(k: Any) -> Any:
        parts: list[Any] = []
        for _ in range(depth):
            up, down = k.linear(width, 4 * width), k.linear(4 * width, width)
            parts += [
                k.residual(k.chain(k.layer_norm(width), k.attention(width, heads, causal))),
                k.residual(k.chain(k.layer_norm(width), up, k.gelu(), down)),
            ]
        return k.chain(*parts, k.layer_norm(width))

    return recipe


def language_model(
    vocabulary: int, positions: int, depth: int, width: int, heads: int, length: int
) -> Callable[[Any], Any]:
    """GPT-2: learned positions, and the embedding's table once more as the last layer."""
    body = transformer(depth, width, heads, causal=length)
    return lambda k: k.language_model(vocabulary, positions, width, body(k))


def single(a: np.ndarray) -> np.ndarray:
    return a.astype("float32" if a.dtype == float else "int32")


class Case(NamedTuple):
    """A model with what it is measured on.

    Attributes:
        title: for the tables.
        recipe: the model.
        parameters: how many numbers are trained in torch.
        x: the input's shape; images are given channels first, and a kit moves the channels where its library
            wants them.
        y: the target's shape.
        loss: ``"cross_entropy"`` (with integer targets) or ``"mean_square"``.
        classes: how many there are for cross-entropy.
        tokens: size of the vocabulary if the input are integers.
        second_biases: the numbers in the second bias of torch's LSTMs, which other libraries do not have.
    """

    title: str
    recipe: Callable[[Any], Any]
    parameters: int
    x: tuple[int, ...]
    y: tuple[int, ...]
    loss: str = "cross_entropy"
    classes: int = 10
    tokens: int = 0
    second_biases: int = 0

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(0)
        x = random.integers(self.tokens, size=self.x) if self.tokens else random.normal(size=self.x)
        cross = self.loss == "cross_entropy"
        y = random.integers(self.classes, size=self.y) if cross else random.normal(size=self.y)
        return single(x), single(y)


MEAN = "mean_square"
CASES = {
    "mlp": Case("MLP 8-16-32-4, batch 32", mlp([8, 16, 32, 4]), 820, (32, 8), (32, 4), MEAN),
    "mlp48": Case(
        "MLP 48 layers of 16, batch 32", mlp([16] * 49), 13_056, (32, 16), (32, 16), MEAN
    ),
    "lenet": Case("LeNet, 1x32x32, batch 64", lenet, 61_706, (64, 1, 32, 32), (64,)),
    "simplecnn": Case(
        "SimpleCNN 3-16-32, 28x28, batch 64", simple_cnn, 20_778, (64, 3, 28, 28), (64,)
    ),
    "resnet18": Case(
        "ResNet-18, 3x64x64, batch 8", resnet18, 11_689_512, (8, 3, 64, 64), (8,), classes=1000
    ),
    "mobilenet": Case("MobileNet-like, 3x64x64, batch 8", mobilenet, 543_050, (8, 3, 64, 64), (8,)),
    "resnext": Case(
        "ResNeXt stage, 32 groups, 16x16, batch 2", resnext(32), 210_250, (2, 3, 16, 16), (2,)
    ),
    "resnext4": Case(
        "ResNeXt stage, 4 groups, 16x16, batch 8", resnext(4), 307_018, (8, 3, 16, 16), (8,)
    ),
    "lstm": Case(
        "LSTM, 2 layers of 128, T=64, batch 32",
        *(lstm(64, 128, 2), 231_424, (32, 64, 64), (32, 64, 128), MEAN),
        second_biases=2 * 512,
    ),
    "tagger": Case(
        "LSTM tagger, 1000 words, 64-128-20, T=64, batch 32",
        *(tagger(1000, 64, 128, 20), 165_908, (32, 64), (32, 64)),
        classes=20,
        tokens=1000,
        second_biases=512,
    ),
    "transformer": Case(
        "transformer, 4 layers of 256, T=128, batch 8",
        *(transformer(4, 256, 4), 3_159_552, (8, 128, 256), (8, 128, 256), MEAN),
    ),
    "blocks24": Case(
        "transformer, 24 layers of 64, T=16, batch 2",
        *(transformer(24, 64, 4), 1_199_744, (2, 16, 64), (2, 16, 64), MEAN),
    ),
    "resnet50": Case(
        "ResNet-50, 3x64x64, batch 2", resnet50, 25_557_032, (2, 3, 64, 64), (2,), classes=1000
    ),
    "gpt2": Case(
        "GPT-2 small, T=64, batch 1",
        *(language_model(50257, 1024, 12, 768, 12, 64), 124_439_808, (1, 64), (1, 64)),
        classes=50257,
        tokens=50257,
    ),
}
