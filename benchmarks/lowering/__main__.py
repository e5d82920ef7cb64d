"""``python -m benchmarks.lowering [ROUNDS] [FAMILY ...]``: the ratios that the tables of forms were made from."""

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


def main(rounds: int, families: list[str]) -> None:
    unknown = [name for name in families if name not in FAMILIES]
    if unknown:
        sys.exit(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    print(harness.machine(), flush=True)
    for name in families or FAMILIES:
        print(f"\n{name}", flush=True)
        importlib.import_module(f"benchmarks.lowering.{name}").main(rounds)


if __name__ == "__main__":
    main(*harness.arguments(7))
