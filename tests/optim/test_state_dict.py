"""``state_dict`` and ``load_state_dict`` of optimizers: exchange with torch, refusals, retracing."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import optim
from funcnets.errors import StateDictError, StateLeakError
from tests.core.toys import stepper
from tests.optim.exchange import CASES, assert_same_state, make, run, to_torch, trained, twin_of
from tests.optim.helpers import Net, TorchNet, assert_equal_torch, pair, snapshot


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", CASES)
def test_exchange_with_torch_both_ways(name):
    ours, theirs = pair()
    optimizer, reference = make(optim, name, ours), make(torch.optim, name, theirs)
    step = stepper(ours, optimizer)
    for model in (ours, theirs):  # so that the step counts differ
        model.body.bias.requires_grad_(False)
    run(2, [step], [(theirs, reference)])
    for model in (ours, theirs):
        model.body.bias.requires_grad_(True)
        model.head.weight.requires_grad_(False)
    run(2, [step], [(theirs, reference)], skip=2)
    for model in (ours, theirs):
        model.head.weight.requires_grad_(True)
    assert_equal_torch(ours, theirs)

    # The same names, shapes, dtypes and numbers, in the same order.
    saved, expected = optimizer.state_dict(), reference.state_dict()
    assert saved["param_groups"] == expected["param_groups"]
    assert list(saved) == list(expected)
    assert list(saved["state"]) == sorted(expected["state"])
    for i, entry in expected["state"].items():
        assert set(saved["state"][i]) == set(entry)
        for key, value in entry.items():
            np.testing.assert_allclose(saved["state"][i][key], value, rtol=1e-6, err_msg=key)
            assert saved["state"][i][key].dtype.name == str(value.dtype)[6:] or key in (
                "eta",
                "mu",
                "mu_product",
            )

    # From torch to a fresh optimizer here, and from here to a fresh one of torch's.
    continued, torch_continued = twin_of(ours), copy.deepcopy(theirs)
    loaded = make(optim, name, continued)
    loaded.load_state_dict(expected)
    torch_loaded = make(torch.optim, name, torch_continued)
    torch_loaded.load_state_dict(to_torch(saved))
    run(
        3,
        [step, stepper(continued, loaded)],
        [(theirs, reference), (torch_continued, torch_loaded)],
        skip=4,
    )
    assert_equal_torch(ours, theirs)
    assert_equal_torch(continued, theirs)
    assert_equal_torch(ours, torch_continued)


@pytest.mark.parametrize("name", CASES)
def test_before_the_first_step(name):
    ours, theirs = pair()
    optimizer, reference = make(optim, name, ours), make(torch.optim, name, theirs)
    expected = reference.state_dict()
    saved = optimizer.state_dict()
    assert saved["param_groups"] == expected["param_groups"]
    assert {i: set(s) for i, s in saved["state"].items()} == {
        i: set(s) for i, s in expected["state"].items()
    }
    optimizer.load_state_dict(expected)
    reference.load_state_dict(to_torch(saved))
    if expected["state"]:
        run(2, [stepper(ours, optimizer)], [(theirs, reference)])
        assert_equal_torch(ours, theirs)


# --- loading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "Adam amsgrad"])
def test_a_run_that_is_taken_up_again_is_bit_for_bit_the_same_and_not_traced_again(name):
    model, optimizer, step = trained(name)
    weights, saved = snapshot(model), optimizer.state_dict()
    run(3, [step], skip=2)
    expected = snapshot(model)
    compiled = step._last.compiled._cache_size()
    for form in ("ours", "numpy", "json"):
        given = saved
        if form != "ours":  # what files make of it
            given = jax.tree.map(lambda a: np.array(a) if isinstance(a, jax.Array) else a, saved)
        if form == "json":
            lists = lambda v: list(v) if isinstance(v, tuple) else v  # noqa: E731
            given = {
                "state": {str(k): v for k, v in given["state"].items()},
                "param_groups": [
                    {k: np.array(v) if k == "lr" else lists(v) for k, v in g.items()}
                    for g in given["param_groups"]
                ],
            }
        model.load_state_dict(weights)
        optimizer.load_state_dict(given)
        assert_same_state(optimizer.state_dict(), saved)
        run(3, [step], skip=2)
        for key, value in snapshot(model).items():
            np.testing.assert_array_equal(value, expected[key], err_msg=key)
    assert len(step.traces) == 1
    assert step._last.compiled._cache_size() == compiled


def test_what_is_saved_and_what_is_loaded_is_nobody_elses():
    model, optimizer, step = trained()
    saved = optimizer.state_dict()
    held = np.array(saved["state"][0]["exp_avg"])
    given = jax.tree.map(lambda a: np.array(a) if isinstance(a, jax.Array) else a, saved)
    optimizer.load_state_dict(given)
    given["state"][0]["exp_avg"][:] = 77.0
    given["param_groups"][0]["lr"] = 77.0
    run(2, [step], skip=2)
    np.testing.assert_array_equal(saved["state"][0]["exp_avg"], held)
    assert optimizer.param_groups[0]["lr"] == 0.03
    assert float(jnp.abs(optimizer.state[model.body.weight]["exp_avg"]).max()) < 77.0


def test_options_and_learning_rates_come_back():
    _, optimizer, step = trained("SGD")
    saved = optimizer.state_dict()
    group = optimizer.param_groups[0]
    group.update(lr=0.5, momentum=0.1, weight_decay=0.3, initial_lr=0.03, max_lr=1.0)
    changed = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.9, 0)
    run(1, [step])
    assert len(step.traces) == 1  # back to the program that was
    optimizer.load_state_dict(changed)
    assert (group["lr"], group["momentum"], group["max_lr"]) == (0.5, 0.1, 1.0)
    _, fresh, _ = trained("SGD", steps=0)
    fresh.load_state_dict(changed)
    assert fresh.param_groups[0]["initial_lr"] == 0.03
    assert fresh.state_dict()["param_groups"] == changed["param_groups"]


def test_loaded_moments_are_where_their_parameters_are():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    model, optimizer, _ = trained()
    saved = jax.tree.map(
        lambda a: np.array(a) if isinstance(a, jax.Array) else a, optimizer.state_dict()
    )
    model.body.weight.convert(device=rows)
    fresh = make(optim, "Adam", model)
    fresh.load_state_dict(saved)
    moment = fresh.state[model.body.weight]["exp_avg"]
    assert moment.sharding.is_equivalent_to(rows, 2)
    np.testing.assert_array_equal(moment, saved["state"][0]["exp_avg"])


def test_an_empty_state_begins_anew():
    model, optimizer, step = trained()
    fresh = make(optim, "Adam", model)
    optimizer.load_state_dict(fresh.state_dict())
    assert optimizer.state_dict()["state"] == {}
    twin = twin_of(model)
    other = stepper(twin, make(optim, "Adam", twin))
    run(2, [step, other])
    for key, value in snapshot(model).items():
        np.testing.assert_allclose(value, snapshot(twin)[key], rtol=1e-12)
    assert len(step.traces) == 1


def test_parameters_that_stepped_differently_are_other_memories_after_loading():
    """The program is traced again then, and only then."""
    _, optimizer, step = trained()
    saved = optimizer.state_dict()
    saved["state"][3]["step"] = jnp.asarray(7.0, jnp.float32)
    del saved["state"][0]
    optimizer.load_state_dict(saved)
    run(1, [step])
    steps = [float(s["step"]) for s in optimizer.state_dict()["state"].values()]
    assert steps == [1.0, 3.0, 3.0, 8.0]
    assert len(step.traces) == 2
    optimizer.load_state_dict(optimizer.state_dict())
    run(1, [step])
    assert len(step.traces) == 2


def test_a_state_that_the_options_have_no_use_for_is_kept():
    """torch's SGD keeps a momentum buffer when the momentum becomes zero, and goes on with it later."""
    ours, theirs = pair()
    optimizer, reference = make(optim, "SGD", ours), make(torch.optim, "SGD", theirs)
    step = stepper(ours, optimizer)
    run(2, [step], [(theirs, reference)])
    for group in reference.param_groups:
        group["momentum"] = 0.0
    fresh = twin_of(ours)
    loaded = make(optim, "SGD", fresh)
    loaded.load_state_dict(reference.state_dict())
    assert set(loaded.state_dict()["state"][0]) == {"momentum_buffer"}
    other = stepper(fresh, loaded)
    run(2, [other], [(theirs, reference)], skip=2)
    for group in [*reference.param_groups, *loaded.param_groups]:
        group["momentum"] = 0.9
    run(2, [other], [(theirs, reference)], skip=4)
    assert_equal_torch(fresh, theirs)


def test_names_of_the_parameters():
    model = Net(jnp.float64)
    optimizer = optim.Adam(model.named_parameters(), lr=0.1)
    reference = torch.optim.Adam(TorchNet().double().named_parameters(), lr=0.1)
    saved = optimizer.state_dict()
    assert saved == reference.state_dict()
    optimizer.load_state_dict(reference.state_dict())
    names = saved["param_groups"][0]["param_names"]
    renamed = [f"module.{name}" for name in names]
    saved["param_groups"][0]["param_names"] = renamed
    optimizer.load_state_dict(saved)  # names do not matter, as in torch, and ours stay
    assert optimizer.param_groups[0]["param_names"] == names
    saved["param_groups"][0]["param_names"] = names[::-1]
    with pytest.raises(StateDictError, match="another order"):
        optimizer.load_state_dict(saved)
    del saved["param_groups"][0]["param_names"]
    optimizer.load_state_dict(saved)


# --- any optax transformation -----------------------------------------------------------------


def test_a_transformation_of_optax_is_saved_by_path():
    def build(model):
        tx = optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.adam(optax.linear_schedule(0.1, 0.0, 9)),
            optax.add_noise(0.01, 0.5, jax.random.key(3)),
        )
        return optim.Optimizer(model.parameters(), tx)

    model = Net(jnp.float64)
    optimizer = build(model)
    step = stepper(model, optimizer)
    with jax.numpy_dtype_promotion("standard"):
        run(2, [step])
        saved = optimizer.state_dict()
        assert {"1.0.mu", "1.0.nu", "1.0.count", "1.1.count"} < set(saved["state"][0])
        twin = twin_of(model)
        other = build(twin)
        arrays = lambda a: (  # noqa: E731
            np.array(jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a)
        )
        other.load_state_dict(
            jax.tree.map(lambda a: arrays(a) if isinstance(a, jax.Array) else a, saved)
        )
        run(2, [step, stepper(twin, other)], skip=2)
    for key, value in snapshot(model).items():
        np.testing.assert_array_equal(value, snapshot(twin)[key])


# --- refusals ---------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_said_at_once_and_nothing_is_changed():
    _, optimizer, step = trained("Adam")
    saved = optimizer.state_dict()
    for entry in saved["state"].values():
        entry.pop("exp_avg_sq")
    saved["state"][0]["momentum_buffer"] = jnp.ones(3)
    saved["state"][1]["exp_avg"] = jnp.ones(7)
    saved["state"][2]["exp_avg"] = "text"
    saved["state"][3]["exp_avg"] = jnp.ones(2, complex)
    saved["state"][9] = {"step": 1.0}
    saved["param_groups"][0]["momentum"] = 0.9
    saved["param_groups"][0]["lr"] = 0.7
    saved["param_groups"][1]["lr"] = -1.0
    before = optimizer.state_dict()
    with pytest.raises(StateDictError) as caught:
        optimizer.load_state_dict(saved)
    assert isinstance(caught.value, ValueError)
    text = str(caught.value)
    for words in (
        "missing exp_avg_sq",
        "unknown momentum_buffer",
        "parameter 1 of group 0: exp_avg must have shape (4,), but has (7,)",
        "parameter 0 of group 1: exp_avg must be an array, but is 'text'",
        "exp_avg must be float64, but is complex128",
        "state for 9, which no group holds",
        "the option 'momentum', which Adam does not have",
        "Invalid learning rate: -1.0",
        "Nothing was changed",
    ):
        assert words in text, words
    assert_same_state(optimizer.state_dict(), before)
    assert optimizer.param_groups[0]["lr"] == 0.03
    run(1, [step])
    assert len(step.traces) == 1


def test_other_groups_are_refused_in_torchs_words():
    other = {
        "number of parameter groups": lambda m: [{"params": m.parameters()}],
        "doesn't match the size": lambda m: [
            {"params": m.body.parameters()},
            {"params": [m.head.weight]},
        ],
    }
    for words, groups in other.items():
        ours, theirs = pair()
        saved = optim.SGD(groups(ours), lr=0.1).state_dict()
        with pytest.raises(ValueError, match=words) as expected:
            make(torch.optim, "SGD plain", theirs).load_state_dict(saved)
        with pytest.raises(ValueError) as caught:
            make(optim, "SGD plain", ours).load_state_dict(saved)
        assert str(expected.value) in str(caught.value)


def test_what_is_no_state_dict():
    _, optimizer, _ = trained("Adam", steps=0)
    for given in ({}, {"state": {}}, None, [1], {"state": {}, "param_groups": [1, 2]}):
        with pytest.raises(StateDictError):
            optimizer.load_state_dict(given)

    @fn.jit
    def inside():
        optimizer.load_state_dict(optimizer.state_dict())

    with pytest.raises(StateLeakError, match="do it outside"):
        inside()
