"""What ``fn.checkpoint`` saves: ``python -m benchmarks.memory``.

The temporary memory, as XLA plans it, of the gradients of a ``nn.TransformerEncoder`` of 24 blocks, for
different choices of what is stored for the backward pass, and the time that a step then takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import funcnets as fn
from benchmarks.harness import machine
from funcnets import nn
from funcnets.core.remat import compiler_options

NOT_CHECKPOINTED = object()
CHOICES = {
    "everything (no checkpoint)": NOT_CHECKPOINTED,
    "products with weights": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "the blocks' inputs": None,
}


def encoder(depth: int, width: int, policy: Any) -> nn.Module:
    """A stack of encoder layers, checkpointed one by one."""
    fn.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
    if policy is not NOT_CHECKPOINTED:
        for block in model.layers:
            block.forward = fn.checkpoint(block.forward, policy=policy)
    return model


def gradients(model: nn.Module, x: jax.Array, dtype: Any) -> tuple[Callable[..., Any], Any]:
    """The compiled gradients of a scalar, and their argument."""
    _, apply = fn.functionalize(model)
    params, state = fn.get_variables(model)

    def loss(params: Any) -> jax.Array:
        with fn.autocast(enabled=dtype == jnp.bfloat16):
            out, _ = apply(params, state, x, training=True)
        return (out.astype(jnp.float32) ** 2).mean()

    function = jax.jit(jax.grad(loss), compiler_options=compiler_options())
    return function.lower(params).compile(), params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    options = parser.parse_args()
    print(machine())
    print(
        f"{options.depth} blocks, width {options.width}, batch {options.batch}, length {options.length}"
    )
    x = jax.random.normal(jax.random.key(0), (options.batch, options.length, options.width))
    for dtype in (jnp.float32, jnp.bfloat16):
        print(f"{'stored, ' + jnp.dtype(dtype).name:36s} {'temporary MB':>13s} {'ms a step':>10s}")
        for name, policy in CHOICES.items():
            step, params = gradients(encoder(options.depth, options.width, policy), x, dtype)
            megabytes = step.memory_analysis().temp_size_in_bytes / 1e6  # pyright: ignore
            jax.block_until_ready(step(params))
            times = []
            for _ in range(5):
                start = time.perf_counter()
                jax.block_until_ready(step(params))
                times.append(time.perf_counter() - start)
            print(f"  {name:34s} {megabytes:13.1f} {1e3 * min(times):10.0f}")


if __name__ == "__main__":
    main()
