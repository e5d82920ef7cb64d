"""Train a small convolutional network on real handwriting: ``python -m funcnets.examples.digits``.

The data are the 1,797 images of 8x8 pixels that scikit-learn ships (Alpaydin and Kaynak, 1998). The
stateful face is the default; ``--pure`` runs the same training through ``functionalize``, optax and
``jax.jit``, and ends with the same parameters.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn, optim


class DigitNet(nn.Module):
    """Two convolutions and a linear layer, for images of 1 x 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x: jax.Array) -> jax.Array:
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)  # (batch, 16, 4, 4)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (batch, 32, 2, 2)
        return self.fc(x.reshape(x.shape[0], -1))


class Split(NamedTuple):
    """Images ``(n, 1, 8, 8)`` in [0, 1] and their digits ``(n,)``."""

    images: np.ndarray
    labels: np.ndarray


def load(seed: int) -> tuple[Split, Split, Split]:
    """Training, validation and test images: 1,297, 200 and 300 of them."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit(
            "the digits come with scikit-learn: pip install 'funcnets[examples]'"
        ) from None
    digits: Any = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(seed).permutation(len(labels))
    cuts = np.split(order, [len(order) - 500, len(order) - 300])
    train, val, test = (Split(images[i], labels[i]) for i in cuts)
    return train, val, test


def batches(
    data: Split, size: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shuffled batches of one size; the few images left over wait for the next epoch's shuffle."""
    order = rng.permutation(len(data.labels))
    for start in range(0, len(order) - size + 1, size):
        chosen = order[start : start + size]
        yield data.images[chosen], data.labels[chosen]


def score(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean loss and the fraction that is right."""
    return F.cross_entropy(logits, labels), jnp.mean(jnp.argmax(logits, -1) == labels)


# --- the two faces ----------------------------------------------------------------------------


class Stateful:
    """As in PyTorch: a model and an optimizer that change."""

    def __init__(self, model: DigitNet, lr: float) -> None:
        self.model = model
        optimizer = optim.AdamW(model.parameters(), lr=lr)
        criterion = nn.CrossEntropyLoss()

        @fn.jit
        def step(x: jax.Array, y: jax.Array) -> jax.Array:
            loss, grads = fn.value_and_grad(lambda m: criterion(m(x), y))(model)
            optimizer.step(grads)
            return loss

        self.step = step
        self.predict = fn.jit(lambda x: model(x))

    def train(self) -> None:
        self.model.train()

    def eval(self) -> None:
        self.model.eval()


class Pure:
    """As in JAX: parameters, state and optimizer memory go in and come out."""

    def __init__(self, model: DigitNet, lr: float) -> None:
        self.model = model
        _, apply = fn.functionalize(model)
        self.params, self.state = fn.get_variables(model)
        tx = optim.adamw_tx(lr)  # an optax transformation with torch's defaults
        self.memory = tx.init(self.params)

        @jax.jit
        def step(params: Any, state: Any, memory: Any, x: jax.Array, y: jax.Array) -> Any:
            def loss_fn(params: Any) -> Any:
                logits, new_state = apply(params, state, x, training=True)
                return F.cross_entropy(logits, y), new_state

            (loss, state), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
            updates, memory = tx.update(grads, memory, params)
            return optax.apply_updates(params, updates), state, memory, loss

        self._step, self._predict = step, jax.jit(lambda p, s, x: apply(p, s, x, training=False)[0])

    def step(self, x: Any, y: Any) -> jax.Array:
        self.params, self.state, self.memory, loss = self._step(
            self.params, self.state, self.memory, x, y
        )
        return loss

    def predict(self, x: Any) -> jax.Array:
        return self._predict(self.params, self.state, x)

    def train(self) -> None:
        """The mode is an argument here."""

    eval = train


# --- the program ------------------------------------------------------------------------------


def run(
    pure: bool = False,
    epochs: int = 20,
    batch: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Any, dict[str, float], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Train, and print loss and accuracy of every epoch.

    Args:
        pure: use the pure face.
        epochs: passes over the training images.
        batch: images in a step.
        lr: AdamW's learning rate.
        seed: of the split, the order of the images and the model's initial values.
        progress: show a bar while an epoch runs.

    Returns:
        The trainer, the test loss and accuracy, and the test images, labels and predictions.
    """
    fn.manual_seed(seed)
    train, val, test = load(seed)
    if not 1 <= batch <= len(train.labels):
        raise SystemExit(f"a batch has 1 to {len(train.labels)} images, but {batch} were asked for")
    model = DigitNet()
    print(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters\n")
    trainer = (Pure if pure else Stateful)(model, lr)
    rng = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        trainer.train()
        losses = [
            trainer.step(x, y)
            for x, y in with_bar(list(batches(train, batch, rng)), epoch, progress)
        ]
        trainer.eval()
        loss, accuracy = score(trainer.predict(val.images), jnp.asarray(val.labels))
        print(
            f"epoch {epoch:2d}  train loss {float(jnp.mean(jnp.stack(losses))):.4f}  validation loss {float(loss):.4f}  "
            f"accuracy {100 * float(accuracy):5.1f} %  {time.perf_counter() - start:.2f} s"
        )
    logits = trainer.predict(test.images)
    loss, accuracy = score(logits, jnp.asarray(test.labels))
    print(
        f"\ntest loss {float(loss):.4f}  accuracy {100 * float(accuracy):.1f} % of {len(test.labels)} images"
    )
    figures = {"loss": float(loss), "accuracy": float(accuracy)}
    return trainer, figures, (test.images, test.labels, np.asarray(jnp.argmax(logits, -1)))


def with_bar(items: list[Any], epoch: int, progress: bool) -> Any:
    """The items, with a progress bar if tqdm is there and it is wanted."""
    if not progress:
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, desc=f"epoch {epoch:2d}", unit="batch", leave=False, disable=None)


def picture(
    path: pathlib.Path, images: np.ndarray, labels: np.ndarray, predicted: np.ndarray
) -> None:
    """Save 24 test images with their predictions, every mistake among the first."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("the picture needs matplotlib: pip install 'funcnets[examples]'") from None
    order = np.argsort(predicted == labels, kind="stable")[:24]
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, i in zip(figure.subplots(3, 8).flat, order, strict=True):
        axes.imshow(images[i, 0], cmap="gray_r", interpolation="nearest")
        right = predicted[i] == labels[i]
        title = f"{predicted[i]}" if right else f"{predicted[i]}, is {labels[i]}"
        axes.set_title(title, color="black" if right else "crimson", fontsize=11)
        axes.set_axis_off()
    wrong = int((predicted != labels).sum())
    figure.suptitle(
        f"Predictions for 24 of {len(labels)} test images ({wrong} wrong in all, shown in red)"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train a small CNN on scikit-learn's handwritten digits."
    )
    parser.add_argument(
        "--pure", action="store_true", help="through functionalize, optax and jax.jit"
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--picture", type=pathlib.Path, default=pathlib.Path("artifacts/digits.png")
    )
    options = parser.parse_args(argv)
    _, _, predictions = run(options.pure, options.epochs, options.batch, options.lr, options.seed)
    picture(options.picture, *predictions)
    print(f"picture saved to {options.picture}")


if __name__ == "__main__":
    main()
