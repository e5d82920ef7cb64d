"""Every example in a docstring runs, and every public name has the docstring that it needs."""

from __future__ import annotations

import doctest
import enum
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest

import funcnets as fn

MODULES = ["funcnets", *(m.name for m in pkgutil.walk_packages(fn.__path__, "funcnets."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    """With JAX's usual settings, as a reader would run them, but with warnings as errors."""
    module, report = importlib.import_module(name), []
    runner = doctest.DocTestRunner(verbose=False)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for example in doctest.DocTestFinder().find(module):
            runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


# --- the rule for docstrings ------------------------------------------------------------------
#
# 1. Every class and function in the ``__all__`` of any module that is not private has a docstring
#    that begins with a sentence of one line, and so has every public method of such a class.
# 2. What users can name, that is the ``__all__`` of one of the ROOMS, has further
#      Args      with every parameter,
#      Returns   for functions that return something else than one of our own classes,
#      Examples  with >>>;
#    an exception class explains itself in its sentence.
#    A layer has Shape, References and a formula, unless it only moves or keeps numbers; a function
#    of ``functional`` has Raises.
# 3. What is not said there may be said by a class or function to which the docstring refers: as
#    :class:`name` or :func:`name` anywhere, or as ``name`` in the first line or under Returns. So an
#    alias, a pair of ``layers``, or a function that takes another's arguments need not repeat them.

ROOMS = [
    "funcnets",
    "funcnets.amp",
    "funcnets.errors",
    "funcnets.functional",
    "funcnets.init",
    "funcnets.io",
    "funcnets.layers",
    "funcnets.look",
    "funcnets.nn",
    "funcnets.nn.functional",
    "funcnets.nn.init",
    "funcnets.optim",
    "funcnets.optim.lr_scheduler",
    "funcnets.optim.schedules",
    "funcnets.optim.swa_utils",
    "funcnets.train",
    "funcnets.train.metrics",
    *(name for name in MODULES if re.match(r"funcnets\.nn\.utils(\.[a-z]\w*)?$", name)),
]
ROLE = re.compile(r":(?:class|func):`~?([\w.]+)`")
CODE = re.compile(r"``([^`]+)``")
DOTTED = re.compile(r"[A-Za-z_][\w.]*")


def documented(module_name: str) -> dict[str, Any]:
    """The classes and functions in a module's ``__all__``."""
    module = importlib.import_module(module_name)
    found = {name: getattr(module, name, None) for name in getattr(module, "__all__", ())}
    return {f"{module_name}.{name}": value for name, value in found.items() if callable(value)}


def unique(names: list[str]) -> dict[str, Any]:
    seen: dict[int, str] = {}
    for module_name in names:
        for path, value in documented(module_name).items():
            seen.setdefault(id(value), path)
    return {path: resolve(path) for path in seen.values()}


def resolve(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


#: Layers without arithmetic.
PLAIN = re.compile(r"Identity|FromLayer|\w+Pad[123]d")
PRIVATE = re.compile(r"\._|^funcnets\.(errors|examples)")
EVERYTHING = unique([name for name in MODULES if not PRIVATE.search(name)])
PUBLIC = unique(ROOMS)


def is_exception(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def is_layer(path: str, value: Any) -> bool:
    """A public class of ``nn`` that computes something."""
    return (
        path.rpartition(".")[0] == "funcnets.nn"
        and inspect.isclass(value)
        and issubclass(value, fn.Module)
        and value.forward is not fn.Module.forward
    )


def section(doc: str, title: str) -> str:
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)*)", doc, re.MULTILINE)
    return found.group(1) if found else ""


def described(doc: str) -> set[str]:
    """The parameters that an Args section, or Attributes of a tuple, describes."""
    names: set[str] = set()
    for line in (section(doc, "Args") + section(doc, "Attributes")).splitlines():
        entry = re.match(r" {4}(\S[^:]*):( |$)", line)
        if entry:
            names |= {part.strip(" `*\\") for part in re.split(r",| and ", entry.group(1))}
    return names


def referred(value: Any) -> Iterator[Any]:
    """The classes and functions to which a docstring refers."""
    module, doc = inspect.getmodule(value), inspect.getdoc(value) or ""
    names = ROLE.findall(doc)
    for code in CODE.findall(doc.split("\n")[0] + section(doc, "Returns")):
        names += DOTTED.findall(code)
    for name in names:
        for room in (module, *map(importlib.import_module, ROOMS)):
            found: Any = room
            for part in name.removeprefix("funcnets.").split("."):
                found = getattr(found, part, None)
            if callable(found) and found is not value:
                yield found
                break


def say(value: Any, fact: Callable[[str], Any]) -> Iterator[Any]:
    """A fact about the own docstring, and about those to which it refers."""
    yield fact(inspect.getdoc(value) or "")
    for other in referred(value):
        yield fact(inspect.getdoc(other) or "")


def parameters(value: Any) -> set[str]:
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        return set()  # its members are named, not made
    return {
        p.name
        for p in inspect.signature(value).parameters.values()
        if not p.name.startswith("_") and p.name != "self"
    }


def returns_something(value: Any) -> bool:
    annotation = inspect.signature(value).return_annotation
    own = {*(name.rpartition(".")[2] for name in EVERYTHING), "None", "Self"}
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "None")
    return text not in own and annotation is not inspect.Signature.empty


def test_every_public_module_is_among_the_rooms():
    """Or its names would be looked at by nobody."""
    packages = {
        name
        for name in MODULES
        if hasattr(importlib.import_module(name), "__path__") and not re.search(r"\._", name)
    }
    listed = {
        value.__name__
        for room in ROOMS
        for name, value in inspect.getmembers(importlib.import_module(room), inspect.ismodule)
        if name in importlib.import_module(room).__all__
    }
    # The mechanism, which has no names for users but those of funcnets itself; and programs.
    assert (packages | listed) - {*ROOMS} == {"funcnets.core", "funcnets.examples"}


@pytest.mark.parametrize("name", MODULES)
def test_every_name_in_all_is_there_once(name):
    module = importlib.import_module(name)
    names = list(getattr(module, "__all__", ()))
    assert [n for n in names if not hasattr(module, n)] == []
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", EVERYTHING)
def test_it_begins_with_a_sentence(path):
    value = EVERYTHING[path]
    assert value.__doc__, "no docstring"
    first = inspect.cleandoc(value.__doc__).splitlines()[0]
    assert first.rstrip().endswith((".", ":", "::")), f"the first line is no sentence: {first!r}"
    if not inspect.isclass(value):
        return
    for name, member in inspect.getmembers(value):
        if name.startswith("_") or not str(getattr(member, "__module__", "")).startswith(
            "funcnets"
        ):
            continue
        assert inspect.getdoc(member), f"{name} has no docstring"


@pytest.mark.parametrize("path", PUBLIC)
def test_it_says_what_users_need(path):
    value, missing = PUBLIC[path], []
    if is_exception(value):
        return
    unexplained = parameters(value) - set().union(*say(value, described))
    if unexplained:
        missing.append(f"Args: {', '.join(sorted(unexplained))}")
    speaks = inspect.isclass(value) or not returns_something(value)
    if not speaks and not any(say(value, lambda doc: section(doc, "Returns"))):
        missing.append("Returns")
    if not any(say(value, lambda doc: ">>>" in doc)):
        missing.append("Examples")
    titles = []
    if is_layer(path, value):
        titles = ["Shape", "References"]
        if not PLAIN.fullmatch(value.__name__) and not any(
            say(value, lambda doc: ":math:" in doc or ".. math::" in doc)
        ):
            missing.append("a formula")
    elif path.startswith("funcnets.functional.") and not inspect.isclass(value):
        titles = ["Raises"]
    for title in titles:
        if not any(say(value, lambda doc, title=title: section(doc, title))):
            missing.append(title)
    assert not missing
