"""Maximum and sum over windows: ``python -m benchmarks.lowering pool``.

The forms are those of funcnets/functional/_lower_pool.py, between a ReLU and a tanh as in a network,
where the compiler joins what it cannot join in a pooling on its own; ratios are to the native one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from benchmarks.lowering import measure
from funcnets.functional._lower_pool import MAX_FORMS, SUM_FORMS, max_form, sum_form
from funcnets.functional._window import pool_windows

SHAPES = [  # input, kernel, stride, padding
    ((64, 6, 28, 28), 2, 2, 0),  # LeNet
    ((64, 16, 28, 28), 2, 2, 0),
    ((8, 128, 56, 56), 2, 2, 0),  # VGG
    ((8, 64, 32, 32), 3, 2, 1),  # ResNet
    ((8, 64, 28, 28), 3, 1, 1),  # Inception
    ((64, 16, 27, 27), 3, 3, 0),
    ((16, 32, 512), 2, 2, 0),
    ((4, 16, 16, 16, 16), 2, 2, 0),
    ((8, 64, 28, 28), 5, 1, 2),
    ((8, 64, 32, 32), 4, 4, 0),
    ((8, 512, 7, 7), 7, 7, 0),
    ((16, 128, 512), 512, 512, 0),  # sentences
    ((8, 64, 56, 56), 28, 28, 0),
    ((2, 16, 56, 56), 28, 1, 0),
]


def main(rounds: int = 15) -> None:
    for shape, kernel, stride, padding in SHAPES:
        x = jax.random.normal(jax.random.key(0), shape)
        windows = tuple(pool_windows("pool", x, len(shape) - 2, kernel, stride, padding))
        left_out = set() if kernel == stride and padding == 0 else {"blocks"}
        if kernel > 16:
            left_out |= {"slices"}
        for operation, forms, chosen in (
            ("max", MAX_FORMS, max_form(windows, x.dtype)),
            ("sum", SUM_FORMS, sum_form(windows)),
        ):
            possible = {
                name: lambda x, form=form, windows=windows: jnp.tanh(form(jax.nn.relu(x), windows))
                for name, form in forms.items()
                if name not in left_out
            }
            title = f"{operation} {kernel}/{stride}/{padding} {shape}"
            measure.compare(title, possible, (x,), rounds=rounds, chosen=chosen)
