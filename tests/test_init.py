"""The initialisers against torch's: bounds, moments, exact values where nothing is random, refusals."""

from __future__ import annotations

import inspect
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from funcnets import init, nn
from funcnets.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError

SHAPES = [(300, 200), (60, 50, 4, 5), (1, 60000)]
BIG = (300, 200)


def both(call, shape, dtype="float32"):
    """Ours and torch's values of ``call(library, parameter)``."""
    torch.manual_seed(0)
    ours = nn.Parameter(shape, dtype=dtype)
    theirs = torch.empty(shape, dtype=getattr(torch, dtype))
    assert call(nn.init, ours) is ours
    assert call(torch.nn.init, theirs) is theirs
    return np.asarray(ours, np.float64), theirs.double().numpy()


RANDOM = {
    "uniform_": lambda i, p: i.uniform_(p),
    "uniform_ a b": lambda i, p: i.uniform_(p, -2.0, 5.0),
    "normal_": lambda i, p: i.normal_(p),
    "normal_ mean std": lambda i, p: i.normal_(p, 3.0, 0.5),
    "xavier_uniform_": lambda i, p: i.xavier_uniform_(p),
    "xavier_uniform_ gain": lambda i, p: i.xavier_uniform_(p, i.calculate_gain("relu")),
    "xavier_normal_": lambda i, p: i.xavier_normal_(p),
    "xavier_normal_ gain": lambda i, p: i.xavier_normal_(p, gain=5 / 3),
    "kaiming_uniform_": lambda i, p: i.kaiming_uniform_(p),
    "kaiming_uniform_ a": lambda i, p: i.kaiming_uniform_(p, a=math.sqrt(5)),
    "kaiming_uniform_ fan_out": lambda i, p: i.kaiming_uniform_(
        p, mode="fan_out", nonlinearity="relu"
    ),
    "kaiming_normal_": lambda i, p: i.kaiming_normal_(p),
    "kaiming_normal_ fan_out": lambda i, p: i.kaiming_normal_(p, 0.3, "FAN_OUT"),
    "kaiming_normal_ selu": lambda i, p: i.kaiming_normal_(p, nonlinearity="selu"),
    "trunc_normal_": lambda i, p: i.trunc_normal_(p),
    "trunc_normal_ narrow": lambda i, p: i.trunc_normal_(p, std=0.02),
    "trunc_normal_ shifted": lambda i, p: i.trunc_normal_(p, 1.0, 2.0, 0.0, 1.5),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", RANDOM)
def test_moments_quantiles_and_bounds(name, shape):
    ours, theirs = both(RANDOM[name], shape)
    scale = theirs.std()
    assert abs(ours.mean() - theirs.mean()) < 0.03 * scale
    assert abs(ours.std() / scale - 1) < 0.02
    levels = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
    np.testing.assert_allclose(
        np.quantile(ours, levels), np.quantile(theirs, levels), atol=0.05 * scale
    )
    if "uniform" in name or ("trunc" in name and "narrow" not in name):
        assert (
            abs(ours.min() - theirs.min()) < 0.01 * scale
            and abs(ours.max() - theirs.max()) < 0.01 * scale
        )
    # neither along a row nor down a column is there a pattern
    flat = ours.reshape(shape[0], -1)
    assert abs(np.corrcoef(flat.ravel()[:-1], flat.ravel()[1:])[0, 1]) < 0.02


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["uniform_ a b", "normal_", "kaiming_uniform_", "trunc_normal_"])
def test_halves(name, dtype):
    ours, theirs = both(RANDOM[name], BIG, dtype)
    assert (
        abs(ours.std() / theirs.std() - 1) < 0.02
        and abs(ours.mean() - theirs.mean()) < 0.03 * theirs.std()
    )


EXACT = {
    "constant_": (lambda i, p: i.constant_(p, 0.3), (2, 3)),
    "ones_": (lambda i, p: i.ones_(p), (4,)),
    "zeros_": (lambda i, p: i.zeros_(p), ()),
    "eye_": (lambda i, p: i.eye_(p), (3, 3)),
    "eye_ wide": (lambda i, p: i.eye_(p), (2, 5)),
    "eye_ tall": (lambda i, p: i.eye_(p), (5, 2)),
    "dirac_ 3d": (lambda i, p: i.dirac_(p), (4, 3, 5)),
    "dirac_ 4d": (lambda i, p: i.dirac_(p), (3, 4, 2, 3)),
    "dirac_ 5d": (lambda i, p: i.dirac_(p), (2, 2, 3, 3, 3)),
    "dirac_ groups": (lambda i, p: i.dirac_(p, 2), (6, 2, 3)),
    "dirac_ three groups": (lambda i, p: i.dirac_(p, groups=3), (6, 5, 1, 2)),
    "trunc_normal_ of one value": (lambda i, p: i.trunc_normal_(p, 0.0, 1.0, 0.5, 0.5), (3,)),
    "uniform_ of one value": (lambda i, p: i.uniform_(p, 2.0, 2.0), (3,)),
    "normal_ without spread": (lambda i, p: i.normal_(p, 1.5, 0.0), (3,)),
    "sparse_ all": (lambda i, p: i.sparse_(p, 1.0), (3, 4)),
    "xavier_uniform_ empty": (lambda i, p: i.xavier_uniform_(p), (3, 0)),
    "orthogonal_ empty": (lambda i, p: i.orthogonal_(p), (0, 3)),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact(name):
    call, shape = EXACT[name]
    ours, theirs = both(call, shape)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("shape", "gain"), [((6, 6), 1.0), ((4, 9), 1.0), ((9, 4), 2.0), ((5, 2, 3), 0.5)]
)
def test_orthogonal(shape, gain):
    ours, theirs = both(lambda i, p: i.orthogonal_(p, gain), shape)
    for value in (ours, theirs):
        flat = value.reshape(shape[0], -1)
        gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
        np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_is_uniform_over_the_group():
    """Determinants of both signs, and no preferred sign of an entry."""
    rule = init.orthogonal()
    many = np.asarray(jax.vmap(lambda k: rule(k, (3, 3)))(jax.random.split(jax.random.key(0), 500)))
    signs = np.sign(np.linalg.det(many))
    assert 0.4 < (signs > 0).mean() < 0.6
    assert np.abs(many.mean(0)).max() < 0.1


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.34, 0.5])
def test_sparse(sparsity):
    ours, theirs = both(lambda i, p: i.sparse_(p, sparsity, 0.2), BIG)
    zeros = math.ceil(sparsity * BIG[0])
    assert ((ours == 0).sum(0) == zeros).all() and ((theirs == 0).sum(0) == zeros).all()
    assert abs(ours[ours != 0].std() / 0.2 - 1) < 0.02
    assert sparsity == 0 or not np.array_equal(ours[:, 0] == 0, ours[:, 1] == 0)


REFUSED = {
    "uniform a > b": (lambda i, p: i.uniform_(p(2), 2.0, 1.0), ArgumentError, "a=2.0, b=1.0"),
    "uniform nan": (lambda i, p: i.uniform_(p(2), math.nan, 1.0), ArgumentError, "a=nan"),
    "uniform inf": (lambda i, p: i.uniform_(p(2), 0.0, math.inf), ArgumentError, "b=inf"),
    "normal std": (lambda i, p: i.normal_(p(2), 0.0, -1.0), ArgumentError, "std=-1.0"),
    "eye": (lambda i, p: i.eye_(p(2)), ShapeError, r"2D shape, but got \(2,\)"),
    "dirac 2d": (lambda i, p: i.dirac_(p(2, 2)), ShapeError, r"3D to 5D shape, but got \(2, 2\)"),
    "dirac 6d": (lambda i, p: i.dirac_(p(1, 1, 1, 1, 1, 1)), ShapeError, "3D to 5D"),
    "dirac groups": (lambda i, p: i.dirac_(p(3, 2, 1), 2), ArgumentError, "3 output channels are not divisible by 2"),
    "xavier_uniform 1d": (lambda i, p: i.xavier_uniform_(p(3)), ShapeError, r"at least 2 dimensions .*got \(3,\)"),
    "xavier_normal 0d": (lambda i, p: i.xavier_normal_(p()), ShapeError, "at least 2 dimensions"),
    "kaiming_uniform 1d": (lambda i, p: i.kaiming_uniform_(p(3)), ShapeError, "at least 2 dimensions"),
    "kaiming_normal 1d": (lambda i, p: i.kaiming_normal_(p(3)), ShapeError, "at least 2 dimensions"),
    "mode": (lambda i, p: i.kaiming_uniform_(p(3, 3), mode="fan_up"), ArgumentError, "'fan_in', 'fan_out', but got"),
    "nonlinearity": (lambda i, p: i.kaiming_normal_(p(3, 3), nonlinearity="gelu"), ArgumentError, "but got 'gelu'"),
    "orthogonal 1d": (lambda i, p: i.orthogonal_(p(3)), ShapeError, "at least 2 dimensions"),
    "sparse 3d": (lambda i, p: i.sparse_(p(3, 3, 3), 0.1), ShapeError, "2D shape"),
    "trunc a > b": (lambda i, p: i.trunc_normal_(p(3), 0.0, 1.0, 2.0, -2.0), ArgumentError, "a=2.0, b=-2.0"),
    "gain": (lambda i, p: i.calculate_gain("gelu"), ArgumentError, "but got 'gelu'"),
    "slope bool": (lambda i, p: i.calculate_gain("leaky_relu", True), ArgumentError, "must be a number, but got True"),
    "slope str": (lambda i, p: i.calculate_gain("leaky_relu", "x"), ArgumentError, "must be a number, but got 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_as_by_torch(name):
    call, kind, text = REFUSED[name]
    with pytest.raises((ValueError, RuntimeError)) as theirs:
        call(torch.nn.init, lambda *shape: torch.empty(shape))
    with pytest.raises(kind, match=text) as ours:
        call(nn.init, lambda *shape: nn.Parameter(shape))
    assert isinstance(ours.value, type(theirs.value)) or type(theirs.value) is RuntimeError


def test_refused_here_only():
    """Torch gives numbers that mean nothing."""
    for call, text in (
        (lambda: init.sparse(1.5), "sparsity must be between 0 and 1, but got 1.5"),
        (lambda: init.sparse(-0.5), "sparsity must be between 0 and 1"),
        (lambda: init.trunc_normal(std=0.0), "std=0.0"),
        (lambda: init.trunc_normal(std=-1.0), "std=-1.0"),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
    with pytest.raises(UnsupportedError, match="fn.manual_seed"):
        nn.init.normal_(nn.Parameter((2,)), generator=torch.Generator())


@pytest.mark.parametrize("thing", [3, np.ones(2), jnp.ones(2), [1.0]])
def test_only_cells_are_filled(thing):
    with pytest.raises(DTypeError, match="takes a Parameter or Buffer, but got"):
        nn.init.normal_(thing)


def test_a_refused_call_changes_nothing():
    p = nn.Parameter((3,), init.ones())
    with pytest.raises(ShapeError):
        nn.init.xavier_normal_(p)
    assert p.tolist() == [1.0, 1.0, 1.0]


def test_a_distant_mean_warns_as_torch():
    for call in (
        lambda: torch.nn.init.trunc_normal_(torch.empty(2), 10.0, 1.0),
        lambda: nn.init.trunc_normal_(nn.Parameter((2,)), 10.0, 1.0),
        lambda: nn.init.trunc_normal_(nn.Parameter((2,)), -10.0, 1.0),
    ):
        with pytest.warns(UserWarning, match="more than 2 std"):
            call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = init.trunc_normal(4.0, 1.0)(jax.random.key(0), (1000,))
    assert values.min() >= -2 and values.max() <= 2 and values.mean() > 1.5


@pytest.mark.parametrize(
    "nonlinearity",
    ["linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"],
)  # fmt: skip
def test_gains(nonlinearity):
    for param in (None, 0.2, 0, 1):
        expected = torch.nn.init.calculate_gain(nonlinearity, param)
        assert (
            nn.init.calculate_gain(nonlinearity, param)
            == init.calculate_gain(nonlinearity, param)
            == expected
        )


def test_every_one_of_torchs_names_with_its_signature():
    names = [n for n in dir(torch.nn.init) if n.endswith("_") and not n.startswith("_")]
    assert len(names) == 14 and set(names) | {"calculate_gain"} == set(nn.init.__all__)
    for name in nn.init.__all__:
        theirs, ours = (
            inspect.signature(getattr(i, name)).parameters for i in (torch.nn.init, nn.init)
        )
        assert list(ours) == list(theirs)
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


class TestPureOnes:
    @pytest.mark.parametrize(
        "rule",
        [
            init.zeros(), init.ones(), init.constant(2.0), init.eye(), init.uniform(), init.normal(), init.trunc_normal(),
            init.xavier_uniform(), init.xavier_normal(), init.kaiming_uniform(), init.kaiming_normal(), init.orthogonal(),
            init.sparse(0.5),
        ],
        ids=str,
    )  # fmt: skip
    def test_they_are_hashable_equal_by_value_and_deterministic(self, rule):
        import copy
        import pickle

        twin = pickle.loads(pickle.dumps(rule))
        assert twin == rule == copy.deepcopy(rule) and hash(twin) == hash(rule)
        assert rule != init.normal(0.0, 17.0) and "17" not in repr(rule)
        key = jax.random.key(0)
        for dtype in (jnp.float32, jnp.bfloat16):
            value = rule(key, (4, 3), dtype)
            assert value.shape == (4, 3) and value.dtype == dtype
            np.testing.assert_array_equal(value, twin(key, (4, 3), dtype))

    def test_uniform_stays_below_its_upper_bound(self):
        value = init.uniform()(jax.random.key(3), (1 << 20,))
        assert value.min() >= 0 and value.max() < 1

    def test_initializers_of_jax(self):
        rule = init.initializer_from(jax.nn.initializers.lecun_normal())
        assert rule is init.initializer_from(rule)
        np.testing.assert_array_equal(
            rule(jax.random.key(0), (3, 4)),
            jax.nn.initializers.lecun_normal()(jax.random.key(0), (3, 4), jnp.float32),
        )
        with pytest.raises(ArgumentError, match=r"is a function .*init\.constant"):
            init.initializer_from(0.5)
