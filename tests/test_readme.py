"""What the README and the documents show runs, prints what they say, and names what is there."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pathlib
import re

import jax
import pytest

import funcnets as fn

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

#: What the short names of the documents stand for.
ROOMS = {
    "fn": "funcnets",
    "funcnets": "funcnets",
    "nn": "funcnets.nn",
    "F": "funcnets.nn.functional",
    "optim": "funcnets.optim",
    "init": "funcnets.init",
    "layers": "funcnets.layers",
    "jax": "jax",
    "jnp": "jax.numpy",
    "optax": "optax",
}
NAME = re.compile(rf"(?<![\w./])({'|'.join(ROOMS)})\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def code(text: str) -> list[str]:
    """Everything that is set as code: fenced blocks and spans."""
    fenced = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [*fenced, *spans]


def run(sources: list[str]) -> dict:
    """The namespace after all blocks, run in order as a reader would: with JAX's usual settings."""
    names: dict = {"__name__": "readme"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for source in sources:
            exec(compile(source, "README.md", "exec"), names)
    return names


def test_the_blocks_of_the_readme_run_in_order(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what they save
    sources = blocks(README, "python")
    assert len(sources) >= 3
    names = run(sources)
    model = names["model"]
    printed = capsys.readouterr().out.strip()
    assert printed == "\n".join(text.strip() for text in blocks(README, "text"))
    assert printed.startswith(str(model))
    # The picture is that of this model.
    picture = fn.draw(model, tuple(names["x"].shape))
    assert picture.svg.strip() in (ROOT / "docs" / "lenet.svg").read_text()
    # Both faces have made a step.
    assert float(names["loss"]) > 0
    assert jax.tree.structure(names["params"]) == jax.tree.structure(fn.get_variables(model)[0])


def test_the_readme_tells_the_truth_about_state_dicts():
    import torch

    names = run(blocks(README, "python")[:1])
    torch_names = {"nn": torch.nn, "F": torch.nn.functional}
    definition = re.search(r"class LeNet.*?\n\n(?=x, y)", blocks(README, "python")[0], re.DOTALL)
    assert definition
    exec(definition.group(), torch_names)  # the same class, in torch
    model, torch_model = names["LeNet"](), torch_names["LeNet"]()
    assert str(model.load_state_dict(torch_model.state_dict())) == "<All keys matched successfully>"
    assert str(model) == str(torch_model)
    params, state = fn.get_variables(model)
    fn.set_variables(model, params, state)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_name_that_is_mentioned_exists(path):
    missing = []
    for piece in code(path.read_text()):
        for room, dotted in NAME.findall(piece):
            found = importlib.import_module(ROOMS[room])
            for part in dotted.split("."):
                if inspect.ismodule(found) and not hasattr(found, part):
                    with contextlib.suppress(ImportError):  # a module that nothing has imported yet
                        importlib.import_module(f"{found.__name__}.{part}")
                if not hasattr(found, part):
                    missing.append(f"{room}.{dotted}")
                    break
                found = getattr(found, part)
    assert not missing


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_every_link_and_every_file_that_is_mentioned_exists(path):
    text = path.read_text()
    links = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)]
    for target in filter(None, links):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target
    for span in re.findall(r"`((?:funcnets|tests|docs|benchmarks|core|nn|optim)/[\w/.]+)`", text):
        assert (ROOT / span).exists() or (ROOT / "funcnets" / span).exists(), span


def test_every_target_that_is_mentioned_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        mentioned = set(
            re.findall(r"\bmake ([a-z]+)\b", "\n".join(code((ROOT / name).read_text())))
        )
        assert mentioned <= targets
