"""Keys and initial values: what they depend on, and that they do not depend on how they are computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnets as fn
from funcnets import init, nn
from funcnets.core.draw import draw
from funcnets.core.fill import BLOCK
from funcnets.core.keys import fold_on_host, name_hash, path_keys, threefry2x32, ticket_keys
from tests.core.toys import Affine, Chain, Counter, Noise, tree_equal

ONES = jnp.ones(64)


class TestManualSeed:
    def weights(self, n=3):
        return [np.asarray(Affine(4, 4).weight) for _ in range(n)]

    def test_the_same_seed_gives_the_same_values(self):
        fn.manual_seed(11)
        first = self.weights()
        fn.manual_seed(11)
        np.testing.assert_array_equal(self.weights(), first)
        fn.manual_seed(12)
        assert not (np.asarray(self.weights()) == first).any()

    def test_cells_differ(self):
        assert len({w.tobytes() for w in self.weights(20)}) == 20

    def test_it_does_not_matter_when_values_are_asked_for(self):
        fn.manual_seed(1)
        a, b = Affine(4, 4), Affine(4, 4)
        expected = [np.asarray(a.weight), np.asarray(b.weight)]
        fn.manual_seed(1)
        a, b = Affine(4, 4), Affine(4, 4)
        fn.manual_seed(2)  # too late for these two
        late = [np.asarray(b.weight), np.asarray(a.weight)][::-1]
        np.testing.assert_array_equal(late, expected)

    def test_random_layers_do_not_disturb_the_values_and_the_reverse(self):
        noise = Noise()
        fn.manual_seed(1)
        expected = np.asarray(Affine(4, 4).weight), np.asarray(noise(ONES))
        fn.manual_seed(1)
        got = np.asarray(noise(ONES)), np.asarray(Affine(4, 4).weight)
        np.testing.assert_array_equal(got[1], expected[0])
        np.testing.assert_array_equal(got[0], expected[1])

    @pytest.mark.parametrize("seed", [-1, 2**64 - 1, 0, 2**32, np.int64(5)])
    def test_any_integer(self, seed):
        fn.manual_seed(seed)
        assert fn.initial_seed() == int(seed) % 2**64
        first = self.weights(1)
        fn.manual_seed(int(seed) % 2**64)
        np.testing.assert_array_equal(self.weights(1), first)

    def test_the_upper_half_of_a_seed_counts(self):
        fn.manual_seed(1)
        first = self.weights(1)
        fn.manual_seed(1 + 2**32)
        assert not np.array_equal(self.weights(1), first)

    @pytest.mark.parametrize("seed", [1.5, "a", None, True])
    def test_nothing_else(self, seed):
        with pytest.raises(ValueError, match="seed must be an integer"):
            fn.manual_seed(seed)

    def test_the_values_are_pinned(self):
        """A seed gives the same values in every version of this library."""
        fn.manual_seed(0)
        model = Affine(2, 2)
        fn.manual_seed(0)
        expected = ticket_keys([(0, 0, 1)])[0]
        rule = init.kaiming_uniform(5**0.5)
        np.testing.assert_array_equal(
            model.weight, rule(jax.random.wrap_key_data(expected), (2, 2))
        )
        assert expected.tolist() == [928981903, 3453687069]
        assert [name_hash(n) for n in ("", "weight", "0")] == [634351890, 539432606, 613549620]


class TestStreams:
    def test_call_module_and_draw(self):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = Noise(), Noise()

            def forward(self, x):
                return self.a(x), self.a(x), self.b(x)

        model = Two()
        rows = [np.asarray(r).tobytes() for _ in range(3) for r in model(ONES)]
        assert len(set(rows)) == 9

    def test_steps_of_a_compiled_function(self):
        noise = Noise()
        step = fn.jit(lambda x: noise(x))
        assert len({np.asarray(step(ONES)).tobytes() for _ in range(10)}) == 10

    def test_two_compiled_functions_share_one_stream(self):
        a, b = Noise(), Noise()
        f, g = fn.jit(lambda x: a(x)), fn.jit(lambda x: b(x))
        rows = [np.asarray(h(ONES)).tobytes() for h in (f, g, f, g, a, b)]
        assert len(set(rows)) == 6

    def test_a_failed_call_does_not_repeat_its_key(self):
        noise = Noise()
        failed = []

        class Fails(nn.Module):
            def __init__(self):
                super().__init__()
                self.noise = noise

            def forward(self, x):
                failed.append(np.asarray(self.noise(x)))
                raise ValueError

        with pytest.raises(ValueError):
            Fails()(ONES)
        assert not np.array_equal(noise(ONES), failed[0])

    def test_the_second_tree_of_a_call_has_streams_of_its_own(self):
        a, b = Chain(Noise()), Chain(Noise())
        x, y = fn.jit(lambda x: (a(x), b(x)))(ONES)
        assert not (x == y).all()


class TestKeys:
    def test_threefry_on_the_host_is_jaxs(self):
        rng = np.random.default_rng(0)
        for _ in range(5):
            key = rng.integers(0, 2**32, 2, dtype=np.uint32)
            words = rng.integers(0, 2**32, 7, dtype=np.uint32)
            folded = fold_on_host(np.broadcast_to(key, (7, 2)), words)
            expected = jax.vmap(jax.random.fold_in, (None, 0))(
                jax.random.wrap_key_data(key), jnp.asarray(words)
            )
            np.testing.assert_array_equal(folded, jax.random.key_data(expected))

    def test_threefry_known_answers(self):
        """Of the Random123 distribution."""
        for key, counter, expected in (
            ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
            ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
            ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
        ):
            got = threefry2x32(np.array(key, np.uint32), *np.array(counter, np.uint32)[:, None])
            assert tuple(int(g[0]) for g in got) == expected

    @pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
    def test_path_keys_are_folds_of_the_names_on_the_host_and_traced(self, impl):
        key = jax.random.key(5, impl=impl)
        paths = [("a",), ("a", "weight"), ("b", "0", "bias"), ()]

        def fold(path):
            out = key
            for part in path:
                out = fn.child_key(out, part)
            return jax.random.key_data(out)

        raw = lambda keys: keys if isinstance(keys, np.ndarray) else jax.random.key_data(keys)  # noqa: E731
        expected = np.stack([fold(p) for p in paths])
        np.testing.assert_array_equal(raw(path_keys(key, paths)), expected)
        np.testing.assert_array_equal(jax.jit(lambda k: raw(path_keys(k, paths)))(key), expected)

    def test_host_keys_are_used_where_possible_only(self):
        assert isinstance(path_keys(jax.random.key(0), [("a",)]), np.ndarray)
        assert not isinstance(path_keys(jax.random.key(0, impl="rbg"), [("a",)]), np.ndarray)


AFFINE = {
    "uniform": init.uniform(), "uniform shifted": init.uniform(-2.0, 3.0), "uniform symmetric": init.uniform(-0.3, 0.3),
    "normal": init.normal(), "normal scaled": init.normal(0.0, 0.02), "normal shifted": init.normal(1.0, 2.5),
    "xavier_uniform": init.xavier_uniform(), "xavier_normal": init.xavier_normal(1.7),
    "kaiming_uniform": init.kaiming_uniform(5**0.5), "kaiming_normal": init.kaiming_normal(nonlinearity="relu"),
}  # fmt: skip
OTHERS = {
    "constant": init.constant(0.3), "eye": init.eye(), "trunc_normal": init.trunc_normal(0.5, 0.7),
    "orthogonal": init.orthogonal(), "sparse": init.sparse(0.4), "anybody's": init.initializer_from(jax.nn.initializers.he_normal()),
}  # fmt: skip
#: Around the sizes at which the host's way of drawing changes.
SHAPES = [(0, 3), (1, 1), (3, 5), (128, BLOCK // 128), (1, BLOCK - 1), (1, BLOCK + 1), (3, BLOCK)]


def bits(array):
    return np.asarray(array).view(f"u{np.asarray(array).dtype.itemsize}")


class TestBits:
    """The host's draw, the eager, the compiled, the vmapped and the grouped one agree to the last bit."""

    key = jax.random.key(42)
    raw = np.asarray(jax.random.key_data(key))[None]

    def ways(self, rule, shape, dtype):
        spec, keys = (rule, shape, dtype), jnp.stack([jax.random.key(1), self.key])
        yield "batched", jax.jit(jax.vmap(lambda k: rule(k, shape, dtype)))(keys)[1]
        yield (
            "together",
            jax.jit(lambda ks: draw([spec, (init.ones(), (2,), dtype), spec], ks)[2])(
                jnp.stack([jax.random.key(1), jax.random.key(2), self.key])
            ),
        )

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("name", AFFINE)
    def test_the_host_draws_what_jax_does(self, name, shape):
        (host,) = draw([(AFFINE[name], shape, jnp.float32)], self.raw)
        assert host.shape == shape and host.dtype == jnp.float32
        np.testing.assert_array_equal(bits(host), bits(AFFINE[name](self.key, shape)))

    @pytest.mark.parametrize(
        "name",
        [
            "uniform",
            "uniform shifted",
            "normal scaled",
            "normal shifted",
            "xavier_normal",
            "kaiming_uniform",
        ],
    )
    def test_compiled_batched_and_together(self, name):
        (host,) = draw([(AFFINE[name], (9, 5), jnp.float32)], self.raw)
        compiled = jax.jit(lambda k: AFFINE[name](k, (9, 5)))(self.key)
        np.testing.assert_array_equal(bits(compiled), bits(host))
        for way, value in self.ways(AFFINE[name], (9, 5), jnp.float32):
            np.testing.assert_array_equal(bits(value), bits(host), err_msg=way)

    @pytest.mark.parametrize("name", ["uniform shifted", "normal shifted"])
    def test_many_at_once(self, name):
        (host,) = draw([(AFFINE[name], (2, BLOCK + 1), jnp.float32)], self.raw)
        compiled = jax.jit(lambda k: AFFINE[name](k, (2, BLOCK + 1)))(self.key)
        np.testing.assert_array_equal(bits(compiled), bits(host))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    @pytest.mark.parametrize("name", ["normal shifted", "kaiming_uniform"])
    def test_halves_are_rounded_from_float32(self, name, dtype):
        rule, dtype = AFFINE[name], jnp.dtype(dtype)
        (host,) = draw([(rule, (33, 7), dtype)], self.raw)
        np.testing.assert_array_equal(bits(host), bits(rule(self.key, (33, 7)).astype(dtype)))
        compiled = jax.jit(lambda k: rule(k, (33, 7), dtype))(self.key)
        np.testing.assert_array_equal(bits(compiled), bits(host))

    @pytest.mark.parametrize("name", OTHERS)
    def test_others(self, name):
        rule = OTHERS[name]
        (host,) = draw([(rule, (5, 4), jnp.float32)], self.raw)
        for way, value in self.ways(rule, (5, 4), jnp.float32):
            np.testing.assert_allclose(value, host, rtol=1e-5, atol=1e-6, err_msg=way)
            # A decomposition is a library's, batched or not; an error function between two bounds is
            # rounded as the program around it is compiled.
            if name == "trunc_normal":
                np.testing.assert_array_max_ulp(np.asarray(value), np.asarray(host), 1)
            elif name != "orthogonal":
                np.testing.assert_array_equal(bits(value), bits(host), err_msg=way)

    def test_float64(self):
        with jax.enable_x64(True):
            for rule in (init.normal(0.5, 2.0), init.uniform(-1.0, 2.0)):
                (host,) = draw([(rule, (3, 5), jnp.float64)], self.raw)
                compiled = jax.jit(lambda k, rule=rule: rule(k, (3, 5), jnp.float64))(self.key)
                assert host.dtype == jnp.float64
                np.testing.assert_array_equal(bits(host), bits(compiled))
                (single,) = draw([(rule, (3, 5), jnp.float32)], self.raw)
            assert single.dtype == jnp.float32

    def test_the_prefix_property(self):
        """A draw is the beginning of a longer one with the same key."""
        for rule in (init.normal(), init.uniform()):
            (short,), (long,) = (
                draw([(rule, (n,), jnp.float32)], self.raw) for n in (10, BLOCK + 5)
            )
            np.testing.assert_array_equal(short, long[:10])

    def test_sharded(self):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("d",))
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d", None))
        for rule in (AFFINE["normal shifted"], AFFINE["kaiming_uniform"]):
            (host,) = draw([(rule, (8, 6), jnp.float32)], self.raw)
            value = jax.jit(lambda k, rule=rule: rule(k, (8, 6)), out_shardings=rows)(self.key)
            assert len(value.devices()) == 4
            np.testing.assert_array_equal(bits(value), bits(host))

    def test_a_whole_model_sharded(self):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("d",))
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
        init_ = fn.functionalize(Chain(Affine(8, 8), Affine(8, 8), Affine(8, 4))).init
        sharded = jax.jit(init_, out_shardings=rows)(self.key)
        host = init_(self.key)
        assert tree_equal(jax.tree.map(np.asarray, sharded), jax.tree.map(np.asarray, host))

    def test_the_numbers_lie_where_they_should(self):
        (u,) = draw([(init.uniform(), (BLOCK + 9,), jnp.float32)], self.raw)
        (n,) = draw([(init.normal(), (BLOCK + 9,), jnp.float32)], self.raw)
        assert u.min() >= 0 and u.max() < 1
        assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.002
        assert abs(n.mean()) < 0.02 and abs(n.std() - 1) < 0.02 and jnp.isfinite(n).all()


def test_what_draws_nothing_takes_no_ticket():
    """As in PyTorch: adding a counter does not change what is created later."""
    fn.manual_seed(0)
    first = np.asarray(Affine(2, 2).weight)
    fn.manual_seed(0)
    Counter(), nn.Parameter((3,)), nn.Parameter(jnp.ones(2))
    np.testing.assert_array_equal(Affine(2, 2).weight, first)
    fn.manual_seed(0)
    nn.Buffer((3,), init.uniform())
    assert not np.array_equal(Affine(2, 2).weight, first)
