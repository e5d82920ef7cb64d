"""Metrics against scikit-learn, in every setting in which a loop may compute them."""

from __future__ import annotations

import copy
import functools
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from sklearn import metrics as sk

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import errors, nn
from funcnets.train import metrics

N, C, PARTS = 60, 5, 4
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(N, C)).astype(np.float32)
# Class 3 never occurs and is hardly predicted, so that 0 / 0 is met.
SCORES[:, 3] -= 9
TARGET = RNG.choice([0, 1, 2, 4], size=N).astype(np.int32)
PREDICTED = SCORES.argmax(1)
WEIGHT = RNG.integers(0, 4, size=N).astype(np.float32)
BINARY = RNG.normal(size=N).astype(np.float32)
BITS = RNG.integers(0, 2, size=N).astype(np.int32)


def stream(metric, output, target, weight=None, parts=PARTS):
    """The value after compiled updates with each part of the data."""
    update = jax.jit(metric.update)
    state = metric.init()
    rows = [np.split(a, parts) for a in (output, target) + (() if weight is None else (weight,))]
    for batch in zip(*rows, strict=True):
        state = update(state, *batch)
    return jax.tree.map(np.asarray, metric.compute(state))


def by_sklearn(function, labels=None, average="binary", weight=None):
    score = getattr(sk, f"{function}_score")
    target, predicted = (BITS, BINARY > 0) if average == "binary" else (TARGET, PREDICTED)
    return score(
        target, predicted, labels=labels, average=average, zero_division=0.0, sample_weight=weight
    )


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
class TestAgainstSklearn:
    def test_accuracy(self, weight):
        value = stream(metrics.Accuracy(), SCORES, TARGET, weight)
        assert value == pytest.approx(sk.accuracy_score(TARGET, PREDICTED, sample_weight=weight))

    def test_binary_accuracy(self, weight):
        value = stream(metrics.Accuracy(threshold=0.0), BINARY, BITS, weight)
        assert value == pytest.approx(sk.accuracy_score(BITS, BINARY > 0, sample_weight=weight))

    @pytest.mark.parametrize("k", [1, 2, 4, 5])
    def test_top_k(self, k, weight):
        value = stream(metrics.TopK(k), SCORES, TARGET, weight)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns that k = C is always right
            expected = sk.top_k_accuracy_score(
                TARGET, SCORES, k=k, labels=range(C), sample_weight=weight
            )
        assert value == pytest.approx(expected)

    @pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
    def test_confusion_matrix(self, normalize, weight):
        value = stream(metrics.ConfusionMatrix(C, normalize), SCORES, TARGET, weight)
        expected = sk.confusion_matrix(
            TARGET, PREDICTED, labels=range(C), normalize=normalize, sample_weight=weight
        )
        np.testing.assert_allclose(value, expected, rtol=1e-6)

    @pytest.mark.parametrize("name", ["Precision", "Recall", "F1"])
    def test_by_class(self, name, weight):
        kind = getattr(metrics, name)
        averages = ("micro", "macro", "weighted", None)
        family = metrics.MetricCollection({str(a): kind(C, average=a) for a in averages})
        values = stream(family, SCORES, TARGET, weight)
        for average in averages:
            # Unless told otherwise scikit-learn, too, averages over the classes that it meets.
            labels = None if average in ("macro", "weighted") else range(C)
            expected = by_sklearn(name.lower(), labels, average, weight)
            np.testing.assert_allclose(values[str(average)], expected, rtol=1e-6)
        value = stream(kind(threshold=0.0), BINARY, BITS, weight)
        assert value == pytest.approx(by_sklearn(name.lower(), weight=weight))

    def test_perplexity(self, weight):
        value = stream(metrics.Perplexity(), SCORES, TARGET, weight)
        p = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
        loss = sk.log_loss(TARGET, p, labels=range(C), sample_weight=weight)
        assert value == pytest.approx(np.exp(loss), rel=1e-5)

    def test_mean_of_a_function(self, weight):
        metric = metrics.Mean(lambda output, target: jnp.abs(output - target))
        value = stream(metric, BINARY, BITS.astype(np.float32), weight)
        assert value == pytest.approx(
            sk.mean_absolute_error(BITS, BINARY, sample_weight=weight), rel=1e-5
        )


# --- the four functions -----------------------------------------------------------------------

EVERY = {
    "mean": metrics.Mean(lambda output, target: jnp.max(output, -1)),
    "accuracy": metrics.Accuracy(),
    "top2": metrics.TopK(2),
    "perplexity": metrics.Perplexity(),
    "matrix": metrics.ConfusionMatrix(C),
    "precision": metrics.Precision(C, average="macro"),
    "recall": metrics.Recall(C, average=None),
    "f1": metrics.F1(C, average="weighted"),
}
TOGETHER = metrics.MetricCollection(EVERY)


def assert_same(one, two, **tolerance):
    for path, value in jax.tree.leaves_with_path(one):
        other = functools.reduce(lambda node, entry: node[entry.key], path, two)
        np.testing.assert_allclose(value, other, err_msg=str(path), **tolerance)


@pytest.fixture(scope="module")
def whole():
    return stream(TOGETHER, SCORES, TARGET, WEIGHT, parts=1)


def test_how_the_data_are_cut_does_not_matter(whole):
    assert_same(stream(TOGETHER, SCORES, TARGET, WEIGHT, parts=4), whole, rtol=1e-6)


def test_states_merge_in_any_order(whole):
    cut = [np.split(a, PARTS) for a in (SCORES, TARGET, WEIGHT)]
    update = jax.jit(TOGETHER.update)
    states = [update(TOGETHER.init(), *batch) for batch in zip(*cut, strict=True)]
    for order in (states, states[::-1]):
        state = functools.reduce(TOGETHER.merge, order)
        assert_same(TOGETHER.compute(state), whole, rtol=1e-6)


def test_inside_scan_and_summed_over_devices(whole):
    """Two devices scan over two batches each, and sum their totals."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    batches = jax.tree.map(
        lambda a: a.reshape(PARTS, N // PARTS, *a.shape[1:]), (SCORES, TARGET, WEIGHT)
    )

    def evaluate(batches):
        start = jax.tree.map(lambda a: jax.lax.pcast(a, "data", to="varying"), TOGETHER.init())
        state, _ = jax.lax.scan(lambda s, b: (TOGETHER.update(s, *b), None), start, batches)
        return jax.lax.psum(state, "data")

    spec = PartitionSpec("data")
    mapped = jax.shard_map(evaluate, mesh=mesh, in_specs=(spec,), out_specs=PartitionSpec())
    assert_same(jax.jit(TOGETHER.compute)(jax.jit(mapped)(batches)), whole, rtol=1e-6)


def test_a_state_keeps_its_shapes_and_dtypes():
    """So that it can be the carry of a loop, whatever the precision of what comes."""
    start = TOGETHER.init()
    for dtype in (jnp.float32, jnp.bfloat16):
        after = jax.eval_shape(TOGETHER.update, start, jnp.zeros((3, C), dtype), TARGET[:3])
        assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
            lambda a: (a.shape, a.dtype), start
        )


def test_an_update_changes_neither_the_metric_nor_the_state():
    metric, state = metrics.Accuracy(), metrics.Accuracy().init()
    before = copy.deepcopy((metric, jax.tree.map(np.asarray, state)))
    metric.update(state, SCORES, TARGET)
    assert metric == before[0]
    assert_same({"a": jax.tree.leaves(state)[0]}, {"a": jax.tree.leaves(before[1])[0]})
    assert hash(metrics.TopK(3)) == hash(metrics.TopK(3))
    assert pickle.loads(pickle.dumps(metrics.TopK(3))) == metrics.TopK(3)


def test_many_small_amounts_are_not_lost():
    """A million samples after 2**24 of them, one at a time, in single precision."""
    mean = metrics.Mean()
    state = mean.update(mean.init(), jnp.float32(0), weight=jnp.float32(2**24))

    def one(state, _):
        return mean.update(state, jnp.float32(0.1), weight=jnp.float32(1)), None

    state, _ = jax.jit(lambda s: jax.lax.scan(one, s, length=1_000_000))(state)
    exact = {"sum": 1e6 * float(np.float32(0.1)), "count": 2**24 + 1e6}
    for name, total in state.items():
        assert float(total.high) + float(total.low) == pytest.approx(exact[name], rel=1e-9)
    assert float(jnp.float32(2**24) + jnp.float32(1)) == 2**24  # what a plain sum does


def test_samples_without_weight_may_be_anything():
    """As the rows that fill up a last batch."""
    weight = np.array([1, 1, 0, 0], np.float32)
    output, target = SCORES[:4].copy(), TARGET[:4].copy()
    output[2], target[3] = np.nan, 77
    expected = TOGETHER.compute(TOGETHER.update(TOGETHER.init(), output[:2], target[:2]))
    padded = TOGETHER.compute(TOGETHER.update(TOGETHER.init(), output, target, weight))
    assert_same(padded, expected, rtol=1e-6)


def test_ignored_targets_do_not_count():
    labelled = metrics.MetricCollection({k: v for k, v in EVERY.items() if k != "mean"})
    target = np.where(np.arange(N) % 3 == 0, -100, TARGET)
    kept = target != -100
    expected = labelled.compute(labelled.update(labelled.init(), SCORES[kept], target[kept]))
    assert_same(
        labelled.compute(labelled.update(labelled.init(), SCORES, target)), expected, rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["target", "output"])
def test_what_cannot_be_counted_shows(kind):
    """A class out of range and a NaN score: never a number that looks right."""
    output, target = SCORES[:4].copy(), TARGET[:4].copy()
    if kind == "target":
        target[1] = C
        bad = set(EVERY) - {"mean"}
    else:
        output[1, target[1]] = np.nan
        bad = set(EVERY) - {"accuracy", "top2"}
    values = TOGETHER.compute(TOGETHER.update(TOGETHER.init(), output, target))
    assert {name for name, value in values.items() if np.isnan(np.asarray(value)).any()} == bad
    if kind == "output":
        clean = TOGETHER.compute(TOGETHER.update(TOGETHER.init(), SCORES[:4], target))
        assert float(values["accuracy"]) <= float(clean["accuracy"])


def test_a_nan_score_is_a_wrong_answer():
    scores = jnp.array([[jnp.nan, 0.0], [jnp.nan, jnp.nan]])
    for metric in (metrics.Accuracy(), metrics.TopK(1)):
        state = metric.update(metric.init(), scores, jnp.array([0, 0]))
        assert float(metric.compute(state)) == 0


def test_nothing_seen():
    values = TOGETHER.compute(TOGETHER.init())
    for name in ("mean", "accuracy", "top2", "perplexity"):
        assert np.isnan(values[name])
    for zero_division in (0.0, 1.0):
        metric = metrics.Precision(zero_division=zero_division)
        assert metric.compute(metric.init()) == zero_division


def test_an_infinite_loss_stays_infinite():
    mean = metrics.Mean()
    state = mean.update(mean.init(), jnp.array([1.0, jnp.inf]))
    assert float(mean.compute(mean.update(state, jnp.array([1.0])))) == jnp.inf


@pytest.mark.parametrize(
    ("axis", "shape"), [(1, (6, C, 7)), (-1, (6, 7, C)), (0, (C, 6, 7))], ids=str
)
def test_the_classes_may_stand_on_any_axis(axis, shape):
    last = RNG.normal(size=(6, 7, C)).astype(np.float32)
    target = RNG.integers(0, C, size=(6, 7)).astype(np.int32)
    output = np.moveaxis(last, -1, axis)
    assert output.shape == shape
    family = metrics.MetricCollection(
        [metrics.Accuracy(axis=axis), metrics.TopK(2, axis=axis), metrics.Perplexity(axis=axis)]
    )
    values = family.compute(family.update(family.init(), output, target))
    assert float(values["accuracy"]) == pytest.approx((last.argmax(-1) == target).mean())
    loss = F.cross_entropy(jnp.moveaxis(output, axis, 1), jnp.asarray(target))
    assert float(values["perplexity"]) == pytest.approx(float(jnp.exp(loss)), rel=1e-5)


def test_one_sample_without_a_batch():
    metric = metrics.Accuracy()
    state = metric.update(metric.init(), jnp.array([0.0, 1.0]), jnp.array(1))
    assert float(metric.compute(state)) == 1


def test_outputs_may_be_classes_or_probabilities_or_booleans():
    for metric, output in (
        (metrics.Accuracy(), (BINARY > 0).astype(np.uint8)),
        (metrics.Accuracy(), BINARY > 0),
        (metrics.Accuracy(threshold=0.5), np.asarray(F.sigmoid(jnp.asarray(BINARY)))),
    ):
        value = metric.compute(metric.update(metric.init(), output, BITS.astype(bool)))
        assert float(value) == pytest.approx(((BINARY > 0) == BITS).mean())


def test_the_mean_of_a_batch_counts_for_its_samples():
    mean = metrics.Mean(lambda output, target: jnp.mean(output - target))
    state = mean.update(mean.init(), jnp.ones(3), jnp.zeros(3))
    state = mean.update(state, jnp.zeros(1), jnp.zeros(1))
    assert float(mean.compute(state)) == pytest.approx(0.75)


def test_double_precision_is_used_where_it_is_enabled():
    with jax.enable_x64(True):
        metric = metrics.Mean()
        state = metric.update(metric.init(), jnp.array(1 / 3))
        assert state["sum"].high.dtype == jnp.float64
        assert float(metric.compute(state)) == 1 / 3


# --- the stateful face ------------------------------------------------------------------------


def test_running_in_a_jitted_loop():
    model, running = nn.Linear(3, C), metrics.Running(metrics.MetricCollection(EVERY))
    xs = RNG.normal(size=(3, 8, 3)).astype(np.float32)
    ys = RNG.integers(0, C, size=(3, 8)).astype(np.int32)
    traces = []

    @fn.jit
    def step(x, y):
        traces.append(1)

        def loss_fn(m):
            out = m(x)
            running.update(out, y)
            return F.cross_entropy(out, y)

        return fn.value_and_grad(loss_fn)(model)[0]

    for _ in range(2):
        for x, y in zip(xs, ys, strict=True):
            step(x, y)
        expected = TOGETHER.compute(
            TOGETHER.update(TOGETHER.init(), model(xs.reshape(-1, 3)), ys.reshape(-1))
        )
        assert_same(running.compute(), expected, rtol=1e-5)
        running.reset()
    assert len(traces) <= 2  # the second only finds what the first met
    assert np.isnan(running.compute()["accuracy"])


def test_running_is_a_module():
    running = metrics.Running(metrics.Accuracy())
    running(SCORES, TARGET)
    assert "Running(Accuracy(threshold=None, axis=1, ignore_index=-100))" in repr(running)
    assert dict(running.state_dict()) == {}
    kept = metrics.Running(metrics.Accuracy(), persistent=True)
    assert sorted(kept.state_dict()) == ["count_high", "count_low", "sum_high", "sum_low"]
    twin = pickle.loads(pickle.dumps(copy.deepcopy(running)))
    twin.update(SCORES, TARGET)
    assert float(twin.compute()) == float(running.compute())
    _, apply = fn.functionalize(kept)
    params, state = fn.get_variables(kept)
    _, state = apply(params, state, SCORES, TARGET)
    assert float(state["count_high"]) == N


# --- refusals ---------------------------------------------------------------------------------


def update(metric, *args):
    return lambda: metric.update(metric.init(), *args)


ONES, ZEROS = jnp.ones((4, 3)), jnp.zeros(4, jnp.int32)
REFUSALS = {
    "float target": (update(metrics.Accuracy(), ONES, jnp.zeros(4)), "argmax"),
    "no target": (update(metrics.Accuracy(), ONES), "update\\(state, output, target\\)"),
    "a list": (update(metrics.Accuracy(), [1.0], ZEROS), "output must be an array"),
    "no threshold": (update(metrics.Accuracy(), jnp.ones(4), ZEROS), "threshold=0.0 for logits"),
    "one class": (update(metrics.Accuracy(), jnp.ones((4, 1)), ZEROS), "squeeze that axis"),
    "other length": (update(metrics.Accuracy(), ONES, ZEROS[:3]), "needs a target of shape"),
    "other axis": (
        update(metrics.Accuracy(), jnp.ones((4, 7, 3)), jnp.zeros((4, 7), jnp.int32)),
        "axis=",
    ),
    "no such axis": (update(metrics.Accuracy(axis=2), ONES, ZEROS), "class axis 2 does not exist"),
    "same rank": (update(metrics.Accuracy(), ONES, jnp.zeros((4, 1), jnp.int32)), "does not fit"),
    "complex": (update(metrics.Accuracy(), ONES.astype(complex), ZEROS), "real scores"),
    "weight shape": (update(metrics.Accuracy(), ONES, ZEROS, jnp.ones(3)), "weight must have"),
    "weight kind": (
        update(metrics.Mean(), ONES, None, jnp.ones(4, complex)),
        "weight must be real",
    ),
    "weight number": (update(metrics.Mean(), ONES, None, [1]), "weight must be an array"),
    "mean target": (update(metrics.Mean(), ONES, ZEROS), "Mean\\(lambda"),
    "mean complex": (update(metrics.Mean(), ONES.astype(complex)), "real values"),
    "mean function": (lambda: metrics.Mean(3), "function must be"),  # pyright: ignore
    "too many": (update(metrics.TopK(4), ONES, ZEROS), "needs 4 classes"),
    "top zero": (lambda: metrics.TopK(0), "k must be positive"),
    "top labels": (update(metrics.TopK(1), ZEROS, ZEROS), "score for every class"),
    "perplexity labels": (update(metrics.Perplexity(), ZEROS, ZEROS), "logit for every class"),
    "classes": (update(metrics.ConfusionMatrix(4), ONES, ZEROS), "of 4 classes"),
    "one row": (lambda: metrics.ConfusionMatrix(1), "at least 2"),
    "normalize": (lambda: metrics.ConfusionMatrix(2, "rows"), "normalize must be one of"),
    "average": (lambda: metrics.F1(3, average="mean"), "average must be one of"),
    "count": (lambda: metrics.F1(average="macro"), "needs num_classes"),
    "binary": (lambda: metrics.F1(3), "choose average='macro'"),
    "threshold": (lambda: metrics.Accuracy(threshold="half"), "threshold must be a number"),  # pyright: ignore
    "no metric": (lambda: metrics.MetricCollection([len]), "must be a Metric"),  # pyright: ignore
    "twice": (lambda: metrics.MetricCollection([metrics.F1(), metrics.F1()]), "have one name"),
    "running": (lambda: metrics.Running(len), "must be a Metric"),  # pyright: ignore
    "foreign state": (
        lambda: metrics.Accuracy().update(metrics.ConfusionMatrix(2).init(), ONES, ZEROS),
        "own init",
    ),
    "foreign merge": (
        lambda: metrics.Accuracy().merge(metrics.Accuracy().init(), {}),
        "own init",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case):
    act, message = REFUSALS[case]
    with pytest.raises(errors.FuncnetsError, match=message):
        act()


def test_a_metric_that_defines_nothing_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="must define shapes"):
        metrics.Metric().init()
