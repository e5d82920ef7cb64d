"""All benchmarks, one after the other: ``python -m benchmarks [name ...]``.

Each runs in a process of its own. What they print goes to ``benchmarks/results.md``, under a heading for
each file, with a description of the machine; results of benchmarks that were not run this time stay.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.md"
#: In this order: what a reader asks first comes first.
QUESTIONS = {
    "overhead": "What the framework costs around a model",
    "eager": "Calls that nothing compiles",
    "models_cpu": "Train steps of whole models on a CPU",
    "cold_start": "From the start of a process to the first step",
    "depth": "Many equal blocks: nn.Stack",
    "initialisation": "The first values of a transformer",
    "memory": "What fn.checkpoint saves",
    "summary": "Summaries of large models",
    "lowering": "The forms of an operation on a CPU",
    "gpu": "On a GPU",
}
TITLE = "# Benchmarks\n\nWritten by `python -m benchmarks`. Only the ratios within a table are comparable.\n"


def installed() -> str:
    """The versions of what was measured."""
    found = []
    for name in ("funcnets", "jax", "jaxlib", "optax", "torch", "flax", "equinox"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def machine() -> str:
    """The processor, its cores and memory, the system and Python."""
    model = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = re.findall(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE)
        model = names[0] if names else model
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = f", {size / 2**30:.0f} GiB"
    return f"{model}, {os.cpu_count()} cores{memory}; {platform.system()}, Python {platform.python_version()}"


def sections() -> dict[str, str]:
    """What the file has so far, by the name of the benchmark."""
    if not RESULTS.exists():
        return {}
    parts = re.split(r"^## (\w+): .*\n", RESULTS.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def run(name: str) -> str:
    """The section of a benchmark: when and where it ran, and what it printed."""
    print(f"\n=== benchmarks.{name}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait():
        lines.append(f"(ended with the exit status {process.returncode})\n")
    today = datetime.date.today().isoformat()
    return f"\n{today}; {machine()}\n{installed()}\n\n```\n{''.join(lines).strip()}\n```\n\n"


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
        return 2
    results = sections()
    for name in names or QUESTIONS:
        results[name] = run(name)
        # After each, so that nothing is lost when a later one is interrupted.
        found = [f"## {n}: {q}\n{results[n]}" for n, q in QUESTIONS.items() if n in results]
        RESULTS.write_text(f"{TITLE}\n{''.join(found).rstrip()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
