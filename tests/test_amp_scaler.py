"""``GradScaler`` against torch's: scales, skipped steps and states, eagerly and compiled."""

from __future__ import annotations

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import amp, nn, optim
from funcnets.errors import ArgumentError, DTypeError, StateDictError, UnsupportedError

X = np.array([[1.0, -2.0, 0.5], [0.3, 0.7, -1.1]], np.float32)
#: Which iterations see an overflow; with an interval of 3 the scale grows, shrinks and starts anew.
PATTERN = [0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0]


def theirs_and_ours(make=("Adam", {"lr": 0.1}), **options):
    name, kwargs = make
    torch.manual_seed(0)
    theirs, ours = torch.nn.Linear(3, 1), nn.Linear(3, 1)
    ours.load_state_dict(theirs.state_dict())
    return (
        theirs,
        getattr(torch.optim, name)(theirs.parameters(), **kwargs),
        torch.amp.GradScaler("cpu", **options),
        ours,
        getattr(optim, name)(ours.parameters(), **kwargs),
        fn.GradScaler(**options),
    )


def poisoned(bad) -> np.ndarray:
    x = X.copy()
    x[0, 0] = [1.0, np.inf, np.nan][bad]
    return x


def torch_iteration(model, optimizer, scaler, x, clip):
    optimizer.zero_grad()
    scaler.scale((model(torch.from_numpy(x)) ** 2).mean()).backward()
    if clip:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    scaler.step(optimizer)
    scaler.update()


def iteration(model, optimizer, scaler, clip):
    def run(x):
        grads = fn.grad(lambda m: scaler.scale((m(x) ** 2).mean()))(model)
        if clip:
            grads = scaler.unscale_(optimizer, grads)
            norm = optax.tree.norm(grads)
            factor = jnp.minimum(1.0, 0.5 / (norm + 1e-6))
            grads = jax.tree.map(lambda g: g * factor, grads)
        scaler.step(optimizer, grads)
        scaler.update()

    return run


def same(theirs, ours, **tolerance):
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value, err_msg=name, **tolerance)


class TestAgainstTorch:
    @pytest.mark.parametrize("clip", [False, True], ids=["whole", "unscaled and clipped"])
    @pytest.mark.parametrize("compiled", [False, True], ids=["eager", "fn.jit"])
    def test_scales_parameters_and_optimizer_state(self, compiled, clip):
        options = {"init_scale": 64.0, "growth_interval": 3, "backoff_factor": 0.25}
        theirs, their_opt, their_scaler, ours, our_opt, scaler = theirs_and_ours(**options)
        run, traces = iteration(ours, our_opt, scaler, clip), []

        @fn.jit
        def step(x):
            traces.append(1)
            run(x)

        for bad in PATTERN:
            x = poisoned(bad)
            torch_iteration(theirs, their_opt, their_scaler, x, clip)
            (step if compiled else run)(jnp.asarray(x))
            assert scaler.state_dict() == their_scaler.state_dict()
            assert scaler.get_scale() == their_scaler.get_scale()
            same(theirs, ours, rtol=1e-5, atol=1e-6)
        assert len(traces) == compiled
        theirs_steps = their_opt.state_dict()["state"][0]["step"]
        assert float(our_opt.state_dict()["state"][0]["step"]) == theirs_steps == PATTERN.count(0)

    def test_nan_counts_as_inf_and_a_skipped_step_changes_no_bit(self):
        *_, ours, our_opt, scaler = theirs_and_ours()
        run = fn.jit(iteration(ours, our_opt, scaler, False))
        run(jnp.asarray(X))
        for bad in (1, 2):
            cells = [*ours._cells(), *our_opt._cells()]
            before = [np.array(cell.data) for _, cell in cells]
            run(jnp.asarray(poisoned(bad)))
            for old, (name, cell) in zip(before, cells, strict=True):
                np.testing.assert_array_equal(cell.data, old, err_msg=name)
        assert scaler.get_scale() == 2.0**14

    @pytest.mark.parametrize(
        "make", [("SGD", {"lr": 0.1, "momentum": 0.9}), ("AdamW", {"lr": 0.1, "amsgrad": True})]
    )
    def test_the_first_step_skipped(self, make):
        theirs, their_opt, their_scaler, ours, our_opt, scaler = theirs_and_ours(make)
        run = fn.jit(iteration(ours, our_opt, scaler, False))
        for bad in (1, 0, 0):
            torch_iteration(theirs, their_opt, their_scaler, poisoned(bad), False)
            run(jnp.asarray(poisoned(bad)))
            same(theirs, ours, rtol=1e-5, atol=1e-6)

    def test_two_optimizers_of_which_one_is_skipped(self):
        model = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
        opts = [optim.SGD(model[name].parameters(), lr=0.1) for name in "ab"]
        scaler, traces = fn.GradScaler(init_scale=8.0), []

        @fn.jit
        def step(x, y):
            traces.append(1)
            loss = lambda m: (m["a"](x) ** 2).mean() + (m["b"](y) ** 2).mean()  # noqa: E731
            grads = fn.grad(lambda m: scaler.scale(loss(m)))(model)
            # Only its own are unscaled; the other step does that for the others.
            grads = scaler.unscale_(opts[0], grads)
            for optimizer in opts:
                scaler.step(optimizer, grads)
            scaler.update()

        before = {name: np.array(model[name].weight) for name in "ab"}
        expected = fn.grad(lambda b: (b(jnp.asarray(X)) ** 2).mean())(model["b"])["weight"]
        step(jnp.asarray(poisoned(1)), jnp.asarray(X))
        np.testing.assert_array_equal(model["a"].weight, before["a"])
        np.testing.assert_allclose(model["b"].weight, before["b"] - 0.1 * expected, rtol=1e-5)
        assert scaler.get_scale() == 4.0
        step(jnp.asarray(X), jnp.asarray(X))
        assert not (np.array(model["a"].weight) == before["a"]).all()
        assert len(traces) == 2  # the first trace met the second optimizer's record

    def test_unscaled_in_one_compiled_function_and_stepped_in_another(self):
        *_, ours, our_opt, scaler = theirs_and_ours(("SGD", {"lr": 0.1}))
        before = np.array(ours.weight), np.array(ours.bias)
        plain = lambda m: (m(jnp.asarray(X)) ** 2).mean()  # noqa: E731
        expected = before[0] - 0.1 * fn.grad(plain)(ours)["weight"]
        gradients = fn.jit(lambda: fn.grad(lambda m: scaler.scale(plain(m)))(ours))
        unscale = fn.jit(lambda grads: scaler.unscale_(our_opt, grads))
        finish = fn.jit(lambda grads: (scaler.step(our_opt, grads), scaler.update()))
        separately = lambda grads: (scaler.step(our_opt, grads), scaler.update())  # noqa: E731
        combinations = [(unscale, finish), (lambda g: g, finish), (unscale, separately)]
        for first, second in [*combinations, *combinations]:
            ours.weight.data, ours.bias.data = before
            second(first(gradients()))
            np.testing.assert_allclose(ours.weight, expected, rtol=1e-5)

    def test_a_growing_scale_stays_finite(self):
        theirs, their_opt, their_scaler, ours, our_opt, scaler = theirs_and_ours(
            init_scale=2.0**120, growth_factor=2.0**7, growth_interval=1
        )
        for _ in range(2):
            torch_iteration(theirs, their_opt, their_scaler, X * 0, False)
            iteration(ours, our_opt, scaler, False)(jnp.asarray(X * 0))
            assert scaler.state_dict() == their_scaler.state_dict()


def test_small_gradients_survive_float16_and_training_goes_on():
    model, x = nn.Linear(3, 1), jnp.full((4, 3), 1e-4)
    optimizer, scaler = optim.SGD(model.parameters(), lr=1.0), fn.GradScaler()

    def gradient(scaler):
        def loss_fn(m):
            with fn.autocast(jnp.float16):
                return scaler.scale(F.mse_loss(1e-2 * m(x), jnp.zeros((4, 1))))

        grads = fn.grad(loss_fn)(model)
        return scaler.unscale_(optimizer, grads)["weight"]

    model.weight.data, model.bias.data = jnp.full((1, 3), 5e-2), jnp.full(1, 5e-2)
    exact = fn.grad(lambda m: F.mse_loss(1e-2 * m(x), jnp.zeros((4, 1))))(model)["weight"]
    assert (np.array(gradient(fn.GradScaler(enabled=False))) == 0).all()
    np.testing.assert_allclose(gradient(scaler), exact, rtol=1e-2)


class TestScale:
    def test_lists_dtypes_and_new_scales(self):
        scaler = fn.GradScaler(init_scale=4.0)
        one, (two, three) = scaler.scale([jnp.asarray(1.0), (jnp.ones(2), jnp.ones(1))])
        assert (one.tolist(), two.tolist(), three.tolist()) == (4.0, [4.0, 4.0], [4.0])
        half = scaler.scale(jnp.asarray(60000.0, jnp.float16))
        assert half.dtype == jnp.float32 and half == 240000.0 - 240000.0 % 128
        assert scaler.scale(jnp.ones(2, jnp.float16)).dtype == jnp.float16
        scaler.update(7.0)
        assert scaler.get_scale() == 7.0
        fn.jit(lambda s: scaler.update(s))(jnp.asarray(9.0))
        assert scaler.get_scale() == 9.0
        assert fn.jit(lambda: scaler.get_scale() * 2)() == 18.0

    @pytest.mark.parametrize("outputs", [3.0, "loss", jnp.arange(2)])
    def test_other_outputs_are_refused(self, outputs):
        with pytest.raises(DTypeError, match="outputs must be a floating point array"):
            fn.GradScaler().scale(outputs)

    def test_disabled_it_passes_everything_through(self):
        *_, ours, our_opt, _ = theirs_and_ours(("SGD", {"lr": 0.1}))
        scaler = fn.GradScaler(enabled=False)
        assert scaler.scale("anything") == "anything" and scaler.get_scale() == 1.0
        grads = fn.grad(lambda m: m(jnp.asarray(X)).mean())(ours)
        assert scaler.unscale_(our_opt, grads) is grads
        before = np.array(ours.weight)
        scaler.step(our_opt, grads)
        scaler.update()
        np.testing.assert_allclose(ours.weight, before - 0.1 * grads["weight"], rtol=1e-6)
        assert scaler.state_dict() == torch.amp.GradScaler("cpu", enabled=False).state_dict() == {}
        scaler.load_state_dict({})
        assert not scaler.is_enabled() and repr(scaler) == "GradScaler(enabled=False)"


class TestRefusals:
    @pytest.fixture
    def parts(self):
        *_, ours, our_opt, scaler = theirs_and_ours(("SGD", {"lr": 0.1}))
        yield our_opt, scaler, fn.grad(lambda m: m(jnp.asarray(X)).mean())(ours)
        assert ours  # gradients are those of a model that is still there

    @pytest.mark.parametrize("compiled", [False, True], ids=["eager", "fn.jit"])
    def test_an_order_that_cannot_be(self, parts, compiled):
        optimizer, scaler, grads = parts
        if compiled:  # the stages are known again as soon as the trace has written them
            fn.jit(lambda g: self.out_of_order(optimizer, scaler, g))(grads)
        else:
            with pytest.raises(ArgumentError, match="No inf checks were recorded prior to update"):
                scaler.update()
            self.out_of_order(optimizer, scaler, grads)

    @staticmethod
    def out_of_order(optimizer, scaler, grads):
        scaler.update(1.0)
        grads = scaler.unscale_(optimizer, grads)
        with pytest.raises(ArgumentError, match="has already been called on this optimizer since"):
            scaler.unscale_(optimizer, grads)
        scaler.step(optimizer, grads)
        with pytest.raises(ArgumentError, match=r"step\(\) has already been called since the last"):
            scaler.step(optimizer, grads)
        with pytest.raises(ArgumentError, match=r"unscale_\(\) is being called after step\(\)"):
            scaler.unscale_(optimizer, grads)
        scaler.update()
        scaler.step(optimizer, grads)
        scaler.update()

    def test_closures_and_other_optimizers(self, parts):
        optimizer, scaler, grads = parts
        with pytest.raises(UnsupportedError, match="Closure use is not currently supported"):
            scaler.step(optimizer, lambda: None)
        with pytest.raises(DTypeError, match=r"expected an optimizer of funcnets.optim.*optax"):
            scaler.step(optax.sgd(0.1), grads)

    def test_gradients_in_float16(self):
        model = nn.Linear(3, 1).to(jnp.float16)
        optimizer, scaler = optim.SGD(model.parameters()), fn.GradScaler()
        grads = fn.grad(lambda m: m(jnp.asarray(X, jnp.float16)).mean())(model)
        with pytest.raises(DTypeError, match=r"Attempting to unscale FP16 gradients.*float32"):
            scaler.step(optimizer, grads)
        with pytest.raises(DTypeError, match=r"Attempting to unscale FP16 gradients: \['a'\]"):
            amp.unscale({"a": jnp.ones(1, jnp.float16)}, 2.0)

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"growth_factor": 1.0}, ArgumentError, "growth factor must be > 1.0"),
            ({"backoff_factor": 1.0}, ArgumentError, "backoff factor must be < 1.0"),
            ({"growth_interval": 0}, ArgumentError, "growth_interval must be a positive number"),
            ({"growth_interval": 1.5}, ArgumentError, "growth_interval must be a positive number"),
            ({"init_scale": "cuda"}, DTypeError, "init_scale first, and no device"),
        ],
    )
    def test_hyper_parameters(self, options, error, words):
        with pytest.raises(error, match=words):
            fn.GradScaler(**options)

    def test_new_scales(self):
        for bad in ("8", jnp.ones(2)):
            with pytest.raises((DTypeError, TypeError)):
                fn.GradScaler().update(bad)


class TestSaving:
    def test_both_ways_with_torch(self):
        theirs = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=5, growth_factor=3.0)
        ours = fn.GradScaler()
        ours.load_state_dict(theirs.state_dict())
        assert ours.state_dict() == theirs.state_dict()
        assert (ours.get_growth_factor(), ours.get_backoff_factor()) == (3.0, 0.5)
        assert ours.get_growth_interval() == 5
        ours.set_growth_factor(4.0)
        ours.set_backoff_factor(0.25)
        ours.set_growth_interval(7)
        back = torch.amp.GradScaler("cpu")
        back.load_state_dict(ours.state_dict())
        assert back.state_dict() == ours.state_dict()
        assert {type(v) for v in ours.state_dict().values()} == {int, float}

    def test_settings_are_data_of_a_compiled_step(self):
        *_, ours, our_opt, scaler = theirs_and_ours(init_scale=8.0)
        run, traces = iteration(ours, our_opt, scaler, False), []
        step = fn.jit(lambda x: (traces.append(1), run(x))[1])
        step(jnp.asarray(X))
        scaler.set_backoff_factor(0.125)
        step(jnp.asarray(poisoned(1)))
        scaler.load_state_dict({**scaler.state_dict(), "growth_interval": 1, "scale": 16.0})
        step(jnp.asarray(X))
        assert scaler.get_scale() == 32.0 and len(traces) == 1

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
    def test_copies(self, copied):
        *_, ours, our_opt, scaler = theirs_and_ours(init_scale=8.0)
        iteration(ours, our_opt, scaler, False)(jnp.asarray(poisoned(1)))
        twin = copied(scaler)
        assert twin.state_dict() == scaler.state_dict() and repr(twin) == repr(scaler)
        twin.update(3.0)
        assert scaler.get_scale() == 4.0
        iteration(ours, our_opt, twin, False)(jnp.asarray(X))
        grads = fn.grad(lambda m: m(jnp.asarray(X)).mean())(ours)
        scaler.unscale_(our_opt, grads)
        with pytest.raises(ArgumentError, match="at the beginning of an iteration"):
            copied(scaler)

    def test_states_that_are_none(self):
        scaler = fn.GradScaler()
        with pytest.raises(StateDictError, match="source state dict is empty"):
            scaler.load_state_dict({})
        with pytest.raises(StateDictError, match=r"missing \['scale'\], unexpected \['size'\]"):
            scaler.load_state_dict(
                {("size" if k == "scale" else k): v for k, v in scaler.state_dict().items()}
            )
        with pytest.raises(ArgumentError, match="growth factor must be > 1"):
            scaler.load_state_dict({**scaler.state_dict(), "scale": 1.0, "growth_factor": 0.5})
        assert scaler.get_scale() == 65536.0


class TestPureFace:
    def test_a_step_of_plain_arrays(self):
        theirs, their_opt, their_scaler, ours, *_ = theirs_and_ours(
            ("SGD", {"lr": 0.1, "momentum": 0.9}), init_scale=64.0, growth_interval=3
        )
        _, apply = fn.functionalize(ours)
        params, state = fn.get_variables(ours)
        tx = optim.sgd_tx(0.1, momentum=0.9)
        traces = []

        @jax.jit
        def step(params, opt_state, scale, x):
            traces.append(1)

            def loss_fn(params):
                return scale.scale * (apply(params, state, x)[0] ** 2).mean()

            grads, found_inf = amp.unscale(jax.grad(loss_fn)(params), scale.scale)
            updates, new_state = tx.update(grads, opt_state, params)
            new = optax.apply_updates(params, updates), new_state
            kept = amp.keep_if(found_inf, (params, opt_state), new)
            return *kept, amp.update_scale(scale, found_inf, growth_interval=3)

        opt_state, scale = tx.init(params), amp.loss_scale(64.0)
        for bad in PATTERN:
            torch_iteration(theirs, their_opt, their_scaler, poisoned(bad), False)
            params, opt_state, scale = step(params, opt_state, scale, jnp.asarray(poisoned(bad)))
            expected = their_scaler.state_dict()
            assert (float(scale.scale), int(scale.growth_tracker)) == (
                expected["scale"],
                expected["_growth_tracker"],
            )
        np.testing.assert_allclose(params["weight"], theirs.weight.detach(), rtol=1e-5, atol=1e-6)
        assert len(traces) == 1

    def test_dtypes_and_empty_trees(self):
        grads = {"a": jnp.full(2, 3.0, jnp.bfloat16), "b": jnp.full(1, 8 + 4j, jnp.complex64)}
        done, found_inf = amp.unscale(grads, 2.0)
        assert done["a"].dtype == jnp.bfloat16 and done["a"].tolist() == [1.5, 1.5]
        assert done["b"].tolist() == [4 + 2j] and not found_inf
        assert not amp.unscale({}, 2.0)[1]
        assert amp.unscale({"b": jnp.full(1, complex(0, np.inf), jnp.complex64)}, 2.0)[1]
