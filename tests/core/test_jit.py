"""``fn.jit``: what it finds, when it traces, and what it does with arrays; traces are counted."""

from __future__ import annotations

import copy
import functools
import gc
import signal
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import init, nn
from funcnets.errors import StateLeakError
from tests.core.toys import Affine, Average, Chain, Counter, Net, Noise, Traces

X = jnp.ones((2, 3))
GLOBAL = Counter()


class TestFinding:
    """Modules come as arguments, by closure, as globals, through objects; one trace is enough."""

    def test_closure(self):
        model = Counter()
        step = fn.jit(lambda x: model(x))
        step(X)
        assert model.count.item() == 1

    @pytest.mark.parametrize("how", ["closure", "global", "argument", "keyword", "in a list", "partial", "default", "module"])
    def test_traced_once_and_state_put_back(self, how):
        model, count = (GLOBAL if how == "global" else Counter()), []
        before = model.count.item()
        seen = lambda: count.append(1)  # noqa: E731

        def by_closure(x):
            seen()
            return model(x)

        def by_global(x):
            seen()
            return GLOBAL(x)

        def by_argument(m, x):
            seen()
            return m(x)

        def by_list(ms, x):
            seen()
            return ms[0]["m"](x)

        def by_default(x, m=model):
            seen()
            return m(x)

        model.register_forward_pre_hook(lambda *a: seen() if how == "module" else None)
        step = {
            "closure": fn.jit(by_closure),
            "global": fn.jit(by_global),
            "argument": functools.partial(fn.jit(by_argument), model),
            "keyword": lambda x, j=fn.jit(by_argument): j(m=model, x=x),  # noqa: B008
            "in a list": functools.partial(fn.jit(by_list), [{"m": model}]),
            "partial": fn.jit(functools.partial(by_argument, model)),
            "default": fn.jit(by_default),
            "module": fn.jit(model),
        }[how]
        for _ in range(3):
            np.testing.assert_array_equal(step(X), X)
        assert model.count.item() - before == 3
        assert len(count) == 1

    def test_bound_methods_and_decorated_methods(self):
        class Trainer:
            def __init__(self):
                self.model, self.traces = Counter(), 0

            @fn.jit
            def decorated(self, x):
                self.traces += 1
                return self.model(x)

            def plain(self, x):
                self.traces += 1
                return self.model(x)

        a, b = Trainer(), Trainer()
        for _ in range(2):
            a.decorated(X)
        b.decorated(X)
        assert (a.model.count.item(), b.model.count.item(), a.traces, b.traces) == (2, 1, 1, 1)
        step = fn.jit(a.plain)
        step(X)
        step(X)
        assert (a.model.count.item(), a.traces) == (4, 2)
        assert isinstance(Trainer.decorated, type(step))

    def test_a_method_of_a_module(self):
        class Model(Counter):
            @fn.jit
            def step(self, x):
                return self(x) * 2

        model = Model()
        model.step(X)
        assert (model.step(X) == 2).all() and model.count.item() == 2

    def test_objects_with_methods_are_freed(self):
        class Trainer:
            def __init__(self):
                self.model = Affine(3, 3)

            @fn.jit
            def step(self, x):
                return self.model(x)

        class Model(Affine):
            @fn.jit
            def step(self, x):
                return self(x)

        for make in (Trainer, lambda: Model(3, 3)):
            thing = make()
            thing.step(X)
            gone = weakref.ref(thing)
            del thing
            gc.collect()
            assert gone() is None

    def test_an_object_without_attributes(self):
        class Slotted:
            __slots__ = ("model",)

            @fn.jit
            def step(self, x):
                return self.model(x)

        thing = Slotted()
        thing.model = Counter()
        thing.step(X)
        thing.step(X)
        assert thing.model.count.item() == 2

    def test_hidden_cells_cost_one_more_trace(self):
        class Box:
            pass

        box = Box()
        box.deep = {"er": [Counter()]}
        body = Traces(lambda x: box.deep["er"][0](x))
        step = fn.jit(body)
        step(X)
        step(X)
        assert box.deep["er"][0].count.item() == 2 and body.count == 2

    def test_cells_on_their_own(self):
        weight, total = nn.Parameter(jnp.ones(2)), nn.Buffer((2,))

        @fn.jit
        def step(x):
            total.data = total.data + weight.data * x

        step(2.0)
        step(3.0)
        assert total.tolist() == [5.0, 5.0]

    def test_two_models_share_a_cell(self):
        a, b = Counter(), Counter()
        b.count = a.count
        fn.jit(lambda x: b(a(x)))(X)
        assert a.count.item() == 2 and b.count is a.count

    def test_a_model_without_values_is_drawn_as_ever(self):
        fn.manual_seed(5)
        eager = Affine(3, 2)
        expected = eager(X)
        fn.manual_seed(5)
        model = Affine(3, 2)
        np.testing.assert_allclose(fn.jit(lambda x: model(x))(X), expected, rtol=1e-6)
        np.testing.assert_array_equal(model.weight, eager.weight)


class TestRetracing:
    """As often as needed and no more."""

    def setup_method(self):
        self.model = model = Chain(Affine(3, 3), Average(3), Noise())
        self.body = Traces(lambda x: model(x))
        self.step = fn.jit(self.body)
        self.step(X)
        self.step(X)
        assert self.body.count == 1

    def traces(self, change=lambda: None):
        change()
        self.body.count = 0
        self.step(X)
        self.step(X)
        return self.body.count

    def test_not_without_a_change(self):
        assert self.traces() == 0

    def test_modes_and_back(self):
        assert self.traces(self.model.eval) == 1
        assert self.traces(self.model.train) == 0
        assert self.traces(self.model.eval) == 0
        assert self.traces(self.model[2].train) == 1

    def test_requires_grad_and_back(self):
        assert self.traces(lambda: self.model[0].requires_grad_(False)) == 1
        assert self.traces(lambda: self.model[0].requires_grad_(True)) == 0

    def test_hyper_parameters_and_back(self):
        assert self.traces(lambda: setattr(self.model[1], "momentum", 0.25)) == 1
        assert self.traces(lambda: setattr(self.model[1], "momentum", 0.5)) == 0
        assert self.traces(lambda: setattr(self.model[1], "momentum", 0.5)) == 0
        assert self.traces(lambda: setattr(self.model[1], "new", (1, [2.0, {"a": None}]))) == 1
        assert self.traces(lambda: setattr(self.model[1], "new", (1, [2.0, {"a": None}]))) == 0
        assert self.traces(lambda: setattr(self.model[1], "new", (1, [2.0, {"a": 0}]))) == 1

    def test_equal_numbers_of_other_kinds_are_other_values(self):
        for value in (0.0, -0.0, 0, False, float("nan")):
            assert self.traces(lambda value=value: setattr(self.model[1], "h", value)) == 1
        for value in (-0.0, False, float("nan"), 0):
            assert self.traces(lambda value=value: setattr(self.model[1], "h", value)) == 0

    def test_a_replaced_and_an_added_submodule(self):
        first = self.model[0]
        assert self.traces(lambda: self.model.set_submodule("0", Affine(3, 3))) == 1
        assert self.traces(lambda: self.model.set_submodule("0", first)) == 0
        assert self.traces(lambda: self.model.register_module("3", Counter())) in (1, 2)
        assert self.model[3].count.item() == 2

    def test_a_replaced_parameter_and_buffer(self):
        self.model[0].weight = nn.Parameter(jnp.zeros((3, 3)))
        assert self.traces() in (1, 2)
        self.model[1].mean = nn.Buffer(jnp.ones(3))
        assert self.traces() in (1, 2)

    def test_new_values_do_not(self):
        assert self.traces(lambda: setattr(self.model[0].weight, "data", jnp.ones((3, 3)))) == 0
        assert self.traces(lambda: self.model.load_state_dict(self.model.state_dict())) == 0
        assert self.traces(lambda: nn.init.normal_(self.model[0].weight)) == 0
        assert self.traces(lambda: fn.manual_seed(3)) == 0
        assert self.traces(lambda: self.model(X)) == 0

    def test_new_dtypes_and_shapes_do(self):
        assert self.traces(lambda: setattr(self.model[0].weight, "data", jnp.ones((3, 3), jnp.bfloat16).astype(jnp.float32))) == 0
        self.model[0].weight.data = jnp.ones((3, 3))
        with jax.numpy_dtype_promotion("standard"):
            assert self.traces(self.model[0].bfloat16) == 1

    def test_other_arguments_do(self):
        self.body.count = 0
        self.step(jnp.ones((5, 3)))
        self.step(X)
        self.step(jnp.ones((5, 3)))
        assert self.body.count == 1

    def test_changes_elsewhere_do_not(self):
        other = Net()
        assert self.traces(other.eval) == 0
        assert self.traces(lambda: setattr(other, "x", 1)) == 0

    def test_changes_elsewhere_do_not_retrace_a_function_without_modules(self):
        body = Traces(lambda x: x + 1)
        step = fn.jit(body)
        other = Net()
        for i in range(4):
            other.x = i
            step(X)
        assert body.count == 1

    def test_a_module_whose_hyper_parameter_alone_is_read(self):
        class Box:
            pass

        box, used = Box(), Affine(3, 3)
        box.inner = Box()
        box.inner.settings = Noise(p=2.0)
        step = fn.jit(lambda x: used(x) * 0 + box.inner.settings.p)
        assert (step(X) == 2).all()
        box.inner.settings.p = 3.0
        assert (step(X) == 3).all()

    def test_a_pure_face_inside_is_watched_too(self):
        model = Average(3)
        apply = {"layers": [[[fn.functionalize(model)]]]}
        state = {"mean": jnp.zeros(3)}
        other = Affine(3, 3)
        step = fn.jit(lambda x: (other(x), apply["layers"][0][0][0].apply({}, state, x, training=True)[1])[1])
        assert (step(X)["mean"] == 0.5).all()
        model.momentum = 1.0
        assert (step(X)["mean"] == 1.0).all()

    def test_weakly_typed_values_settle_at_once(self):
        for value in (jnp.asarray(1.0), 1.0):
            model = nn.Module()
            model.register_buffer("total", nn.Buffer(value))
            body = Traces(lambda m: setattr(m, "total", m.total + 1))
            step = fn.jit(body)
            for _ in range(3):
                step(model)
            assert body.count == 1 and model.total.item() == 4.0

    def test_writing_a_python_number(self):
        model = nn.Module()
        model.register_buffer("total", jnp.zeros(()))
        body = Traces(lambda m: setattr(m, "total", 2.5))
        step = fn.jit(body)
        step(model)
        step(model)
        assert body.count == 1 and model.total.item() == 2.5 and not model.total.data.weak_type

    def test_a_buffer_that_follows_the_input(self):
        class Last(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("last", jnp.zeros(1))

            def forward(self, x):
                self.last = x * 2
                return x

        model = Last()
        step = fn.jit(lambda x: model(x))
        for n in (1, 2, 3, 2, 3, 2, 3, 1, 2):
            step(jnp.ones(n, jnp.bfloat16 if n == 3 else jnp.float32))
            assert model.last.shape == model.last.data.shape == (n,)
            assert model.last.dtype == model.last.data.dtype

    def test_failed_traces_leave_no_programs(self):
        model = Affine(3, 3)
        step = fn.jit(lambda x: model(x))
        for _ in range(3):
            with pytest.raises(TypeError):
                step(jnp.ones((2, 7)))
        step(X)
        assert sum(map(len, step._programs.values())) == 1


class TestArguments:
    def test_pytrees_kwargs_and_python_numbers(self):
        body = Traces(lambda a, *rest, k, **more: a["x"] + rest[0] * k + more["z"][1])
        step = fn.jit(body)
        assert step({"x": X}, 2.0, k=3.0, z=(0, 1.0)).tolist() == [[8.0] * 3] * 2
        assert step({"x": X}, 4.0, k=3.0, z=(0, 1.0)).tolist() == [[14.0] * 3] * 2
        assert body.count == 1

    @pytest.mark.parametrize(
        ("options", "call"),
        [
            ({"static_argnums": 1}, lambda f, flag: f(X, flag)),
            ({"static_argnums": (1,)}, lambda f, flag: f(X, flag)),
            ({"static_argnums": -1}, lambda f, flag: f(X, flag)),
            ({"static_argnums": 1}, lambda f, flag: f(X, flag=flag)),
            ({"static_argnames": "flag"}, lambda f, flag: f(X, flag=flag)),
            ({"static_argnames": ["flag"]}, lambda f, flag: f(X, flag)),
            ({"static_argnames": ("flag",)}, lambda f, flag: f(x=X, flag=flag)),
        ],
    )
    def test_static(self, options, call):
        traces = []

        @functools.partial(fn.jit, **options)
        def step(x, flag):
            traces.append(flag)
            return x if flag == "same" else -x

        for flag in ("same", "other", "same", "other"):
            assert (call(step, flag) == (1 if flag == "same" else -1)).all()
        assert traces == ["same", "other"]

    @pytest.mark.parametrize("options", [{"static_argnums": 2}, {"static_argnums": -1}, {"static_argnames": "flag"}])
    def test_static_in_a_method(self, options):
        class Trainer:
            model = Counter()

            @functools.partial(fn.jit, **options)
            def step(self, x, flag):
                return self.model(x) if flag else -x

        trainer = Trainer()
        assert (trainer.step(X, True) == 1).all() and (trainer.step(X, False) == -1).all()

    def test_static_values_are_told_apart_by_type(self):
        step = fn.jit(lambda n: jnp.ones(2) * (10 if isinstance(n, bool) else 20), static_argnums=0)
        assert (step(True) == 10).all() and (step(1) == 20).all()

    def test_unhashable_static(self):
        with pytest.raises(TypeError, match="a static argument of fn.jit must be hashable, but got list"):
            fn.jit(lambda n: n, static_argnums=0)([1])

    def test_a_static_default_may_be_left_out(self):
        step = fn.jit(lambda x, n=2: x * n, static_argnames="n")
        assert (step(X) == 2).all() and (step(X, 5) == 5).all()

    def test_another_module_is_another_program(self):
        body = Traces(lambda m, x: m(x))
        step = fn.jit(body)
        a, b = Counter(), Counter()
        for m in (a, b, a, b):
            step(m, X)
        assert (a.count.item(), b.count.item(), body.count) == (2, 2, 2)

    def test_the_first_batch_is_not_kept_alive(self):
        step, model = fn.jit(lambda m, x: m(x)), Counter()
        batch = jnp.ones((7, 3))
        gone = weakref.ref(batch)
        step(model, batch)
        del batch
        gc.collect()
        assert gone() is None

    def test_typed_keys(self):
        key = jax.random.key(0)
        assert (fn.jit(lambda k: k)(key) == key).all()

    def test_it_is_a_function_with_the_ones_name(self):
        @fn.jit
        def step(x):
            """Doc."""
            return x

        assert (step.__name__, step.__doc__) == ("step", "Doc.")
        assert "_parameters" not in vars(fn.jit(Affine(1, 1)))


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

        held = [model.a.data, model.a.detach(), np.asarray(model.b), model.state_dict()["c"], model.c]
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


class TestNesting:
    def test_a_compiled_function_in_another_runs_as_part_of_it(self):
        model = Counter()
        inner = Traces(lambda x: model(x))
        compiled = fn.jit(inner)
        outer = fn.jit(lambda x: compiled(compiled(x)))
        outer(X)
        outer(X)
        assert model.count.item() == 4
        assert inner.count in (2, 4)

    def test_in_forward_and_in_the_pure_face(self):
        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = Counter()
                self.run = fn.jit(lambda x: self.inner(x))

            def forward(self, x):
                return self.run(x)

        model = Outer()
        model(X)
        assert model.inner.count.item() == 1
        _, state = fn.functionalize(model).apply({}, fn.get_variables(model)[1], X)
        assert state["inner"]["count"].item() == 2 and model.inner.count.item() == 1

    def test_a_module_made_inside_is_refused(self):
        def step(x):
            return Affine(3, 3)(x)

        with pytest.raises(StateLeakError, match="create modules, parameters and optimizers outside"):
            fn.jit(step)(X)

    def test_a_module_without_cells_may_be_made_inside(self):
        assert fn.jit(lambda x: Noise(p=0)(x))(X).shape == (2, 3)

    def test_disable_jit(self):
        model = Chain(Counter(), Affine(3, 3), Noise())
        step = fn.jit(lambda x: model(x).sum())
        with jax.disable_jit():
            step(X)
            step(X)
        step(X)
        assert model[0].count.item() == 3


class TestRandomness:
    def test_the_same_seed_gives_the_same_steps(self):
        def run():
            fn.manual_seed(4)
            noise = Noise()
            step = fn.jit(lambda x: noise(x))
            return [np.asarray(step(jnp.ones(64))) for _ in range(3)]

        first, second = run(), run()
        np.testing.assert_array_equal(first, second)
        assert len({a.tobytes() for a in first}) == 3

    def test_eager_and_compiled_draw_the_same(self):
        noise, ones = Chain(Noise(), Noise()), jnp.ones(64)
        fn.manual_seed(4)
        eager = [noise(ones), noise(ones)]
        fn.manual_seed(4)
        step = fn.jit(lambda x: noise(x))
        np.testing.assert_array_equal([step(ones), step(ones)], eager)

    def test_an_evaluated_model_does_not_advance_the_stream(self):
        noise, ones = Noise(), jnp.ones(64)
        fn.manual_seed(4)
        expected = noise(ones)
        fn.manual_seed(4)
        noise.eval()
        fn.jit(lambda x: noise(x))(ones)
        np.testing.assert_array_equal(noise.train()(ones), expected)


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
            outs = list(pool.map(lambda i: np.asarray((noise if i % 2 else step)(ones)).tobytes(), range(100)))
        assert len(set(outs)) == 100
