"""``{api}`` blocks: a table of the names, then each with its docstring. ``{pairs}``: what ``layers`` makes of
classes. ``{functions}``: links to all functions.

    ```{api} funcnets.nn
    Conv1d
    Conv2d
    ```

The names stand in the page, so that a person decides what is shown where and in which order;
``tests/test_docs.py`` finds a public name that stands nowhere.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from api_names import BLOCK
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

#: Classes that are put together of parts, whose methods are shown as their own.
WHOLE = {"funcnets.nn.Module", "funcnets.nn.Parameter"}


def directive(module: str, name: str) -> list[str]:
    """The autodoc directive for one name."""
    value = getattr(importlib.import_module(module), name)
    kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
    if inspect.isclass(value) and issubclass(value, BaseException):
        kind = "exception"
    lines = [f".. auto{kind}:: {module}.{name}"]
    if kind == "class":
        lines.append("   :members:")
    if f"{module}.{name}" in WHOLE:
        lines.append("   :inherited-members:")
    return [*lines, ""]


def expand(block: re.Match[str]) -> str:
    module, names = block[1], block[2].split()
    lines = [".. autosummary::", "   :nosignatures:", ""]
    lines += [*(f"   ~{module}.{name}" for name in names), ""]
    for name in names:
        lines += directive(module, name)
    return "\n".join(["```{eval-rst}", *lines, "```"])


def pairs(_: re.Match[str]) -> str:
    """Every layer of ``funcnets.layers`` that is made of a class: its arguments, and where they are explained."""
    layers, lines = importlib.import_module("funcnets.layers"), []
    for name in layers.__all__:
        if name[0].isupper():
            arguments = [
                p.replace(annotation=p.empty)
                for p in inspect.signature(getattr(layers, name)).parameters.values()
            ]
            signature = inspect.Signature(arguments)
            lines += [
                f".. py:function:: funcnets.layers.{name}{signature}",
                "",
                f"   The pair of :class:`funcnets.nn.{name}`.",
                "",
            ]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def functions(_: re.Match[str]) -> str:
    """A link to every function of ``funcnets.nn.functional``."""
    names = importlib.import_module("funcnets.nn.functional").__all__
    kinds = {name: "class" if name[0].isupper() else "func" for name in names}
    links = [f":{kind}:`~funcnets.nn.functional.{name}`" for name, kind in kinds.items()]
    return "\n".join(["```{eval-rst}", ",\n".join(links), "```"])


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname.startswith("api/"):
        text = BLOCK.sub(expand, source[0])
        text = re.sub(r"^```\{pairs\}\n```$", pairs, text, flags=re.MULTILINE)
        source[0] = re.sub(r"^```\{functions\}\n```$", functions, text, flags=re.MULTILINE)


def mend(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In text for people ``torch.nn.functional.relu_`` is a name, in reStructuredText a link: make it code."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"(?<![`\w.])((?:\w+\.)+\w+_)(?![\w`])", r"``\1``", line)


def resolve(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Modules are pages, and ``funcnets.functional`` is shown under ``funcnets.nn.functional``'s names."""
    target = node.get("reftarget", "")
    if (
        node.get("reftype") == "mod"
        and (page := f"api/{target.rpartition('.')[2]}") in env.found_docs
    ):
        return make_refnode(app.builder, node["refdoc"], page, "", contnode)
    short = re.sub(r"^(funcnets\.)?(functional|F)\.", "", target)
    if node.get("refdomain") == "py" and short != target:
        domain, builder = env.domains["py"], app.builder
        full = f"funcnets.nn.functional.{short}"
        return domain.resolve_xref(env, node["refdoc"], builder, "func", full, node, contnode)
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", mend)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
