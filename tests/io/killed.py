"""A process that saves and dies: the other end of ``test_save_atomic.py``.

It reads one request a line, forks, and the child carries the request out on plain NumPy arrays (JAX is
imported but has started nothing, so forking is safe). ``step`` kills the child just before its n-th
step that changes the disk; ``loop`` lets it save without end and kills it some time after its first save.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
import warnings

import numpy as np

from funcnets.io import atomic, save, shards, tensor_file, torch_files

KILL = signal.SIGKILL


def state(value: float, count: int, size: int) -> dict[str, np.ndarray]:
    return {f"w{i}": np.full(size, value, np.float32) for i in range(count)}


def die_before(step: int) -> None:
    """Kill this process just before its ``step``-th change of the disk, or half through a file."""
    done = 0

    def counted(original, torn=False):
        def call(*args, **kwargs):
            nonlocal done
            done += 1
            if done == step:
                if torn:
                    original(*args, **kwargs)
                    path = next(a for a in args if isinstance(a, str))
                    os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), KILL)
            return original(*args, **kwargs)

        return call

    for module, name in (
        (os, "fsync"), (os, "replace"), (os, "rename"), (os, "unlink"), (os, "mkdir"), (shutil, "rmtree"),
    ):  # fmt: skip
        setattr(module, name, counted(getattr(module, name)))
    tensor_file.write = shards.tensor_file.write = counted(tensor_file.write, torn=True)
    torch_files.write = counted(torch_files.write, torn=True)
    atomic.Staging.plan = counted(atomic.Staging.plan)


def child(request: dict, ready: int) -> None:
    saved = state(request["value"], request["count"], request["size"])
    limit = request["limit"] or "5GB"
    if request["kind"] == "step":
        die_before(request["step"])
        save(saved, request["path"], max_shard_size=limit)
        return
    while True:
        for array in saved.values():
            array += 1
        save(saved, request["path"], max_shard_size=limit)
        os.write(ready, b".")


def main() -> None:
    warnings.simplefilter("ignore")  # newer Pythons warn of any fork
    print(json.dumps(sorted({"torch", "safetensors"} & set(sys.modules))), flush=True)
    import safetensors.numpy
    import torch

    assert safetensors and torch  # once, and not in every child
    saved, ready = os.pipe()
    for line in sys.stdin:
        request, start = json.loads(line), time.perf_counter()
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(KeyboardInterrupt):
                child(request, ready)
                code = 0
            os._exit(code)
        if request["kind"] == "loop":
            os.read(saved, 1)
            time.sleep((time.perf_counter() - start) * request["wait"])  # in times of one save
            os.kill(pid, KILL)
        _, status = os.waitpid(pid, 0)
        while select.select([saved], [], [], 0)[0]:
            os.read(saved, 1)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
