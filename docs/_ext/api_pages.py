"""``{api}`` blocks: a table of the names, then each with its docstring. ``{pairs}``: what ``layers`` makes of
classes. ``{functions}``: links to all functions. ``{contents}``: the pages named in it, each with its names.

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
import pathlib
import re
from typing import Any

from api_names import BLOCK, listed
from sphinx.application import Sphinx
from sphinx.domains.python._object import PyObject
from sphinx.util.nodes import make_refnode

PAGES = pathlib.Path(__file__).parent.parent / "api"
#: An entry for more than one name, as napoleon writes it.
FIELD = re.compile(r"( *):(param|ivar) ((?:\S+, *|\S+ and )+\S+?):(.*)$")

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


def contents(block: re.Match[str]) -> str:
    """The pages of a family: for each its title, and links to what it shows."""
    lines = ["```{toctree}", ":hidden:", "", *block[1].split(), "```", ""]
    for page in block[1].split():
        text = (PAGES / f"{page}.md").read_text()
        title = re.match(r"# (.*)\n", text)
        assert title, f"{page}.md has no title"
        links = [f"{{py:obj}}`~{module}.{name}`" for module, name in listed(text)]
        lines += [f"**[{title[1]}]({page}.md)**{': ' if links else ''}{', '.join(links)}", ""]
    return "\n".join(lines)


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname.startswith("api/"):
        text = BLOCK.sub(expand, source[0])
        text = re.sub(r"^```\{contents\}\n([\w\n]+)```$", contents, text, flags=re.MULTILINE)
        text = re.sub(r"^```\{pairs\}\n```$", pairs, text, flags=re.MULTILINE)
        source[0] = re.sub(r"^```\{functions\}\n```$", functions, text, flags=re.MULTILINE)


def mend(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """In text for people ``torch.nn.functional.relu_`` is a name, in reStructuredText a link: make it code."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"(?<![`\w.])((?:\w+\.)+\w+_)(?![\w`])", r"``\1``", line)
    lines[:] = parted(lines)


def parted(lines: list[str]) -> list[str]:
    """Several names that are explained together, ``kdim, vdim: ...``, get an entry each, and so each its type."""
    found, i = [], 0
    while i < len(lines):
        field, end = FIELD.match(lines[i]), i + 1
        if field is None:
            found.append(lines[i])
        else:
            while end < len(lines) and re.match(rf"{field[1]} +\S", lines[end]):
                end += 1
            for name in re.split(r",? and |, *", field[3]):
                found += [f"{field[1]}:{field[2]} {name}:{field[4]}", *lines[i + 1 : end]]
        i = end
    return found


def spelled(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str, Any] | None:
    """Defaults are shown as they are written, but a reader does not know our private constants."""
    if signature is None:
        return None
    home = inspect.getmodule(obj)
    return re.sub(r"=(_\w+)", lambda m: f"={getattr(home, m[1])!r}", signature), returns


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
    for field in PyObject.doc_field_types:
        if field.name == "variable":  # Sphinx' word for them is "Variables"
            field.label = "Attributes"
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", mend)
    app.connect("autodoc-process-signature", spelled)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
