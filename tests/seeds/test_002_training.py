"""Document 002, "What Is a Model?": defining a network, and training it with validation.

The document's code is not in its text, but its steps are: three epochs of batches, cross-entropy, SGD
with a learning rate of 0.001 and a momentum of 0.9, the average loss of each epoch, and a validation
phase between ``model.eval()`` and ``model.train()``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import funcnets as fn
from funcnets import nn, optim
from tests.seeds.helpers import CHECK_IDS, CHECKS, Seed, in_torch, integers, normal, run

EPOCHS, BATCH, LR, MOMENTUM = 3, 8, 0.001, 0.9


class Net(nn.Module):
    """Input, hidden and output layers with ReLU; the normalisation makes the mode matter."""

    def __init__(self, input_size=12, hidden_size=16, num_classes=4, p=0.0):
        super(Net, self).__init__()
        self.input = nn.Linear(input_size, hidden_size)
        self.norm = nn.BatchNorm1d(hidden_size)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(p)
        self.output = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        x = self.relu(self.norm(self.input(x)))
        return self.output(self.dropout(x))


class PlainNet(nn.Module):
    def __init__(self):
        super(PlainNet, self).__init__()
        self.fc1 = nn.Linear(12, 16)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


@pytest.mark.parametrize("check", CHECKS, ids=CHECK_IDS)
def test_model(check):
    shape = (BATCH, 4)
    build = lambda _, PlainNet: PlainNet()  # noqa: E731
    run(
        check,
        Seed(
            "net",
            build,
            normal(BATCH, 12),
            integers(4, BATCH),
            shape,
            PlainNet,
            loss="CrossEntropyLoss",
        ),
    )


def loaders(seed: int = 0):
    """``(trainloader, valloader)``: batches whose classes can be learned."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 6 * BATCH).astype(np.int32)
    centres = rng.standard_normal((4, 12))
    images = (centres[labels] + 0.3 * rng.standard_normal((len(labels), 12))).astype(np.float32)
    batches = [(images[i : i + BATCH], labels[i : i + BATCH]) for i in range(0, len(labels), BATCH)]
    return batches[:4], batches[4:]


def train_in_torch(model, lr):
    """The document's loop: the loss of every step, the average of every epoch and of validation."""
    trainloader, valloader = loaders()
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM)
    steps, epochs, validation = [], [], []
    for _epoch in range(EPOCHS):
        model.train()
        running_loss = 0.0
        for inputs, labels in trainloader:
            optimizer.zero_grad()
            outputs = model(torch.from_numpy(inputs))
            loss = criterion(outputs, torch.from_numpy(labels).long())
            loss.backward()
            optimizer.step()
            steps.append(loss.item())
            running_loss += loss.item()
        epochs.append(running_loss / len(trainloader))
        model.eval()
        val_loss = 0.0
        with torch.no_grad():
            for inputs, labels in valloader:
                outputs = model(torch.from_numpy(inputs))
                val_loss += criterion(outputs, torch.from_numpy(labels).long()).item()
        validation.append(val_loss / len(valloader))
    return steps, epochs, validation


def train_stateful(model, lr):
    """The same loop, line by line, with the stateful face."""
    trainloader, valloader = loaders()
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM)

    @fn.jit
    def train_step(inputs, labels):
        loss, grads = fn.value_and_grad(lambda m: criterion(m(inputs), labels))(model)
        optimizer.step(grads)
        return loss

    @fn.jit
    def evaluate(inputs, labels):
        return criterion(model(inputs), labels)

    steps, epochs, validation = [], [], []
    for _epoch in range(EPOCHS):
        model.train()
        running_loss = 0.0
        for inputs, labels in trainloader:
            loss = train_step(inputs, labels)
            steps.append(loss.item())
            running_loss += loss.item()
        epochs.append(running_loss / len(trainloader))
        model.eval()
        val_loss = 0.0
        for inputs, labels in valloader:
            val_loss += evaluate(inputs, labels).item()
        validation.append(val_loss / len(valloader))
    return steps, epochs, validation


def train_pure(model, lr):
    """The same loop with the pure face; ends with ``(params, state)`` as well."""
    trainloader, valloader = loaders()
    criterion = nn.CrossEntropyLoss()
    _, apply = fn.functionalize(model)
    params, state = fn.get_variables(model)
    tx = optax.sgd(lr, momentum=MOMENTUM)
    memory = tx.init(params)

    @jax.jit
    def train_step(params, state, memory, inputs, labels):
        def loss_fn(params):
            outputs, new_state = apply(params, state, inputs, training=True)
            return criterion(outputs, labels), new_state

        (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, memory = tx.update(grads, memory, params)
        return optax.apply_updates(params, updates), state, memory, loss

    @jax.jit
    def evaluate(params, state, inputs, labels):
        outputs, _ = apply(params, state, inputs, training=False)
        return criterion(outputs, labels)

    steps, epochs, validation = [], [], []
    for _epoch in range(EPOCHS):
        losses = []
        for inputs, labels in trainloader:
            params, state, memory, loss = train_step(params, state, memory, inputs, labels)
            losses.append(loss.item())
        steps += losses
        epochs.append(sum(losses) / len(losses))
        val_losses = [evaluate(params, state, *batch).item() for batch in valloader]
        validation.append(sum(val_losses) / len(val_losses))
    return (steps, epochs, validation), (params, state)


@pytest.mark.parametrize("lr", [LR, 0.05])
def test_the_loop_gives_torchs_losses_in_both_faces(lr):
    torch.manual_seed(0)
    theirs, ours = in_torch(Net)(), Net()
    ours.load_state_dict(theirs.state_dict())
    pure, (params, state) = train_pure(ours, lr)
    expected = train_in_torch(theirs, lr)
    stateful = train_stateful(ours, lr)
    assert len(expected[0]) == 12
    for what, ours_, pure_, theirs_ in zip(
        ("steps", "epochs", "validation"), stateful, pure, expected, strict=True
    ):
        np.testing.assert_allclose(ours_, theirs_, atol=1e-4, rtol=0, err_msg=what)
        np.testing.assert_allclose(pure_, theirs_, atol=1e-4, rtol=0, err_msg=what)
    epochs, validation = stateful[1:]
    assert epochs[2] < epochs[1] < epochs[0]
    assert validation[2] < validation[0]
    for tree, pure_tree in zip(fn.get_variables(ours), (params, state), strict=True):
        pure_rows = dict(fn.core.layer.flatten(pure_tree))
        for name, value in fn.core.layer.flatten(tree):
            np.testing.assert_allclose(pure_rows[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(
            ours.state_dict()[name], value.numpy(), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_the_running_statistics_change_in_training_and_not_in_validation():
    model = Net()
    x = jnp.asarray(loaders()[0][0][0])
    before = np.array(model.norm.running_mean)
    model.eval()(x)
    np.testing.assert_array_equal(model.norm.running_mean, before)
    assert model.norm.num_batches_tracked == 0
    model.train()(x)
    assert (model.norm.running_mean.numpy() != before).all()
    assert model.norm.num_batches_tracked == 1


def test_dropout_is_active_in_training_only():
    model = Net(p=0.5)
    x = jnp.asarray(loaders()[0][0][0])
    forward = fn.jit(lambda x: model(x))
    model.eval()
    np.testing.assert_array_equal(forward(x), forward(x))
    model.train()
    assert (forward(x) != forward(x)).any()


def test_a_dropout_network_learns_in_both_faces():
    model = Net(p=0.2)
    trainloader, _ = loaders()
    before = float(jnp.mean(jnp.array([evaluate(model, *b) for b in trainloader])))
    train_stateful(model, 0.05)
    assert float(jnp.mean(jnp.array([evaluate(model, *b) for b in trainloader]))) < before
    init, apply = fn.functionalize(Net(p=0.2))
    params, state = init(jax.random.key(0))
    inputs, labels = map(jnp.asarray, trainloader[0])

    def loss(params, key):
        out, new_state = apply(params, state, inputs, rng=key, training=True)
        return nn.CrossEntropyLoss()(out, labels), new_state

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (first, _), grads = step(params, jax.random.key(1))
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert step(params, jax.random.key(1))[0][0] < first


def evaluate(model, inputs, labels):
    model.eval()
    return nn.CrossEntropyLoss()(model(jnp.asarray(inputs)), jnp.asarray(labels))


@pytest.mark.parametrize(
    ("name", "output", "target"),
    [
        ("CrossEntropyLoss", normal(5, 3), integers(3, 5)),
        ("MSELoss", normal(5, 3), normal(5, 3)),
        ("BCELoss", lambda rng: rng.random((5, 3), np.float32), integers(2, 5, 3)),
    ],
)
def test_the_losses_that_the_document_names(name, output, target):
    rng = np.random.default_rng(0)
    output, target = output(rng), target(rng)
    if name == "BCELoss":
        target = target.astype(np.float32)
    theirs = getattr(torch.nn, name)()(
        torch.from_numpy(output),
        torch.from_numpy(target).long() if target.dtype == np.int32 else torch.from_numpy(target),
    )
    ours = getattr(nn, name)()(jnp.asarray(output), jnp.asarray(target))
    np.testing.assert_allclose(ours, theirs.item(), rtol=1e-5)


def test_the_two_optimizers_that_the_document_names_train_the_model():
    for make in (
        lambda p: optim.SGD(p, lr=LR, momentum=MOMENTUM),
        lambda p: optim.Adam(p, lr=LR),
    ):
        model = PlainNet()
        optimizer = make(model.parameters())
        inputs, labels = map(jnp.asarray, loaders()[0][0])
        criterion = nn.CrossEntropyLoss()
        losses = []
        for _ in range(5):
            loss, grads = fn.value_and_grad(lambda m: criterion(m(inputs), labels))(model)  # noqa: B023
            optimizer.step(grads)
            losses.append(float(loss))
        assert losses[-1] < losses[0]
