"""``fn.jit``: what it finds, when it traces, and what it does with arrays; traces are counted."""

from __future__ import annotations

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from funcnets.errors import StateLeakError
from tests.core.toys import Affine, Chain, Counter, Noise, Traces

X = jnp.ones((2, 3))
GLOBAL = Counter()


class TestFinding:
    """Modules come as arguments, by closure, as globals, through objects; one trace is enough."""

    def test_closure(self):
        model = Counter()
        step = fn.jit(lambda x: model(x))
        step(X)
        assert model.count.item() == 1

    @pytest.mark.parametrize(
        "how",
        ["closure", "global", "argument", "keyword", "in a list", "partial", "default", "module"],
    )
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

        @fn.jit(**options)
        def step(x, flag):
            traces.append(flag)
            return x if flag == "same" else -x

        for flag in ("same", "other", "same", "other"):
            assert (call(step, flag) == (1 if flag == "same" else -1)).all()
        assert traces == ["same", "other"]

    @pytest.mark.parametrize(
        "options", [{"static_argnums": 2}, {"static_argnums": -1}, {"static_argnames": "flag"}]
    )
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
        with pytest.raises(
            TypeError, match="a static argument of fn.jit must be hashable, but got list"
        ):
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

    def test_a_parameter_as_argument_and_as_result(self):
        weight = nn.Parameter(jnp.ones(2))

        @fn.jit
        def step(w):
            weight.data = weight.data + w
            return weight

        held = weight.data
        outs = [step(weight), step(held), step(weight.data)]
        assert [o.tolist() for o in outs] == [[2.0, 2.0], [3.0, 3.0], [6.0, 6.0]]
        assert held.tolist() == [1.0, 1.0] and all(isinstance(o, jax.Array) for o in outs)

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

        with pytest.raises(
            StateLeakError, match="create modules, parameters and optimizers outside"
        ):
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
