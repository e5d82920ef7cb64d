"""The benchmark programs run and compare like with like. Nothing is timed here."""

from __future__ import annotations

import importlib.util
import math

import jax
import pytest

from benchmarks import cold_start, gpu, models_cpu, zoo
from benchmarks.zoo.recipes import CASES

# The peers are optional extras: what is not installed is left out, and its name is in the test's own.
PEERS = {name for name in zoo.KITS if importlib.util.find_spec(zoo.KITS[name][2])}
PLAIN = sorted(PEERS - {"torch.compile"})  # which needs a C++ compiler


@pytest.fixture(autouse=True)
def _as_users_have_it():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize(
    ("model", "name"),
    [("mlp", name) for name in PLAIN]
    + [("simplecnn", name) for name in models_cpu.CONTENDERS if name in PEERS],
)
def test_contenders_train_models_of_equal_size(model, name):
    case = CASES[model]
    (step,) = models_cpu.steps(case, [name]).values()  # refuses another number of parameters
    losses = [float(step()) for _ in range(3)]
    assert all(map(math.isfinite, losses))
    assert losses[2] < losses[0]


def test_the_first_losses_are_those_of_guessing():
    """With ten classes and small logits, cross-entropy starts near log 10 in any library."""
    for name in {"torch eager", "funcnets, stateful"} & PEERS:
        (step,) = models_cpu.steps(CASES["lenet"], [name]).values()
        assert float(step()) == pytest.approx(math.log(10), abs=0.1)


@pytest.mark.parametrize("model", CASES)
def test_the_counts_are_those_of_the_description(model):
    """Building describes; nothing is drawn, so even GPT-2 takes milliseconds."""
    case, kit = CASES[model], zoo.kit("funcnets, stateful")
    assert kit.count(case.recipe(kit)) == case.parameters
    assert models_cpu.NAMES + cold_start.MODELS[1:] == list(CASES)


def test_another_number_of_parameters_is_refused():
    case = CASES["mlp"]._replace(parameters=821)
    with pytest.raises(AssertionError, match="820 parameters, expected 821"):
        models_cpu.steps(case, ["funcnets, pure"])


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(zoo.KITS, "other", ("in_other", "Other", "surely_not_installed"))
    found, line = zoo.installed(["funcnets, pure", "other"])
    assert found == ["funcnets, pure"]
    assert line == "left out, because not installed: surely_not_installed"


def test_gpu_refuses_without_a_gpu(capsys):
    if gpu.has_gpu():
        pytest.fail("these tests run on the CPU")
    assert gpu.main() == gpu.NO_GPU
    assert capsys.readouterr().out == gpu.NO_GPU + "\n"


def test_gpu_runs_on_small_shapes():
    without = sorted(zoo.KITS.keys() - {"funcnets, stateful", "funcnets, pure"})
    text = gpu.main("2", "attention", "--tiny", "--device", "cpu", "--without", *without)
    assert "causal self-attention" in text
    assert "funcnets, stateful" in text


def test_phases_count_no_second_twice():
    events = {"trace": [(0.0, 4.0), (1.0, 2.0)], "lower": [(4.0, 5.0)], "compile": [(3.0, 4.0)]}
    found = cold_start.parts(events, 0.0, 7.0)
    assert found == {"total": 7.0, "trace": 3.0, "lower": 1.0, "compile": 1.0, "run": 2.0}


def test_a_cold_start_is_a_process_of_its_own():
    """One, of the library itself; the phases add up to the whole."""
    import json
    import time

    started = repr(time.time())
    found = json.loads(
        cold_start.fresh(
            "-m", "benchmarks.cold_start", "--child", "funcnets, pure", "mlp", "step", started
        )
    )
    assert found["total"] == pytest.approx(
        found["import"] + found["init"]["total"] + found["goal"]["total"]
    )
    assert found["goal"]["trace"] > 0
    assert found["goal"]["compile"] > 0
