"""The same models four times: by hand on a plain dict, in funcnets, in flax.nnx and in equinox.

The hand-written forms use the same array functions, so that what is measured is what a framework adds.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from funcnets import functional as F
from funcnets import nn

Params = dict[str, Any]


class MLP(nn.Module):
    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, x: jax.Array) -> jax.Array:
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)


def mlp_by_hand(params: Params, x: jax.Array) -> jax.Array:
    layers = params["layers"]
    for i in range(len(layers) - 1):
        x = F.relu(F.linear(x, layers[str(i)]["weight"], layers[str(i)]["bias"]))
    last = layers[str(len(layers) - 1)]
    return F.linear(x, last["weight"], last["bias"])


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: jax.Array) -> jax.Array:
        x = x + self.proj(attend(self.qkv(self.norm1(x)), self.heads))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def attend(qkv: jax.Array, heads: int) -> jax.Array:
    batch, length, width = qkv.shape
    q, k, v = (a.reshape(batch, length, heads, -1).swapaxes(1, 2) for a in jnp.split(qkv, 3, -1))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.swapaxes(1, 2).reshape(batch, length, width // 3)


def transformer_by_hand(heads: int) -> Any:
    def linear(p: Params, x: jax.Array) -> jax.Array:
        return F.linear(x, p["weight"], p["bias"])

    def norm(p: Params, x: jax.Array) -> jax.Array:
        return F.layer_norm(x, x.shape[-1:], p["weight"], p["bias"])

    def forward(params: Params, x: jax.Array) -> jax.Array:
        blocks = params["blocks"]
        for i in range(len(blocks)):
            p = blocks[str(i)]
            x = x + linear(p["proj"], attend(linear(p["qkv"], norm(p["norm1"], x)), heads))
            x = x + linear(p["down"], F.gelu(linear(p["up"], norm(p["norm2"], x))))
        return norm(params["norm"], x)

    return forward
