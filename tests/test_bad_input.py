"""Bad input: one clear exception, with where, what was expected, what came and what to do; nothing changed.

Each row says what a PyTorch or JAX user would catch (the built-in) besides our own class.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import errors, nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.body(x))


def text(error: BaseException) -> str:
    """The message and the notes, as a traceback shows them."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


WRONG_CALLS = {
    "width": (
        lambda: Net()(jnp.ones((2, 5))),
        RuntimeError,
        ["'body.0' of Net", "Linear(in_features=4", "float32[2, 5]", "4"],
    ),
    "rank": (
        lambda: nn.Conv2d(3, 4, 3)(jnp.ones((8, 8))),
        RuntimeError,
        ["3D", "4D", "float32[8, 8]", "Conv2d(3, 4"],
    ),
    "batch norm rank": (
        lambda: nn.BatchNorm2d(3)(jnp.ones((2, 3))),
        ValueError,
        ["4D", "float32[2, 3]"],
    ),
    "integers": (
        lambda: nn.Linear(4, 3)(jnp.ones((2, 4), jnp.int32)),
        RuntimeError,
        ["int32[2, 4]", "astype"],
    ),
    "not an array": (lambda: nn.Linear(4, 3)([1.0, 2.0]), TypeError, ["array", "jnp.asarray"]),
    "floats as indices": (
        lambda: nn.Embedding(5, 2)(jnp.ones(3)),
        RuntimeError,
        ["integer", "float32[3]"],
    ),
    "image too small": (
        lambda: nn.Conv2d(1, 1, 5)(jnp.ones((1, 1, 3, 3))),
        RuntimeError,
        ["5", "3"],
    ),
    "classes": (
        lambda: F.cross_entropy(jnp.ones((4, 3)), jnp.zeros(5, jnp.int32)),
        ValueError,
        ["4", "5"],
    ),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_wrong_arrays(name):
    call, builtin, words = WRONG_CALLS[name]
    with pytest.raises(errors.FuncnetsError) as caught:
        call()
    assert isinstance(caught.value, builtin)
    for word in words:
        assert word in text(caught.value), f"{word!r} is not in: {text(caught.value)}"


WRONG_OPTIONS = {
    "padding mode": (
        lambda: nn.Conv2d(1, 1, 3, padding_mode="mirror"),
        ["padding_mode", "'mirror'", "'reflect'"],
    ),
    "negative size": (lambda: nn.Linear(-1, 3), ["in_features", "-1"]),
    "zero kernel": (lambda: nn.Conv2d(1, 1, 0), ["kernel_size", "0"]),
    "groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), ["in_channels", "groups"]),
    "probability": (lambda: nn.Dropout(1.5), ["1.5"]),
    "reduction": (
        lambda: F.mse_loss(jnp.ones(2), jnp.ones(2), reduction="avg"),
        ["reduction", "avg"],
    ),
    "heads": (lambda: nn.MultiheadAttention(10, 3), ["embed_dim", "num_heads"]),
    "proj_size": (lambda: nn.LSTM(3, 4, proj_size=5), ["proj_size"]),
    "float size": (lambda: nn.Linear(2.5, 3), ["in_features", "2.5"]),
}


@pytest.mark.parametrize("name", WRONG_OPTIONS)
def test_wrong_options(name):
    make, words = WRONG_OPTIONS[name]
    with pytest.raises(errors.FuncnetsError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def snapshot(model):
    return {name: np.array(value) for name, value in model.state_dict().items()}


def unchanged(model, before):
    after = snapshot(model)
    assert after.keys() == before.keys()
    return all(np.array_equal(after[name], before[name]) for name in before)


def test_a_state_dict_of_another_model_lists_everything_and_changes_nothing():
    model = Net()
    before = snapshot(model)
    other = nn.Sequential(nn.Linear(4, 7), nn.Linear(7, 2)).state_dict()
    other["head.weight"] = jnp.zeros((9, 9))
    other["body.0.bias"] = jnp.full(3, 5.0)  # fits, and must not be loaded all the same
    with pytest.raises(RuntimeError, match="Missing key") as caught:
        model.load_state_dict(other)
    message = str(caught.value)
    assert '"body.0.weight"' in message
    assert 'Unexpected key(s) in state_dict: "0.weight", "0.bias", "1.weight", "1.bias"' in message
    assert "size mismatch for head.weight" in message
    assert unchanged(model, before)


def test_params_of_another_model():
    _, apply = fn.functionalize(Net())
    params, state = fn.functionalize(nn.Linear(4, 3)).init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"missing: body.0.weight") as caught:
        apply(params, state, jnp.ones((2, 4)), training=False)
    assert "unknown: weight, bias" in str(caught.value)


def test_training_and_rng_where_they_matter():
    init, apply = fn.functionalize(Net())
    variables = init(jax.random.key(0))
    x = jnp.ones((2, 4))
    with pytest.raises(errors.ModeError, match="training=True") as caught:
        apply(*variables, x, rng=jax.random.key(1))
    assert "'body.1' of Net" in text(caught.value)
    with pytest.raises(errors.RngError, match=r"rng=jax\.random\.key") as caught:
        apply(*variables, x, training=True)
    assert "'body.2' of Net" in text(caught.value)
    out, _ = apply(*variables, x, training=False)  # neither matters here
    assert out.shape == (2, 2)


def test_an_old_style_key_is_refused_with_the_remedy():
    init, apply = fn.functionalize(Net())
    with pytest.raises(errors.RngError, match="wrap_key_data"):
        init(jax.random.PRNGKey(0))
    variables = init(jax.random.key(0))
    with pytest.raises(errors.RngError, match="wrap_key_data"):
        apply(*variables, jnp.ones((2, 4)), rng=jax.random.PRNGKey(0), training=True)


def test_a_model_in_training_mode_under_plain_jit():
    model = Net()
    before = snapshot(model)
    with pytest.raises(errors.StateLeakError, match=r"fn\.jit") as caught:
        jax.jit(lambda x: model(x))(jnp.ones((2, 4)))
    assert "'body.1' of Net" in text(caught.value)
    assert unchanged(model, before)
    model.eval()
    assert jax.jit(lambda x: model(x))(jnp.ones((2, 4))).shape == (2, 2)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad])
def test_an_assignment_that_would_leak_a_tracer(transform):
    linear = nn.Linear(2, 2)
    linear.register_buffer("seen", jnp.zeros(()))
    before = snapshot(linear)

    def into_parameter(x):
        linear.bias.data = jnp.stack([x, x])
        return x

    def into_buffer(x):
        linear.seen = x
        return x

    def into_attribute(x):
        linear.last_input = x
        return x

    x = jnp.ones(2) if transform is jax.vmap else 1.0
    for function in (into_parameter, into_buffer, into_attribute):
        with pytest.raises(errors.StateLeakError):
            transform(function)(x)
    assert unchanged(linear, before)
    assert not hasattr(linear, "last_input")


def test_a_failing_step_changes_nothing():
    model = Net()
    before = snapshot(model)

    @fn.jit
    def step(x):
        model(x)
        return model.head(jnp.ones((2, 99)))

    with pytest.raises(errors.ShapeError):
        step(jnp.ones((2, 4)))
    with pytest.raises(errors.ShapeError):
        model.head(model(jnp.ones((2, 4))).repeat(50, axis=1))
    assert unchanged(
        model.head, {k.removeprefix("head."): v for k, v in before.items() if k.startswith("head.")}
    )


def test_an_eager_call_that_fails_late_keeps_its_buffers():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            self.norm(x)
            raise ValueError("late")

    model = Late()
    before = snapshot(model)
    with pytest.raises(ValueError, match="late") as caught:
        model(jnp.ones((4, 3)))
    assert unchanged(model, before)
    assert "In module Late itself" in text(caught.value)
    assert text(caught.value).count("In module") == 1
