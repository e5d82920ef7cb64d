"""Models of the tests of ``funcnets.look``."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from funcnets import nn


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, with batch norm and a shortcut."""

    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or inside != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)]
    layers += [nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for planes, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(blocks):
            layers.append(Bottleneck(inside, planes, stride if i == 0 else 1))
            inside = 4 * planes
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class Block(nn.Module):
    """A decoder block with grouped heads and a gated feed-forward network."""

    def __init__(self, width: int, kv: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, kv, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.heads = heads

    def forward(self, x: Any) -> Any:
        y = self.norm1(x)
        size = x.shape[-1] // self.heads
        split = lambda a: jnp.moveaxis(a.reshape(*a.shape[:-1], -1, size), -2, 1)  # noqa: E731
        q, k, v = map(split, (self.q(y), self.k(y), self.v(y)))
        q = q.reshape(q.shape[0], k.shape[1], -1, size)
        weights = nn.functional.softmax(q @ jnp.swapaxes(k, -1, -2), -1) @ v
        x = x + self.o(weights.reshape(x.shape))
        y = self.norm2(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    """80 blocks and 70 billion parameters, as the larger Llama models have them."""

    def __init__(self, depth: int = 80) -> None:
        super().__init__()
        self.embed = nn.Embedding(128_256, 8192)
        self.layers = nn.ModuleList(Block(8192, 1024, 28_672, 64) for _ in range(depth))
        self.norm = nn.RMSNorm(8192)
        self.head = nn.Linear(8192, 128_256, bias=False)

    def forward(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))
