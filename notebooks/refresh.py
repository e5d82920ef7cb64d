"""Run the notebooks and store what they show: ``python -m notebooks.refresh [NAME ...]``.

The ``.ipynb`` files are the source: text and code are edited there, in JupyterLab or by hand, and this
program writes the outputs. It runs each notebook from top to bottom in a new kernel of the Python that
runs it, refuses errors, warnings and paths of this machine, and brings ids, counts and metadata into one
form, so that a difference in git is a difference in what a notebook says. ``--check`` runs them, and
writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import sys
import tempfile
import time
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
LONGEST = 60  # lines of text that one cell may show
# What a reader of the notebook has no use for, and what changes from machine to machine.
FOLDERS = {str(HERE.parent), str(pathlib.Path.home()), sys.prefix, tempfile.gettempdir()} - {"/"}
PATHS = re.compile(
    "|".join((*map(re.escape, FOLDERS), "site-packages", r"ipykernel_\d+", "0x[0-9a-f]{8,}"))
)


class OwnKernel(AsyncKernelManager):
    """The kernel of this very Python, whatever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        argv += ["--IPKernelApp.log_level=40"]  # errors only
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def texts(output: dict[str, Any]) -> list[str]:
    """All that an output shows as text."""
    if output["output_type"] == "stream":
        return [output["text"]]
    return [v for k, v in output.get("data", {}).items() if k.startswith("text/")]


def merged(outputs: list[Any]) -> list[Any]:
    """The outputs, with what was printed in several pieces in one: where it breaks is chance."""
    found: list[Any] = []
    for output in outputs:
        last = found[-1] if found else output
        if (
            found
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            found.append(output)
    return found


def normalise(notebook: Any) -> None:
    """One form: ids and counts from the top, no metadata but the kernel's, each thing once."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{i:02d}", nbformat.from_dict({})
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        cell.outputs = merged(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if output.output_type in ("execute_result", "display_data"):
                output.metadata = nbformat.from_dict({})
                if "image/png" in output.data:
                    # "<Figure size 640x480 with 1 Axes>" says nothing beside the figure.
                    output.data.pop("text/plain", None)
                if "image/svg+xml" in output.data:
                    # The same picture, which viewers that do not trust a notebook would take to pieces.
                    output.data.pop("text/html", None)


def complaints(notebook: Any) -> list[str]:
    """What must not be stored."""
    found = []
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            where = f"cell {i}"
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"{where} writes to stderr: {output.text.strip()[:300]}")
            for text in texts(output):
                if match := PATHS.search(text):
                    found.append(f"{where} shows {match[0]!r}")
                if "text/html" not in output.get("data", {}) and text.count("\n") > LONGEST:
                    found.append(f"{where} shows {text.count(chr(10))} lines")
    return found


def run(path: pathlib.Path, timeout: float = 300) -> Any:
    """The notebook with new outputs; an error of a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # a notebook leaves nothing behind
        client = NotebookClient(
            notebook,
            kernel_manager_class=OwnKernel,
            timeout=timeout,
            resources={"metadata": {"path": folder}},
        )
        environment = os.environ | {
            "IPYTHONDIR": folder,  # nobody's own settings
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(HERE.parent),
        }
        client.execute(env=environment)
    normalise(notebook)
    return notebook


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Run notebooks and store their outputs.")
    parser.add_argument("names", nargs="*", help="the beginnings of names, such as 01; all if none")
    parser.add_argument("--check", action="store_true", help="run them, and write nothing")
    options = parser.parse_args(argv)
    paths = [
        p
        for p in sorted(HERE.glob("*.ipynb"))
        if not options.names or p.name.startswith(tuple(options.names))
    ]
    if not paths:
        raise SystemExit(f"no notebook begins with {' or '.join(options.names)}")
    failed = False
    for path in paths:
        start = time.perf_counter()
        notebook = run(path)
        found = complaints(notebook)
        for line in found:
            print(f"{path.name}: {line}", file=sys.stderr)
        failed |= bool(found)
        if not found and not options.check:
            text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True)
            path.write_text(text + "\n", encoding="utf-8")
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")
    if failed:
        raise SystemExit("nothing was stored of the notebooks above")


if __name__ == "__main__":
    main()
