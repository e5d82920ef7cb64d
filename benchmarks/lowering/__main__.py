"""``python -m benchmarks.lowering FAMILY [ROUNDS]``: the ratios that a table of lowerings was made from."""

from __future__ import annotations

import importlib
import pathlib
import sys

from benchmarks import harness

FAMILIES = sorted(
    path.stem
    for path in pathlib.Path(__file__).parent.glob("*.py")
    if not path.stem.startswith("_") and path.stem != "measure"
)


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] not in FAMILIES:
        sys.exit(f"usage: python -m benchmarks.lowering FAMILY [ROUNDS]; families: {FAMILIES}")
    print(harness.machine(), flush=True)
    importlib.import_module(f"benchmarks.lowering.{arguments[0]}").main(*map(int, arguments[1:2]))


if __name__ == "__main__":
    main(sys.argv[1:])
