"""PyTorch's public names, and what each is here. No Sphinx and, but for ``from_torch``, no PyTorch.

``torch_names.json`` beside this file is the list; ``python docs/_ext/torch_names.py`` writes it anew where PyTorch is
installed, and ``tests/test_docs.py`` compares it with the PyTorch that the tests use.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import pathlib
import re
import sys
from typing import Any, NamedTuple

from api_names import listed

HERE = pathlib.Path(__file__).parent
FILE = HERE / "torch_names.json"
ROOT = HERE.parent.parent

#: PyTorch's modules, and ours.
ROOMS = {
    "nn": "funcnets.nn",
    "nn.functional": "funcnets.nn.functional",
    "nn.init": "funcnets.nn.init",
    "nn.utils": "funcnets.nn.utils",
    "nn.utils.rnn": "funcnets.nn.utils.rnn",
    "nn.utils.parametrize": "funcnets.nn.utils.parametrize",
    "nn.utils.parametrizations": "funcnets.nn.utils.parametrizations",
    "optim": "funcnets.optim",
    "optim.lr_scheduler": "funcnets.optim.lr_scheduler",
    "optim.swa_utils": "funcnets.optim.swa_utils",
    "nn.Module": "funcnets.nn.Module",
}

#: What to use in the place of names that are not here, or that only raise and say so.
INSTEAD = {
    "nn.Module.ipu": "JAX places arrays: `to(device)`",
    "nn.Module.mtia": "JAX places arrays: `to(device)`",
    "nn.Module.xpu": "JAX places arrays: `to(device)`",
    "nn.Module.to_empty": "a parameter has no memory until it is read",
}

#: Names that are here in order to raise, and say what to use.
RAISES = {
    "nn.Module.compile": "`fn.jit` on the function that calls the model",
    "nn.Module.register_backward_hook": "change the gradients that `fn.value_and_grad` returns",
    "nn.Module.register_full_backward_hook": "change the gradients that `fn.value_and_grad` returns",
    "nn.Module.register_full_backward_pre_hook": "change the gradients that `fn.value_and_grad` returns",
    "nn.Module.share_memory": "one process with several devices: `model.to(sharding)`",
    "nn.Module.zero_grad": "nothing: gradients are new values each time",
    "nn.utils.convert_conv2d_weight_memory_format": "nothing: XLA chooses the layout",
    "nn.utils.convert_conv3d_weight_memory_format": "nothing: XLA chooses the layout",
    "optim.SparseAdam": "`optim.Adam`",
}

#: Words in ``torch-differences.md`` that are something else there than the name of a row.
OTHERS = {"dropout", "eval", "load_state_dict", "parameters", "state_dict"}


class Row(NamedTuple):
    """A name of PyTorch: ours if there is one, what to use in its place, and the heading of a difference."""

    name: str
    ours: str
    note: str
    differs: str


def from_torch() -> dict[str, list[str]]:
    """The public names of the PyTorch that is installed, by room."""
    import torch

    sys.path.insert(0, str(ROOT))
    from benchmarks.coverage import torch_names

    names = torch_names()
    for room in (
        "nn.utils.rnn",
        "nn.utils.parametrizations",
        "optim.lr_scheduler",
        "optim.swa_utils",
    ):
        module = importlib.import_module(f"torch.{room}")
        names[room] = sorted(n for n in module.__all__ if callable(getattr(module, n)))
    parametrize = importlib.import_module("torch.nn.utils.parametrize")
    names["nn.utils.parametrize"] = sorted(
        n
        for n, v in vars(parametrize).items()
        if not n.startswith("_") and getattr(v, "__module__", "") == parametrize.__name__
    )
    names["optim"] = sorted(
        n for n in torch.optim.__all__ if inspect.isclass(getattr(torch.optim, n, None))
    )
    names["nn"] = sorted(
        {*names["nn"], "Parameter", "Buffer", "UninitializedParameter", "UninitializedBuffer"}
    )
    names["nn.Module"] = sorted(
        n
        for n in vars(torch.nn.Module)
        if not n.startswith("_") and callable(getattr(torch.nn.Module, n))
    )
    return {room: names[room] for room in ROOMS}


def stored() -> dict[str, list[str]]:
    """The list that is kept."""
    return json.loads(FILE.read_text())


@functools.cache
def shown() -> dict[int, str]:
    """Under which name the reference shows a value."""
    pages = [p.read_text() for p in (ROOT / "docs" / "api").glob("*.md")]
    entries = [entry for text in pages for entry in listed(text)]
    return {id(getattr(importlib.import_module(m), n)): f"{m}.{n}" for m, n in entries}


@functools.cache
def anchors() -> dict[str, str]:
    """The words in code of ``torch-differences.md``, with the heading under which they first stand."""
    text = (ROOT / "docs" / "torch-differences.md").read_text()
    found: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        for span in re.findall(r"`([^`]+)`", line.split(" | ")[0]) if line.startswith("|") else ():
            for word in re.findall(r"[A-Za-z_]\w*(?:\*|\b)", span):
                found.setdefault(word, heading)
    return found


def rows(room: str) -> list[Row]:
    """A row for every name of a room."""
    home, _, last = ROOMS[room].rpartition(".")
    ours: Any = getattr(importlib.import_module(home), last)
    words, places = anchors(), shown()
    found = []
    for name in stored()[room]:
        value = getattr(ours, name, None)
        # Methods stand with their class.
        here = places.get(id(value), f"{ROOMS[room]}.{name}") if value is not None else ""
        note = INSTEAD.get(f"{room}.{name}", RAISES.get(f"{room}.{name}", ""))
        differs = "" if name in OTHERS else words.get(name, "")
        found.append(Row(name, here, note, differs))
    return found


if __name__ == "__main__":
    FILE.write_text(json.dumps(from_torch(), indent=1) + "\n")
