"""``fn.explain_compiles``: every trace has its reason, and calls without one leave no trace."""

from __future__ import annotations

import sys
import types

import jax
import jax.numpy as jnp
import pytest

import funcnets as fn
from funcnets import nn, optim
from funcnets.core.traces import observers


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.scale = nn.Linear(3, 3), nn.Dropout(0.5), 1.0

    def forward(self, x, n=1):
        return self.drop(self.fc(x)) * n * self.scale


A, B = jnp.ones((2, 3)), jnp.ones((4, 3))


def reasons(call, *args, **kwargs):
    """The reasons of the one trace that a call makes."""
    with fn.explain_compiles() as report:
        call(*args, **kwargs)
    (found,) = report
    return found.reasons


def test_arguments():
    model = Net().eval()
    step = fn.jit(lambda x, y=None, **more: model(x if y is None else x + jax.tree.leaves(y)[0]))
    assert reasons(step, A) == ("the first call",)
    with fn.explain_compiles() as report:
        step(A)
    assert len(report) == 0 and str(report) == "nothing was traced"
    assert reasons(step, B) == ("argument x: float32[2,3] -> float32[4,3]",)
    assert reasons(step, A, {"a": 1.0}) == ("argument y['a'] is new: float32[] (a Python number)",)
    assert reasons(step, A, {"a": jnp.float32(1)}) == (
        "argument y['a']: float32[] (a Python number) -> float32[]",
    )
    assert reasons(step, A, [jnp.float32(1)])[0].startswith("argument y[0] is new")
    assert reasons(step, A, word=B) == ("argument word is new: float32[4,3]",)


def test_modules_and_static_values_as_arguments():
    @fn.jit(static_argnames=("n",))
    def call(model, x, n=2):
        return model(x, n)

    model, other = Net().eval(), Net().eval()
    call(model, A, 3)
    assert reasons(call, model, A, 4) == ("static argument n: 3 -> 4",)
    assert reasons(call, other, A, 4) == ("argument model: another Net",)
    assert reasons(call, other, B, 4) == ("argument x: float32[2,3] -> float32[4,3]",)
    assert reasons(call, other, B) == ("argument n is missing",)


@pytest.fixture(scope="module")
def trained():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @fn.jit
    def step(x):
        loss, grads = fn.value_and_grad(lambda m: (m(x) ** 2).sum())(model)
        optimizer.step(grads)
        return loss

    step(A)
    return model, optimizer, step


def test_structure(trained):
    model, optimizer, step = trained
    model.eval()
    assert reasons(step, A) == ("mode of Net and 2 modules below: training -> evaluation",)
    model.drop.train()
    assert reasons(step, A) == ("mode of 'drop' (Dropout): evaluation -> training",)
    model.eval()
    with fn.explain_compiles() as report:
        step(A)  # goes back to the program that there is
    assert not len(report)
    model.scale, model.drop.p = 2.0, 0.25
    assert reasons(step, A) == (
        "attribute 'scale' of Net: 1.0 -> 2.0",
        "attribute 'p' of 'drop' (Dropout): 0.5 -> 0.25",
    )
    model.fc.bias.requires_grad = False
    assert "'bias' of 'fc' (Linear) is frozen now" in reasons(step, A)
    with model.fc.register_forward_hook(lambda *_: None):
        assert reasons(step, A) == ("the hooks of 'fc' (Linear): there were 0, and now 1",)
    model.drop = nn.Identity()
    assert reasons(step, A) == ("child 'drop' of Net: Dropout -> Identity",)
    optimizer.param_groups[0]["momentum"] = 0.5
    assert reasons(step, A) == ("the options, groups or hooks of SGD changed",)


def test_values_settings_and_names():
    model = nn.Linear(3, 2)
    predict = fn.jit(lambda x: model(x))
    predict(A)
    model.to(jnp.bfloat16)
    low = A.astype(jnp.bfloat16)
    assert reasons(predict, low) == (
        "argument x: float32[2,3] -> bfloat16[2,3]",
        "'weight' of Linear, 'bias' of Linear: float32 -> bfloat16",
    )
    model.float()
    predict(A)
    with fn.autocast(jnp.bfloat16):
        (reason,) = reasons(predict, A)
    assert reason.endswith("fn.autocast is on, in bfloat16")
    model = nn.Linear(3, 2)
    assert reasons(predict, A) == ("'model' stands for another object than before (a Linear)",)


def test_the_report(capsys):
    class Hidden:  # where fn.jit does not look before it traces
        model = nn.Linear(3, 3)

    @fn.jit
    def step(x):
        return Hidden.model(x)

    with fn.explain_compiles(echo=True) as report, fn.explain_compiles() as other:
        step(A)
        step(B)
        with pytest.raises(TypeError):
            fn.jit(lambda x: jnp.dot(x, "no"))(A)
    assert [e.number for e in report] == [1, 2] and list(other) == list(report)
    first = report[0]
    assert first.function.endswith("step") and first.where.startswith("test_explain_compiles.py:")
    assert first.rounds == 2 and ", 2 rounds" in str(first)
    assert capsys.readouterr().err == f"{report}\n"
    assert str(report[1]).endswith("trace 2:\n  argument x: float32[2,3] -> float32[4,3]")
    assert not observers


def test_a_function_of_a_notebook_is_named_by_its_cell(monkeypatch):
    names = types.SimpleNamespace(format_code_name=lambda name: ("Cell", "In[7]"))
    shell = types.SimpleNamespace(compile=names)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    with fn.explain_compiles() as report:
        fn.jit(lambda x: x + 1)(jnp.ones(2))
    assert report[0].where.startswith("In[7]:")
    names.format_code_name = lambda name: None  # not of a cell
    with fn.explain_compiles() as report:
        fn.jit(lambda x: x + 1)(jnp.ones(2))
    assert report[0].where.startswith("test_explain_compiles.py:")
