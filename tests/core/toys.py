"""Small modules for the tests of the core; they use nothing of ``funcnets.nn``'s families."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import funcnets as fn
from funcnets import init, nn


class Affine(nn.Module):
    """``x @ weight.T + bias``."""

    def __init__(self, n_in, n_out, bias=True):
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.weight = nn.Parameter((n_out, n_in), init.kaiming_uniform(5**0.5))
        if bias:
            self.bias = nn.Parameter((n_out,), init.uniform(-0.5, 0.5))
        else:
            self.register_parameter("bias", None)

    def forward(self, x):
        y = x @ self.weight.T
        return y if self.bias is None else y + jnp.broadcast_to(self.bias, y.shape)

    def extra_repr(self):
        return f"{self.n_in}, {self.n_out}"


class Counter(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", jnp.zeros((), jnp.int32))

    def forward(self, x):
        self.count = self.count + 1
        return x


class Average(nn.Module):
    """In training subtracts the mean of its input and follows it in a buffer, else the buffer."""

    def __init__(self, n, momentum=0.5):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", nn.Buffer((n,)))

    def forward(self, x):
        if not self.training:
            return x - jnp.broadcast_to(self.mean, x.shape)
        mean = x.reshape(-1, x.shape[-1]).mean(0)
        self.mean = (1 - self.momentum) * self.mean + self.momentum * mean
        return x - jnp.broadcast_to(mean, x.shape)


class Noise(nn.Module):
    """Multiplies with ones and zeros in training."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        return x * jax.random.bernoulli(self.make_rng(), 1 - self.p, x.shape).astype(x.dtype)


class Chain(nn.Module):
    """Its children one after the other, by number."""

    def __init__(self, *modules):
        super().__init__()
        for i, module in enumerate(modules):
            self.register_module(str(i), module)

    def forward(self, x):
        for module in self._modules.values():
            x = module(x)
        return x

    def __getitem__(self, index):
        return self._modules[str(index)]


class Net(nn.Module):
    """Two affine maps with everything between them that has state."""

    def __init__(self):
        super().__init__()
        self.first = Affine(3, 4)
        self.norm = Average(4)
        self.noise = Noise()
        self.last = Affine(4, 2)

    def forward(self, x):
        return self.last(self.noise(jnp.tanh(self.norm(self.first(x)))))


def cells(model):
    """Every parameter and buffer by its path."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def tree_equal(a, b):
    """Whether two trees have the same structure and bits."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        x.dtype == y.dtype and bool(jnp.array_equal(x, y, equal_nan=_inexact(x))) for x, y in pairs
    )


def _inexact(x):
    return jnp.issubdtype(x.dtype, jnp.inexact)


class Traces:
    """Counts how often a function's Python code runs."""

    def __init__(self, function):
        self.function, self.count = function, 0

    def __call__(self, *args, **kwargs):
        self.count += 1
        return self.function(*args, **kwargs)


def stepper(model, optimizer, **options):
    """A compiled training step; ``.traces`` counts how often it was traced."""
    traces = []

    @fn.jit(**options)
    def step(x, y):
        traces.append(1)
        loss, grads = fn.value_and_grad(lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.step(grads)
        return loss

    step.traces = traces
    return step
