"""What torch and funcnets have in common, which is every layer: one text for both."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


@functools.cache
def blocks(nn: Any, F: Any) -> dict[str, Any]:
    """The modules that a model needs beside the library's own, for its ``nn`` and ``nn.functional``."""

    class Residual(nn.Module):
        def __init__(self, branch: Any, shortcut: Any) -> None:
            super().__init__()
            self.branch, self.shortcut = branch, shortcut

        def forward(self, x: Any) -> Any:
            return self.branch(x) + (x if self.shortcut is None else self.shortcut(x))

    class Outputs(nn.Module):
        """A recurrent layer without its last states."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any) -> Any:
            return self.layer(x)[0]

    class SelfAttention(nn.Module):
        def __init__(self, width: int, heads: int, causal: int) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
            mask = nn.Transformer.generate_square_subsequent_mask(causal) if causal else None
            self.register_buffer("mask", mask)

        def forward(self, x: Any) -> Any:
            options = {} if self.mask is None else {"attn_mask": self.mask, "is_causal": True}
            return self.attention(x, x, x, need_weights=False, **options)[0]

    class LanguageModel(nn.Module):
        def __init__(self, vocabulary: int, positions: int, width: int, body: Any) -> None:
            super().__init__()
            self.token = nn.Embedding(vocabulary, width)
            self.position = nn.Embedding(positions, width)
            self.body = body

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
            return F.linear(self.body(x), self.token.weight)

    return {c.__name__: c for c in (Residual, Outputs, SelfAttention, LanguageModel)}


class TorchNames:
    """The layers of a kit for a library with torch's names."""

    def __init__(self, nn: Any, F: Any) -> None:
        self.nn, self.F, self.own = nn, F, blocks(nn, F)
        self.relu, self.flatten, self.linear = nn.ReLU, nn.Flatten, nn.Linear
        self.batch_norm, self.layer_norm = nn.BatchNorm2d, nn.LayerNorm
        self.max_pool, self.gelu, self.embedding = nn.MaxPool2d, nn.GELU, nn.Embedding
        self.conv, self.chain = nn.Conv2d, nn.Sequential
        self.language_model, self.attention = self.own["LanguageModel"], self.own["SelfAttention"]

    def average(self) -> Any:
        return self.chain(self.nn.AdaptiveAvgPool2d(1), self.flatten())

    def lstm(self, features: int, hidden: int, layers: int) -> Any:
        return self.own["Outputs"](self.nn.LSTM(features, hidden, layers, batch_first=True))

    def residual(self, branch: Any, shortcut: Any = None) -> Any:
        return self.own["Residual"](branch, shortcut)

    def loss(self, kind: str, out: Any, y: Any) -> Any:
        """The loss of an output in float32."""
        if kind == "mean_square":
            return self.F.mse_loss(out, y)
        return self.F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))

    def count(self, model: Any) -> int:
        return sum(int(np.prod(p.shape)) for p in model.parameters())
