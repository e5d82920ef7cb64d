"""From the start of a process to its first result: ``python -m benchmarks.cold_start [rounds] [models...]``.

Every figure is the median over processes that start fresh, in turn, with an empty compilation cache. One kind of
process goes straight to a first output (a compiled forward pass; eager in torch), another one straight to
the end of the first training step (Adam). Where the time goes is read off JAX's own events, which all its
libraries share: tracing, lowering, compiling; what remains of a phase is running and Python around it. ``CPU s`` is the
processor time of the whole process, which a busy machine changes least; ``programs`` says how many were
compiled. The last table is initialisation: seconds beyond the imports, against torch's, and the growth of the process's peak
memory against the parameters' size.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import zoo

MODELS = ["lenet", "blocks24", "resnet50", "gpt2"]
CONTENDERS = [
    "funcnets, stateful",
    "flax.nnx, nnx.jit",
    "equinox, filter_jit",
    "flax.linen, jax.jit",
    "torch eager",
]
IMPORTS = {
    "jax, optax": "jax, optax",
    "funcnets": "funcnets",
    "flax.nnx, optax": "flax.nnx, optax",
    "equinox, optax": "equinox, optax",
    "flax.linen, optax": "flax.linen, optax",
}
EVENTS = {  # the later ones happen within the earlier ones, if a program is compiled while another is traced
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
Interval = tuple[float, float]


def covered(intervals: list[Interval]) -> float:
    """Seconds that lie in at least one of the intervals."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def parts(events: dict[str, list[Interval]], start: float, end: float) -> dict[str, float]:
    """A phase's seconds: tracing, lowering and compiling, each without the next ones, and the rest."""
    found: dict[str, float] = {"total": end - start}
    seen: list[Interval] = []
    before = 0.0
    for name in reversed(EVENTS.values()):
        seen += [(a, b) for a, b in events[name] if start <= b <= end]
        after = covered(seen)
        found[name], before = after - before, after
    found["run"] = found["total"] - before
    return found


def memory() -> tuple[float, float]:
    """Resident memory of this process in MB: now, and at its peak. Zeros where the system does not say."""
    try:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
    except OSError:
        return 0.0, 0.0
    now, peak = (float(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, peak


def child(name: str, model: str, goal: str, started: str) -> None:
    """What a fresh process does: go to the goal, then print the seconds of its phases."""
    kit = zoo.kit(name)
    events: dict[str, list[Interval]] = {part: [] for part in EVENTS.values()}
    if name != "torch eager":
        import jax

        def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
            if event in EVENTS:
                now = time.time()
                events[EVENTS[event]].append((now - duration_secs, now))

        jax.monitoring.register_event_duration_secs_listener(listen)
        jax.devices()  # starting the backend counts as importing
    from benchmarks.zoo.recipes import CASES

    case = CASES[model]
    x, y = case.data()
    before, imported = memory()[0], time.time()
    built = kit.build(case.recipe, x)
    initialised, peak = time.time(), memory()[1]
    call = kit.output(built, x) if goal == "output" else kit.train(built, x, y, case.loss)
    result = call()
    getattr(result, "block_until_ready", lambda: None)()
    end = time.time()
    found = {
        "import": imported - float(started),
        "init": parts(events, imported, initialised),
        "goal": parts(events, initialised, end),
        "total": end - float(started),
        "cpu": time.process_time(),
        "programs": len(events["compile"]),
        "growth": max(0.0, peak - before),
    }
    print(json.dumps(found))


def fresh(*arguments: str) -> str:
    """The last line that a new Python prints, without a compilation cache."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    run = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(f"{arguments}: {run.stderr[-2000:]}")
    return (run.stdout.splitlines() or [""])[-1]


def median(runs: list[dict[str, Any]], *path: str) -> float:
    values = []
    for run in runs:
        value: Any = run
        for key in path:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def imports(rounds: int) -> str:
    times: dict[str, list[float]] = {
        k: [] for k, v in IMPORTS.items() if not zoo.absent(v.split(".")[0].split(",")[0])
    }
    for i in range(rounds + 1):
        for name in times:
            start = time.perf_counter()
            fresh("-c", f"import {IMPORTS[name]}")
            if i:  # the first time reads the files from the disk
                times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    lines = ["Importing, a process each: seconds, ratio to the first"]
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, first))
        lines.append(f"  {name:22s} {statistics.median(values):6.2f} {ratio:6.2f}")
    return "\n".join(lines)


def measure(model: str, rounds: int, names: list[str]) -> str:
    from benchmarks.zoo.recipes import CASES

    case = CASES[model]
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        goal: {name: [] for name in names} for goal in ("output", "step")
    }
    for _ in range(rounds):
        for goal, of_goal in runs.items():
            for name, found in of_goal.items():
                command = ("-m", "benchmarks.cold_start", "--child", name, model, goal)
                found.append(json.loads(fresh(*command, repr(time.time()))))
    lines = [f"{case.title}: seconds from the start of a process, median of {rounds}"]
    for goal, of_goal in runs.items():
        title = "to the first output" if goal == "output" else "to the end of the first step"
        columns = ("total", "import", "init", *EVENTS.values(), "run", "CPU s", "programs")
        head = "".join(f"{column:>9s}" for column in columns)
        lines.append(f"  {title:28s}{head}")
        for name, found in of_goal.items():
            values = [
                median(found, "total"),
                median(found, "import"),
                median(found, "init", "total"),
            ]
            values += [median(found, "goal", part) for part in (*EVENTS.values(), "run")]
            values.append(median(found, "cpu"))
            programs = int(median(found, "programs"))
            lines.append(f"    {name:26s}{''.join(f'{v:9.2f}' for v in values)}{programs:9d}")
    size = 4e-6 * case.parameters
    lines.append(
        f"  {'initialisation':28s}{'seconds':>9s}{'to torch':>9s}{'compile':>9s}{'peak MB':>9s}{'/params':>9s}"
    )
    both = {name: runs["output"][name] + runs["step"][name] for name in names}
    for name, found in both.items():
        seconds, growth = median(found, "init", "total"), median(found, "growth")
        torch = both.get("torch eager")
        ratio = f"{seconds / median(torch, 'init', 'total'):9.2f}" if torch else f"{'-':>9s}"
        compiling = sum(median(found, "init", part) for part in EVENTS.values())
        # A small model's growth is the compiler's, not the arrays'.
        over = f"{growth / size:9.2f}" if size > 50 else f"{'-':>9s}"
        lines.append(f"    {name:26s}{seconds:9.2f}{ratio}{compiling:9.2f}{growth:9.1f}{over}")
    return "\n".join(lines)


def main(rounds: int = 2, *models: str) -> str:
    """Measure the named models (all by default); print the tables as they come and return them."""
    names, missing = zoo.installed(CONTENDERS)
    text = [missing] if missing else []
    text.append(imports(rounds))
    print(*text, sep="\n", flush=True)
    for model in models or MODELS:
        text.append("\n" + measure(model, rounds, names))
        print(text[-1], flush=True)
    return "\n".join(text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 2, *sys.argv[2:])
