"""Train a small convolutional network on real handwriting: ``python -m funcnets.examples.digits``.

The data are the 1,797 images of 8x8 pixels that scikit-learn ships (Alpaydin and Kaynak, 1998). The
stateful face, with ``train.fit``, is the default; ``--pure`` runs the same training through
``functionalize``, optax and ``jax.jit``, and ends with the same parameters.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnets as fn
import funcnets.nn.functional as F
from funcnets import nn, optim, train


class DigitNet(nn.Module):
    """Two convolutions and a linear layer, for images of 1 x 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)  # the norm subtracts it anyway
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
    data, val, test = (Split(images[i], labels[i]) for i in cuts)
    return data, val, test


# --- the two faces ----------------------------------------------------------------------------


class Trained(NamedTuple):
    """What a face ends with: the model's arrays, one row an epoch, and a function of images."""

    params: Any
    state: Any
    rows: list[dict[str, Any]]
    predict: Any


def stateful(
    model: DigitNet, data: Any, val: Split, epochs: int, lr: float, progress: bool
) -> Trained:
    """As in PyTorch: a model and an optimizer that change. ``fit`` has the loop."""
    history = train.fit(
        model,
        optim.AdamW(model.parameters(), lr=lr),
        nn.CrossEntropyLoss(),
        data,
        val_data=[val],
        epochs=epochs,
        metrics={"accuracy": train.Accuracy()},
        progress=progress,
    )
    model.eval()
    return Trained(*fn.get_variables(model), history.epochs, fn.jit(lambda x: model(x)))


def pure(model: DigitNet, data: Any, val: Split, epochs: int, lr: float, progress: bool) -> Trained:
    """As in JAX: parameters, state and optimizer memory go in and come out."""
    _, apply = fn.functionalize(model)
    params, state = fn.get_variables(model)
    tx = optim.adamw_tx(lr)  # an optax transformation with torch's defaults
    memory = tx.init(params)
    accuracy = train.Accuracy()

    @jax.jit
    def step(params: Any, state: Any, memory: Any, metric: Any, batch: Any) -> Any:
        x, y = batch

        def loss_fn(params: Any) -> Any:
            logits, new_state = apply(params, state, x, training=True)
            return F.cross_entropy(logits, y), (new_state, logits)

        (loss, (state, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, memory = tx.update(grads, memory, params)
        metric = accuracy.update(metric, logits, y)
        return optax.apply_updates(params, updates), state, memory, metric, loss

    @jax.jit
    def predict(params: Any, state: Any, x: Any) -> jax.Array:
        return apply(params, state, x, training=False)[0]

    rows = []
    for epoch in range(1, epochs + 1):
        losses, metric = [], accuracy.init()
        for batch in data:
            params, state, memory, metric, loss = step(params, state, memory, metric, batch)
            losses.append(float(loss))
        row = {"epoch": epoch, "loss": np.mean(losses), "accuracy": float(accuracy.compute(metric))}
        row |= {f"val_{k}": v for k, v in score(predict(params, state, val.images), val).items()}
        rows.append(row)
        if progress:
            print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    return Trained(params, state, rows, lambda x: predict(params, state, x))


# --- the program ------------------------------------------------------------------------------


def score(logits: jax.Array, data: Split) -> dict[str, float]:
    """Mean loss and the fraction that is right."""
    labels = jnp.asarray(data.labels)
    right = jnp.mean(jnp.argmax(logits, -1) == labels)
    return {"loss": float(F.cross_entropy(logits, labels)), "accuracy": float(right)}


def run(
    face: Any = stateful,
    epochs: int = 20,
    batch: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
    progress: bool = True,
) -> tuple[Trained, dict[str, float], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Train, and print loss and accuracy of every epoch.

    Args:
        face: :func:`stateful` or :func:`pure`.
        epochs: passes over the training images.
        batch: images in a step; the few that are left over wait for the next epoch's order.
        lr: AdamW's learning rate.
        seed: of the split, the order of the images and the model's initial values.
        progress: print a bar, or lines where there is no terminal.

    Returns:
        What the face ended with, the test loss and accuracy, and the test images, labels and predictions.
    """
    fn.manual_seed(seed)
    data, val, test = load(seed)
    if not 1 <= batch <= len(data.labels):
        raise SystemExit(f"a batch has 1 to {len(data.labels)} images, but {batch} were asked for")
    model = DigitNet()
    print(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters\n")
    loader = train.ArrayLoader(tuple(data), batch, shuffle=True, drop_last=True)
    trained = face(model, loader, val, epochs, lr, progress)
    logits = trained.predict(test.images)
    figures = score(logits, test)
    print(
        f"\ntest loss {figures['loss']:.4f}  accuracy {100 * figures['accuracy']:.1f} % "
        f"of {len(test.labels)} images"
    )
    return trained, figures, (test.images, test.labels, np.asarray(jnp.argmax(logits, -1)))


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
    face = pure if options.pure else stateful
    _, _, predictions = run(face, options.epochs, options.batch, options.lr, options.seed)
    picture(options.picture, *predictions)
    print(f"picture saved to {options.picture}")


if __name__ == "__main__":
    main()
