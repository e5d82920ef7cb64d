"""What CheckpointManager takes: values of every kind, pytrees, cells, iterators."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from funcnets import nn
from funcnets.core.cell import Stateful
from funcnets.errors import StateDictError
from funcnets.train.checkpoints import CheckpointManager
from tests.train.checkpoint_helpers import equal


@pytest.fixture
def manager(tmp_path):
    with CheckpointManager(tmp_path / "run") as made:
        yield made


class Pair(NamedTuple):
    a: Any
    b: Any


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, *children: Any) -> None:
        self.children = children

    def tree_flatten(self):
        return self.children, None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


VALUES: dict[str, Any] = {
    "plain": [
        None,
        True,
        3,
        2**80,
        -0.0,
        1e-310,
        float("inf"),
        1 + 2j,
        "text \u2028 \x00",
        b"\x00\xff",
    ],
    "floats": {"tiny": 0.1 + 0.2, "nan": float("nan")},
    "dict": {
        1: "int",
        "1": "text",
        (2, "b"): "tuple",
        None: "none",
        False: "no",
        0.5: "half",
        "=": 0,
    },
    "ordered": OrderedDict([("z", 1), ("a", (1, [2, ()]))]),
    "counter": Counter({3: 2, 7: 1}),
    "array": jnp.arange(6.0).reshape(2, 3),
    "half": jnp.array([1.0, -0.0, jnp.inf, jnp.nan], jnp.bfloat16),
    "half2": jnp.linspace(0, 1, 5, dtype=jnp.float16),
    "float8": jnp.array([0.5, 1.5], jnp.float8_e4m3fn),
    "bools": jnp.array([True, False]),
    "complex": jnp.array([1 + 2j, 3j], jnp.complex64),
    "empty": jnp.zeros((0, 3), jnp.int8),
    "wide": np.arange(3) + 2**40,
    "numpy": np.array([[1.5]], np.float32),
    "key": jax.random.key(3),
    "keys": jax.random.split(jax.random.key(4, impl="rbg"), 3),
    "a.b": jnp.ones(2),
    "..": jnp.zeros(1),
    "nested": {"a": {"b": jnp.zeros(2)}, "a.b": jnp.ones(2), "": jnp.full(1, 2.0)},
    "names": {
        name: jnp.ones(2) for name in ("x/y", "/", "é %2F\n", ".", "..", "0", "a\\b", "x" * 300)
    },
}


def test_values_come_back_as_they_were(manager):
    manager.save(0, {"values": VALUES})
    restored = manager.restore({"values": None})
    equal(restored.values["values"], VALUES)
    equal(manager.restore({"values": VALUES}).values["values"], VALUES)
    equal(manager.restore().values["values"], VALUES)


def test_pytrees_come_back_in_their_own_classes(manager):
    params = {"w": jnp.arange(3.0), "b": jnp.zeros(2)}
    tx = optax.chain(optax.clip(1.0), optax.adam(optax.linear_schedule(1.0, 0.0, 9)))
    state = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), tx.init(params))
    node = Node(jnp.ones(1), Pair(2, [jnp.zeros(2)]))
    manager.save(1, {"params": params, "state": state, "node": node, "list": [1, (2,)]})
    blank = jax.eval_shape(tx.init, params)
    found = manager.restore(
        {
            "params": params,
            "state": blank,
            "node": Node(jnp.ones(1), Pair(0, [jnp.ones(2)])),
            "list": [0, (0,)],
        }
    ).values
    assert jax.tree.structure(found["state"]) == jax.tree.structure(state)
    equal(jax.tree.leaves(found["state"]), jax.tree.leaves(state))
    assert isinstance(found["node"], Node) and isinstance(found["node"].children[1], Pair)
    equal(found["node"].children[1].b[0], jnp.zeros(2))
    assert found["list"] == [1, (2,)]
    with pytest.raises(StateDictError) as error:
        manager.restore(
            {
                "params": {"w": jnp.arange(4.0), "c": jnp.zeros(2)},
                "state": state[0],
                "node": Node(jnp.ones(1, jnp.int32), Pair([], 1)),
                "list": [1],
            }
        )
    for line in (
        "params.w: expected float32[4], but the checkpoint has float32[3]",
        "params.c: missing in the checkpoint",
        "params.b: unexpected in the checkpoint",
        "state",
        "node.0: expected int32[1], but the checkpoint has float32[1]",
        "node.1.a: expected 0 entries, but the checkpoint has 2",
        "list: expected 1 entries, but the checkpoint has 2",
    ):
        assert f"\t{line}" in str(error.value)


def test_cells_alone_and_iterators(manager):
    class Held(Stateful):
        def __init__(self, *values: Any) -> None:
            self.cells = [nn.Buffer(jnp.asarray(v)) for v in values]

        def _cells(self):
            yield from ((f"c{i}", cell) for i, cell in enumerate(self.cells))

    class Iterator:
        def __init__(self) -> None:
            self.at = 0

        def get_state(self) -> bytes:
            return bytes([self.at])

        def set_state(self, state: bytes) -> None:
            self.at = state[0]

    held, iterator = Held([1.0, 2.0], 3), Iterator()
    iterator.at = 7
    manager.save(1, {"held": held, "iterator": iterator})
    held.cells[0].data = jnp.zeros(2)
    iterator.at = 0
    manager.restore({"held": held, "iterator": iterator})
    assert held.cells[0].data.tolist() == [1.0, 2.0] and iterator.at == 7
    other = Held([0.0, 0.0, 0.0], 1, 2)
    with pytest.raises(
        StateDictError, match=r"c0: it is float32\[3\].*float32\[2\]\n.*missing.*c2"
    ):
        manager.restore({"held": other, "iterator": iterator})
    other = Held([0.0, 0.0], 1, 2)
    found = manager.restore({"held": other, "iterator": iterator}, strict=False)
    assert found.missing_keys == ["held.c2"]
    assert [c.data.tolist() for c in other.cells] == [[1.0, 2.0], 3, 2]


def test_grain_iterators(manager):
    grain = pytest.importorskip("grain.python")

    def numbers():
        return iter(grain.MapDataset.range(20).shuffle(seed=1).to_iter_dataset())

    iterator = numbers()
    first = [next(iterator) for _ in range(5)]
    manager.save(5, {"data": iterator})
    rest = list(iterator)
    again = numbers()
    manager.restore({"data": again})
    assert list(again) == rest and len(first) + len(rest) == 20
