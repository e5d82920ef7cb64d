"""Convolutions: ``python -m benchmarks.lowering conv``.

The forms are those of funcnets/functional/_lower_conv.py, for each of the three products; ratios are to the
native one. Where torch is installed, it takes part.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from funcnets.functional._lower_conv import FORMS, MOST_TAPS, Window, output_sizes, plan

PRODUCTS = ("output", "input_gradient", "weight_gradient")

CASES = {  # input, weight, stride, padding, groups
    "LeNet 1": ((64, 1, 32, 32), (6, 1, 5, 5), 1, 0, 1),
    "LeNet 2": ((64, 6, 14, 14), (16, 6, 5, 5), 1, 0, 1),
    "SimpleCNN 1": ((64, 3, 28, 28), (16, 3, 3, 3), 1, 1, 1),
    "SimpleCNN 2": ((64, 16, 14, 14), (32, 16, 3, 3), 1, 1, 1),
    "16 to 16": ((32, 16, 32, 32), (16, 16, 3, 3), 1, 1, 1),
    "3 to 64": ((32, 3, 32, 32), (64, 3, 3, 3), 1, 1, 1),
    "ResNet stem": ((8, 3, 64, 64), (64, 3, 7, 7), 2, 3, 1),
    "ResNet 64": ((8, 64, 16, 16), (64, 64, 3, 3), 1, 1, 1),
    "ResNet 64 to 128": ((8, 64, 16, 16), (128, 64, 3, 3), 2, 1, 1),
    "ResNet 128": ((8, 128, 8, 8), (128, 128, 3, 3), 1, 1, 1),
    "ResNet 256": ((8, 256, 4, 4), (256, 256, 3, 3), 1, 1, 1),
    "ResNet 256 to 512": ((8, 256, 4, 4), (512, 256, 3, 3), 2, 1, 1),
    "ResNet 512": ((8, 512, 2, 2), (512, 512, 3, 3), 1, 1, 1),
    "1x1, large image": ((8, 64, 32, 32), (64, 64, 1, 1), 1, 0, 1),
    "1x1, small image": ((8, 256, 8, 8), (256, 256, 1, 1), 1, 0, 1),
    "1x1, stride 2": ((8, 64, 16, 16), (128, 64, 1, 1), 2, 0, 1),
    "depthwise": ((8, 128, 16, 16), (128, 1, 3, 3), 1, 1, 128),
    "depthwise, stride 2": ((8, 64, 32, 32), (64, 1, 3, 3), 2, 1, 64),
    "depthwise 7x7": ((8, 96, 16, 16), (96, 1, 7, 7), 1, 3, 96),
    "depthwise, one axis": ((32, 64, 128), (64, 1, 7), 1, 3, 64),
    "4 groups of 32": ((8, 128, 28, 28), (128, 32, 3, 3), 1, 1, 4),
    "32 groups of 4": ((8, 128, 16, 16), (128, 4, 3, 3), 1, 1, 32),
    "up by 2x2": ((8, 64, 32, 32), (128, 64, 2, 2), 2, 0, 1),
    "up by 4x4": ((16, 64, 16, 16), (128, 64, 4, 4), 2, 1, 1),
    "up to an image": ((16, 3, 32, 32), (64, 3, 4, 4), 2, 1, 1),
    "patches": ((4, 3, 64, 64), (192, 3, 8, 8), 8, 0, 1),
    "one axis": ((32, 64, 128), (128, 64, 5), 1, 2, 1),
    "three axes": ((4, 16, 8, 16, 16), (32, 16, 3, 3, 3), 1, 1, 1),
    "three axes, 3 channels": ((4, 3, 8, 32, 32), (16, 3, 3, 3, 3), 1, 1, 1),
}


def possible(x: tuple[int, ...], w: tuple[int, ...], window: Window) -> list[tuple[str, ...]]:
    """The forms of the three products that can compute this one in reasonable time."""
    names: list[tuple[str, ...]] = [("native",) * 3]
    axes = len(w) - 2
    if window.groups > 1:
        depthwise = ("taps", "spread", "tap_sums")
        return [*names, depthwise if w[1] == 1 else ("merge", "merge_x", "merge_w")]
    names.append(("last", "last_x", "last_w"))
    if math.prod(w[2:]) <= MOST_TAPS:
        names.append(("columns",) * 3)
    if math.prod(w[2:]) == 1:
        names += [("pixels",) * 3, ("images",) * 3]
    if axes == 2 and window.strides[-1] == 1 and max(w[:2]) <= 64:
        names += [("blocks",) * 3, ("fold",) * 3]
    return names + [("depth", "depth_x", "depth_w")] * (axes == 3)


def call(product: str, form: str, arrays: tuple[jax.Array, ...], window: Window) -> Any:
    """One of the three products as a function without arguments."""
    x, w, y = arrays

    def output(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
        return FORMS[form](x, w, window)

    def input_gradient(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: FORMS[form](x, w, window), x)[1](y)[0]

    def weight_gradient(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vjp(lambda w: FORMS[form](x, w, window), w)[1](y)[0]

    functions = (output, input_gradient, weight_gradient)
    compiled = jax.jit(functions[PRODUCTS.index(product)])
    return lambda: compiled(x, w, y)


def torch_calls(arrays: tuple[jax.Array, ...], window: Window) -> dict[str, Callable[[], Any]]:
    import torch

    x, w, y = (torch.from_numpy(np.array(a)) for a in arrays)
    padding, n = [lo for lo, _ in window.pads], len(window.strides)
    options = (window.strides, padding, window.dilations, False, (0,) * n, window.groups)
    forward, backward = torch.ops.aten.convolution, torch.ops.aten.convolution_backward
    return {
        "output": lambda: forward(x, w, None, *options),
        "input_gradient": lambda: backward(y, x, w, None, *options, (True, False, False)),
        "weight_gradient": lambda: backward(y, x, w, None, *options, (False, True, False)),
    }


def main(rounds: int = 15) -> None:
    for title, (x_shape, w_shape, stride, padding, groups) in CASES.items():
        n = len(w_shape) - 2
        window = Window((stride,) * n, ((padding, padding),) * n, (1,) * n, groups)
        y_shape = (x_shape[0], w_shape[0], *output_sizes(x_shape, w_shape, window))
        keys = jax.random.split(jax.random.key(0), 3)
        arrays = tuple(map(jax.random.normal, keys, (x_shape, w_shape, y_shape)))
        forms = possible(x_shape, w_shape, window)
        chosen = plan(x_shape, w_shape, window) or ("native",) * 3
        for i, (product, star) in enumerate(zip(PRODUCTS, chosen, strict=True)):
            contenders = {names[i]: call(product, names[i], arrays, window) for names in forms}
            if importlib.util.find_spec("torch"):
                contenders["torch"] = torch_calls(arrays, window)[product]
            times = harness.interleave(contenders, rounds=rounds, target=0.005, warmup=2)
            ratios = {
                form: statistics.median(v / f for v, f in zip(ts, times["native"], strict=True))
                for form, ts in times.items()
            }
            ranked = sorted(ratios, key=ratios.__getitem__)
            row = ", ".join(f"{form}{'*' * (form == star)} {ratios[form]:.2f}" for form in ranked)
            native = 1e6 * statistics.median(times["native"])
            print(f"{title} {x_shape} {product} (native {native:.0f} us): {row}", flush=True)
