"""The benchmarks' models, each written once, and the libraries that they are built in.

``recipes`` holds the models: functions of a *kit*. A kit (``in_funcnets``, ``in_torch``, ``in_nnx``, ``in_equinox``,
``in_linen``) says what a convolution, a residual connection, a train step ... is in its library, written as the
library's own documentation writes it and with the layers that the library ships. So every library gets the same
layers in the same order, and what differs between two rows of a table is the library.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

# Name in the tables -> (module of this package, class there, the package that it needs).
KITS = {
    "torch eager": ("in_torch", "Torch", "torch"),
    "torch.compile": ("in_torch", "Compiled", "torch"),
    "funcnets, stateful": ("in_funcnets", "Stateful", "funcnets"),
    "funcnets, pure": ("in_funcnets", "Pure", "funcnets"),
    "flax.nnx, nnx.jit": ("in_nnx", "Nnx", "flax"),
    "equinox, filter_jit": ("in_equinox", "Equinox", "equinox"),
    "flax.linen, jax.jit": ("in_linen", "Linen", "flax"),
}


def kit(name: str, **options: Any) -> Any:
    """The kit of that name; its library is imported now and not before."""
    module, cls, _ = KITS[name]
    return getattr(importlib.import_module(f"benchmarks.zoo.{module}"), cls)(**options)


def absent(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def installed(names: list[str]) -> tuple[list[str], str]:
    """Those of ``names`` whose library can be imported, and a line that names the others (or nothing)."""
    found = [name for name in names if not absent(KITS[name][2])]
    missing = sorted({KITS[name][2] for name in names if name not in found})
    line = f"left out, because not installed: {', '.join(missing)}" if missing else ""
    return found, line
