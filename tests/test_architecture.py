"""The invariants of the design that can be read off the files."""

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "funcnets"
FILES = sorted(PACKAGE.rglob("*.py"))
OURS = sorted(
    p
    for d in ("funcnets", "tests", "benchmarks", "notebooks", "docs")
    for p in (ROOT / d).rglob("*.py")
)

# A room may import the rooms of its own rank and below; core's rank lies above functional's, but it
# imports nothing of it.
RANK = {
    "errors": 0,
    "_args": 1,
    "_later": 1,
    "functional": 2,
    "init": 2,
    "core": 3,
    "nn": 4,
    "layers": 5,
    "optim": 5,
    "amp": 5,
    "io": 5,
    "train": 6,
    "look": 7,
    "examples": 9,
}


def room(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path, *, lazy: bool = True) -> list[str]:
    """Every module that a file imports, as a dotted name; ``lazy`` includes those inside functions."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else ast.iter_child_nodes(tree)
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = room(path)
    if own == "__init__":
        return
    assert own in RANK, f"give the room {own} a rank"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "funcnets" or len(parts) == 1:
            # The whole package is imported by its users only.
            assert parts[0] != "funcnets" or own == "examples"
            continue
        other = parts[1]
        if own == "examples":
            continue
        assert RANK[other] <= RANK[own], f"{own} imports {other}"
        if own == "core":
            assert other != "functional"
        if own == "functional":
            assert other in ("functional", "_args", "errors")


def test_modules_import_each_other_without_cycles():
    graph = {}
    for path in FILES:
        dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[dotted] = set()
        for name in imports(path, lazy=False):
            while name and name != "funcnets":
                if (ROOT / (name.replace(".", "/") + ".py")).exists():
                    graph[dotted].add(name)
                    break
                name = name.rpartition(".")[0]
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_only_core_knows_frames():
    allowed = {"core"}
    faces = {PACKAGE / "nn" / "functional.py", PACKAGE / "optim" / "optimizer.py"}
    for path in FILES:
        if room(path) in allowed or path in faces:
            continue
        assert not any("core.frame" in name for name in imports(path)), path


@pytest.mark.parametrize("path", OURS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_longer_than_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


def test_torch_is_imported_by_tests_only():
    for path in FILES:
        if path != PACKAGE / "io" / "torch_files.py":
            assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_no_class_is_written_three_times_for_three_ranks():
    """Classes named ...1d, ...2d, ...3d are a docstring and at most a few lines over a common base."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and re.search(r"[123]d$", node.name):
                body = [
                    n
                    for n in node.body
                    if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
                ]
                statements = sum(1 for n in body for m in ast.walk(n) if isinstance(m, ast.stmt))
                assert statements <= 8, f"{path.name}: {node.name} has {statements} statements"


@pytest.mark.parametrize("package", ["", "look", "nn", "optim"])
def test_names_imported_later_are_those_that_type_checkers_see(package):
    path = PACKAGE / package / "__init__.py"
    dotted = f"funcnets.{package}".rstrip(".")
    (block,) = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.If)]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            home = f"{dotted}.{alias.name}" if node.module == dotted else node.module
            seen[alias.asname or alias.name] = home
    module = importlib.import_module(dotted)
    assert seen == module._HOMES
    assert set(module._HOMES) <= set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{dotted}' has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_import_loads_no_optional_dependency():
    optional = [
        "torch",
        "flax",
        "equinox",
        "sklearn",
        "matplotlib",
        "tqdm",
        "rich",
        "orbax",
        "safetensors",
        "tensorboardX",
        "grain",
        "treescope",
        "pytest",
    ]
    code = f"import funcnets, sys; print([m for m in {optional!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_nothing_tells_where_it_was_made():
    words = re.compile(
        r"/work/|/tmp/|\bsession\b|\.library|pypi\.org|files\.pythonhosted|registry\.npmjs",
        re.IGNORECASE,
    )
    # This file, and one that has a word of the WebDriver protocol.
    exempt = {pathlib.Path(__file__), ROOT / "docs" / "_ext" / "webdriver.py"}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, tracked):
        path = ROOT / name
        if path in exempt or path.suffix in (".png", ".ipynb") or not path.is_file():
            continue
        found = words.search(path.read_text())
        assert not found, f"{name}: {found and found.group()}"
