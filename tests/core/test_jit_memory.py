"""``fn.jit`` and arrays: what is donated, what failures, interrupts and threads leave behind."""

from __future__ import annotations

import copy
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from tests.core.toys import Affine, Average, Chain, Counter, Noise

X = jnp.ones((2, 3))


class TestMemory:
    """Values of the model are donated; arrays in other hands stay alive and as they are."""

    def test_what_the_user_holds_survives(self):
        mine = jnp.arange(3.0)
        model = nn.Module()
        model.register_buffer("a", mine)
        model.register_buffer("b", nn.Buffer((3,), lambda key, shape, dtype: mine))
        model.c = nn.Buffer(nn.Buffer(mine))

        @fn.jit
        def step():
            for name in "abc":
                setattr(model, name, getattr(model, name) + 1)

        held = [
            model.a.data,
            model.a.detach(),
            np.asarray(model.b),
            model.state_dict()["c"],
            model.c,
        ]
        step()
        held += [model.a.data, *fn.get_variables(model)[1].values()]
        copied = [np.array(h) for h in held]
        twin = copy.deepcopy(model)
        for _ in range(3):
            step()
        assert mine.tolist() == [0.0, 1.0, 2.0] and model.a.tolist() == [4.0, 5.0, 6.0]
        assert twin.b.tolist() == [1.0, 2.0, 3.0]
        for h, c in zip(held, copied, strict=True):
            if h is not model.c:
                np.testing.assert_array_equal(h, c)

    def test_an_array_that_an_initializer_hands_out_survives(self):
        table = jnp.arange(3.0)
        model = nn.Module()
        model.table = nn.Buffer((3,), lambda key, shape, dtype: table)

        @fn.jit
        def step():
            model.table = model.table + 1

        step()
        step()
        assert table.tolist() == [0.0, 1.0, 2.0] and model.table.tolist() == [2.0, 3.0, 4.0]

    def test_outputs_are_nobody_elses_without_compilation_either(self):
        model, x = Counter(), jnp.zeros((), jnp.int32)
        model.twin = Counter()

        def body(x):
            model(x)
            model.twin.count = model.count  # one array in two cells
            return model.count, x

        step = fn.jit(body)
        with jax.disable_jit():
            outs = step(x)
        step(x)
        step(x)
        assert outs[0].item() == 1 and outs[1].item() == 0 and x.item() == 0
        assert model.count.item() == model.twin.count.item() == 3

    def test_old_values_are_really_given_away(self):
        model = Counter()
        step = fn.jit(lambda x: model(x))
        step(X)
        old = model.count._value
        step(X)
        assert old.is_deleted()

    def test_donate_false_keeps_them(self):
        model = Counter()
        step = fn.jit(lambda x: model(x), donate=False)
        step(X)
        old = model.count._value
        step(X)
        assert not old.is_deleted() and old.item() == 1 and model.count.item() == 2

    def test_outputs_are_nobody_elses(self):
        model = Affine(3, 3)
        step = fn.jit(lambda x: (x, x, model.weight, {"w": model.weight}, model.bias, x + 0))
        out = step(X)
        again = step(X)
        assert out[0] is not X and out[2] is not model.weight.data and out[2] is not out[3]["w"]
        for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_returning_what_was_written_and_writing_what_was_given(self):
        class Swap(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("a", jnp.zeros(3))
                self.register_buffer("b", jnp.ones(3))
                self.register_buffer("c", jnp.ones(3))

            def forward(self, x):
                self.a, self.b = self.b, self.a  # exchanged
                self.c = x  # an argument
                return self.a, self.c, x

        model, mine = Swap(), jnp.full(3, 7.0)
        step = fn.jit(lambda x: model(x))
        outs = [step(mine) for _ in range(4)]
        assert mine.tolist() == [7.0] * 3 and model.c.tolist() == [7.0] * 3
        assert [o[0][0].item() for o in outs] == [1.0, 0.0, 1.0, 0.0]
        assert all((o[1] == 7).all() and (o[2] == 7).all() for o in outs)
        assert (model.a.tolist(), model.b.tolist()) == ([0.0] * 3, [1.0] * 3)

    def test_one_array_written_into_two_cells(self):
        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("a", jnp.zeros(3))
                self.register_buffer("b", jnp.zeros(3))

            def forward(self, x):
                self.a = self.b = x * 2
                return self.a

        model = Both()
        step = fn.jit(lambda x: model(x))
        outs = [step(jnp.full(3, float(i))) for i in range(3)]
        assert [o[0].item() for o in outs] == [0.0, 2.0, 4.0]
        assert model.a.tolist() == model.b.tolist() == [4.0] * 3

    def test_a_constant_written_into_a_cell(self):
        table = jnp.arange(3.0)
        model = nn.Module()
        model.register_buffer("a", jnp.zeros(3))
        step = fn.jit(lambda: setattr(model, "a", table))
        for _ in range(3):
            step()
        assert table.tolist() == model.a.tolist() == [0.0, 1.0, 2.0]

    def test_a_cell_that_is_only_read_keeps_its_array(self):
        model = Affine(3, 3)
        before = model.weight.data
        fn.jit(lambda x: model(x))(X)
        assert model.weight.data is before


class TestFailures:
    """An exception leaves everything as it was."""

    def model(self):
        return Chain(Counter(), Noise(), Average(3))

    def test_while_tracing(self):
        model = self.model()
        fails = [True]

        @fn.jit
        def step(x):
            out = model(x)
            if fails:
                raise ValueError("no")
            return out

        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                step(X)
        assert model[0].count.item() == 0 and (model[2].mean == 0).all()
        fails.clear()
        step(X)
        assert model[0].count.item() == 1

    def test_with_a_program_there_already(self):
        model = self.model()
        step = fn.jit(lambda x: model(x))
        step(X)
        before = {k: np.array(v) for k, v in model.state_dict().items()}
        with pytest.raises((TypeError, ValueError)):
            step(jnp.ones((2, 4)))
        with pytest.raises(TypeError):
            step("no array")
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])
        step(X)
        assert model[0].count.item() == 2

    def test_the_random_stream_is_not_advanced(self):
        noise = Noise()
        ones = jnp.ones(64)

        def run(fail):
            fn.manual_seed(1)

            @fn.jit
            def step(x):
                out = noise(x)
                if fail:
                    fail.pop()
                    raise ValueError
                return out

            if fail:
                with pytest.raises(ValueError):
                    step(ones)
            return np.asarray(step(ones))

        np.testing.assert_array_equal(run([]), run([1]))

    def test_at_run_time_it_says_what_was_lost(self):
        model = Counter()

        def bad(x):
            if x[0] < 0:
                raise ValueError("boo")
            return x

        def body(x):
            return jax.pure_callback(bad, jax.ShapeDtypeStruct(x.shape, x.dtype), model(x))

        for donate in (True, False):
            step = fn.jit(body, donate=donate)
            step(jnp.ones(2))
            with pytest.raises(Exception, match="boo") as caught:
                jax.block_until_ready(step(-jnp.ones(2)))
            notes = getattr(caught.value, "__notes__", [])
            assert any("memory had been given away" in n for n in notes) is donate
            if donate:
                with pytest.raises(RuntimeError, match="deleted"):
                    model.count.item()
                model.load_state_dict({"count": np.int32(5)})
            else:
                assert model.count.item() == 6

    def test_debug_nans_loses_nothing(self):
        model = Counter()
        step = fn.jit(lambda x: jnp.log(model(x)))
        with jax.debug_nans(True):
            step(jnp.ones(2))
            with pytest.raises(FloatingPointError):
                step(-jnp.ones(2))
        assert model.count.item() == 1

    def test_an_interrupt_between_steps_loses_nothing(self):
        """A KeyboardInterrupt may arrive at any bytecode: a step is then taken as a whole or not at all."""
        model = Chain(Counter(), Affine(3, 3))
        weight = model[1].weight
        weight.data = jnp.zeros((3, 3))

        @fn.jit
        def step(x):
            weight.data = weight.data + 1
            return model(x)

        step(X)
        done, interrupts = 1, 0
        old = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            for i in range(500):
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + i % 250))
                        for _ in range(20):
                            step(X)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupts += 1
                count = model[0].count._value.item()
                assert done <= count <= done + 20
                assert (np.asarray(weight._value) == count).all()
                done = count
        finally:
            signal.signal(signal.SIGALRM, old)
        assert interrupts > 50


class TestThreads:
    def test_models_side_by_side(self):
        """Each with random layers, which share one stream."""
        import concurrent.futures

        def work(i):
            model = Chain(Counter(), Noise(), Affine(3, 3))
            step = fn.jit(lambda x: model(x))
            for _ in range(30):
                step(X)
                model(X)
            return model[0].count.item()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert list(pool.map(work, range(4))) == [60] * 4

    def test_one_step_from_many_threads(self):
        import concurrent.futures

        model = Chain(Counter(), Affine(3, 3))
        step = fn.jit(lambda x: model(x))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: [step(X) for _ in range(25)], range(4)))
        assert model[0].count.item() == 100

    def test_no_key_is_given_twice(self):
        import concurrent.futures

        noise, ones = Noise(), jnp.ones(256)
        step = fn.jit(lambda x: noise(x))
        step(ones)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            outs = list(
                pool.map(
                    lambda i: np.asarray((noise if i % 2 else step)(ones)).tobytes(), range(100)
                )
            )
        assert len(set(outs)) == 100
