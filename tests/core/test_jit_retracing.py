"""``fn.jit`` traces as often as needed and no more; the traces are counted."""

from __future__ import annotations

import copy
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import nn
from tests.core.toys import Affine, Average, Chain, Counter, Net, Noise, Traces

X = jnp.ones((2, 3))
MODEL = None


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

    def test_numpy_numbers_are_compared_by_value(self):
        assert self.traces(lambda: setattr(self.model[1], "h", np.float32(2))) == 1
        assert self.traces(lambda: setattr(self.model[1], "h", np.float32(2))) == 0
        assert self.traces(lambda: setattr(self.model[1], "h", np.float32(3))) == 1

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
        assert (
            self.traces(
                lambda: setattr(
                    self.model[0].weight, "data", jnp.ones((3, 3), jnp.bfloat16).astype(jnp.float32)
                )
            )
            == 0
        )
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
        step = fn.jit(
            lambda x: (other(x), apply["layers"][0][0][0].apply({}, state, x, training=True)[1])[1]
        )
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


class TestRebinding:
    """A name that means another module by now: the step uses that one."""

    def test_a_global_and_a_closed_over_variable(self):
        global MODEL
        MODEL = local = Counter()
        by_global, by_closure = fn.jit(lambda x: MODEL(x)), fn.jit(lambda x: local(x))
        by_global(X)
        by_closure(X)
        first = MODEL
        MODEL = local = Counter()
        by_global(X)
        by_closure(X)
        assert (first.count.item(), MODEL.count.item()) == (2, 2)

    def test_without_any_new_module(self):
        """Nothing about any description changes here, only what a name means."""
        models = [Counter(), Counter()]
        model = models[0]
        body = Traces(lambda x: model(x))
        step = fn.jit(body)
        for i in (0, 1, 0, 1, 1):
            model = models[i]
            step(X)
        assert [m.count.item() for m in models] == [2, 3]
        assert body.count == 2

    def test_an_attribute_an_item_and_a_whole_object(self):
        class Trainer:
            def __init__(self):
                self.model, self.others = Counter(), {"x": [Counter()]}

            @fn.jit
            def step(self, x):
                return self.others["x"][0](self.model(x))

        trainer = Trainer()
        outside = fn.jit(lambda x: trainer.model(x))
        for _ in range(3):
            trainer.step(X)
            outside(X)
            old = trainer
            old.model, old.others["x"][0] = Counter(), Counter()
            old.step(X)
            assert (old.model.count.item(), old.others["x"][0].count.item()) == (1, 1)
            trainer = Trainer()
            outside(X)
            assert trainer.model.count.item() == 1

    def test_what_is_not_used_may_change_its_name_freely(self):
        class Trainer:
            def __init__(self):
                self.model, self.best, self.traces = Counter(), None, 0

            @fn.jit
            def step(self, x):
                self.traces += 1
                return self.model(x)

        trainer = Trainer()
        for _ in range(3):
            trainer.step(X)
            trainer.best = copy.deepcopy(trainer.model)
        trainer.step(X)
        assert trainer.traces == 1 and trainer.model.count.item() == 4

    def test_a_closed_over_parameter(self):
        weight = nn.Parameter(jnp.ones(2))
        step = fn.jit(lambda: weight.data * 2)
        assert step().tolist() == [2.0, 2.0]
        weight = nn.Parameter(jnp.full(2, 3.0))
        assert step().tolist() == [6.0, 6.0]

    def test_a_name_that_is_not_there_yet_or_no_more(self):
        step = fn.jit(lambda x: later(x))
        with pytest.raises(NameError):
            step(X)
        later = Counter()
        step(X)
        assert later.count.item() == 1
        del later
        with pytest.raises(NameError):
            step(X)
        later = Counter()
        step(X)
        assert later.count.item() == 1

    def test_models_without_a_name_are_let_go(self):
        model, gone = Counter(), []
        step = fn.jit(lambda x: model(x))
        for _ in range(20):
            step(X)
            gone.append(weakref.ref(model))
            model = Counter()
        step(X)
        gc.collect()
        assert sum(g() is not None for g in gone) <= 10

    def test_an_attribute_that_is_called_like_a_global_is_not_taken_for_it(self):
        global MODEL
        MODEL = Affine(10**6, 10**6)

        class Box:
            MODEL = Counter()

        box = Box()
        fn.jit(lambda x: box.MODEL(x))(X)
        assert box.MODEL.count.item() == 1 and not MODEL.weight.has_value
