r"""Recurrent networks, one step at a time: the cells.

A step works on an input and a hidden state that are already projected to the gates, which is what lets a
whole sequence be projected in one matrix product (``_lower_recurrent.py``). The names and arguments of the public
functions are those of ``torch.lstm_cell`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from funcnets._args import describe
from funcnets.errors import ArgumentError, DTypeError, ShapeError
from funcnets.functional._autocast import in_low
from funcnets.functional._numeric import as_array
from funcnets.functional.linear import linear

__all__ = ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]

State = tuple[jax.Array, ...]


class Weights(NamedTuple):
    """What a cell multiplies with and adds.

    ``ih`` is ``(gates * hidden, input)`` and ``hh`` ``(gates * hidden, output)``, where ``output`` is
    the size of the hidden state: ``hidden``, unless a projection ``hr`` ``(output, hidden)`` follows.
    """

    ih: jax.Array
    hh: jax.Array
    b_ih: jax.Array | None = None
    b_hh: jax.Array | None = None
    hr: jax.Array | None = None


class Kind(NamedTuple):
    """A kind of cell."""

    #: (what the input gives to the gates, what the hidden state gives, state) -> the next state, whose
    #: first array is the output, before a projection.
    step: Callable[[jax.Array, jax.Array, State], State]
    gates: int
    states: int

    def state_sizes(self, weights: Weights) -> list[int]:
        """The sizes of the arrays of a state."""
        return [weights.hh.shape[1], weights.hh.shape[0] // self.gates][: self.states]


# --- steps ----------------------------------------------------------------------------------------


def tanh_step(x: jax.Array, h: jax.Array, state: State) -> State:
    """Elman's step."""
    return (jnp.tanh(x + h),)


def relu_step(x: jax.Array, h: jax.Array, state: State) -> State:
    """Elman's step with a rectifier."""
    return (jax.nn.relu(x + h),)


def lstm_step(x: jax.Array, h: jax.Array, state: State) -> State:
    """The gates are stacked in PyTorch's order: input, forget, cell, output."""
    i, f, g, o = jnp.split(x + h, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def gru_step(x: jax.Array, h: jax.Array, state: State) -> State:
    """The gates are stacked in PyTorch's order: reset, update, new."""
    r_x, z_x, n_x = jnp.split(x, 3, axis=-1)
    r_h, z_h, n_h = jnp.split(h, 3, axis=-1)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    n = jnp.tanh(n_x + r * n_h)
    return (n + z * (state[0] - n),)


TANH = Kind(tanh_step, gates=1, states=1)
RELU = Kind(relu_step, gates=1, states=1)
LSTM = Kind(lstm_step, gates=4, states=2)
GRU = Kind(gru_step, gates=3, states=1)


# --- cells ----------------------------------------------------------------------------------------


def _elman_cell(name: str, kind: Kind, formula: str):
    """The function that takes one step of an Elman network."""

    def cell(
        input: jax.Array,
        hx: jax.Array,
        w_ih: jax.Array,
        w_hh: jax.Array,
        b_ih: jax.Array | None = None,
        b_hh: jax.Array | None = None,
    ) -> jax.Array:
        return _cell(kind, input, (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]

    cell.__name__ = cell.__qualname__ = name
    cell.__doc__ = _ELMAN_DOC % {"name": name, "formula": formula}
    return cell


_ELMAN_DOC = r"""One step of an Elman network.

    .. math::
        h' = %(formula)s

    Args:
        input: ``(N, input_size)`` or ``(input_size,)``.
        hx: ``(N, hidden_size)`` or ``(hidden_size,)``.
        w_ih: ``(hidden_size, input_size)``.
        w_hh: ``(hidden_size, hidden_size)``.
        b_ih: ``(hidden_size,)``, or None.
        b_hh: ``(hidden_size,)``, or None.

    Returns:
        The next hidden state, of the shape of ``hx``.

    Raises:
        ShapeError: shapes that do not fit together.
        DTypeError: arrays of different dtypes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> w_ih, w_hh = jnp.ones((4, 3)), jnp.ones((4, 4))
        >>> F.%(name)s(jnp.ones((2, 3)), jnp.ones((2, 4)), w_ih, w_hh).shape
        (2, 4)

    References:
        Elman, 1990; torch.%(name)s
    """

rnn_tanh_cell = _elman_cell("rnn_tanh_cell", TANH, r"\tanh(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})")
rnn_relu_cell = _elman_cell(
    "rnn_relu_cell", RELU, r"\max(0, W_{ih} x + b_{ih} + W_{hh} h + b_{hh})"
)


def lstm_cell(
    input: jax.Array,
    hx: tuple[jax.Array, jax.Array],
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""One step of a long short-term memory.

    .. math::
        \begin{aligned}
        (i, f, g, o) &= W_{ih} x + b_{ih} + W_{hh} h + b_{hh} \\
        c' &= \sigma(f) \odot c + \sigma(i) \odot \tanh(g) \\
        h' &= \sigma(o) \odot \tanh(c')
        \end{aligned}

    Args:
        input: ``(N, input_size)`` or ``(input_size,)``.
        hx: the hidden and the cell state, ``(N, hidden_size)`` or ``(hidden_size,)`` each.
        w_ih: ``(4 * hidden_size, input_size)``, the gates i, f, g, o one below the other.
        w_hh: ``(4 * hidden_size, hidden_size)``.
        b_ih: ``(4 * hidden_size,)``, or None.
        b_hh: ``(4 * hidden_size,)``, or None.

    Returns:
        The next hidden and cell state.

    Raises:
        ShapeError: shapes that do not fit together.
        DTypeError: arrays of different dtypes.
        ArgumentError: ``hx`` is not a pair.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> state = jnp.zeros((2, 4)), jnp.zeros((2, 4))
        >>> h, c = F.lstm_cell(jnp.ones((2, 3)), state, jnp.ones((16, 3)), jnp.ones((16, 4)))
        >>> h.shape, c.shape
        ((2, 4), (2, 4))

    References:
        Hochreiter and Schmidhuber, 1997; torch.lstm_cell
    """
    h, c = _cell(LSTM, input, pair(hx), Weights(w_ih, w_hh, b_ih, b_hh))
    return h, c


def gru_cell(
    input: jax.Array,
    hx: jax.Array,
    w_ih: jax.Array,
    w_hh: jax.Array,
    b_ih: jax.Array | None = None,
    b_hh: jax.Array | None = None,
) -> jax.Array:
    r"""One step of a gated recurrent unit.

    .. math::
        \begin{aligned}
        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + r \odot (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) \odot n + z \odot h
        \end{aligned}

    Args:
        input: ``(N, input_size)`` or ``(input_size,)``.
        hx: ``(N, hidden_size)`` or ``(hidden_size,)``.
        w_ih: ``(3 * hidden_size, input_size)``, the gates r, z, n one below the other.
        w_hh: ``(3 * hidden_size, hidden_size)``.
        b_ih: ``(3 * hidden_size,)``, or None.
        b_hh: ``(3 * hidden_size,)``, or None.

    Returns:
        The next hidden state, of the shape of ``hx``.

    Raises:
        ShapeError: shapes that do not fit together.
        DTypeError: arrays of different dtypes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.gru_cell(jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones((12, 3)), jnp.ones((12, 4))).shape
        (2, 4)

    References:
        Cho et al., 2014; torch.gru_cell
    """
    return _cell(GRU, input, (hx,), Weights(w_ih, w_hh, b_ih, b_hh))[0]


# --- checks, shared with recurrent.py -------------------------------------------------------------


def check_input(input: jax.Array, weights: Weights) -> None:
    """Refuse an input of another size or dtype than the weights take."""
    if input.shape[-1] != weights.ih.shape[1]:
        raise ShapeError(
            f"expected input with input_size={weights.ih.shape[1]} elements along its last axis, "
            f"but got {describe(input)}"
        )
    if input.dtype != weights.ih.dtype:
        raise DTypeError(
            f"expected input of the weights' dtype {weights.ih.dtype}, but got {describe(input)}; "
            "convert it with .astype(...), or the model with .to(dtype)"
        )


def check_state(
    state: Sequence[jax.Array] | None, shapes: Sequence[tuple[int, ...]], dtype: jnp.dtype
) -> State:
    """``state`` if it has these shapes and this dtype; zeros in place of None."""
    if state is None:
        return tuple(jnp.zeros(shape, dtype) for shape in shapes)
    state = tuple(as_array("hx", part) for part in state)
    for index, (part, shape) in enumerate(zip(state, shapes, strict=True)):
        name = "hx" if len(shapes) == 1 else f"hx[{index}]"
        if part.shape != shape:
            raise ShapeError(f"expected {name} of shape {shape}, but got {describe(part)}")
        if part.dtype != dtype:
            raise DTypeError(f"expected {name} of dtype {dtype}, but got {describe(part)}")
    return state


def pair(hx: tuple[jax.Array, jax.Array]) -> State:
    """``hx`` if it is a pair of a hidden and a cell state."""
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise ArgumentError(f"hx must be a pair (hidden state, cell state), but got {describe(hx)}")
    return tuple(hx)


def _cell(kind: Kind, input: jax.Array, state: State, weights: Weights) -> State:
    input, state, arrays = in_low(input, tuple(state), tuple(weights))
    input, weights = as_array("input", input), Weights(*arrays)
    named = {f"w_{name}" if len(name) == 2 else name: w for name, w in weights._asdict().items()}
    weights = Weights(*(None if w is None else as_array(n, w) for n, w in named.items()))  # pyright: ignore
    if input.ndim not in (1, 2):
        raise ShapeError(
            f"expected 1D (unbatched) or 2D (batched) input, but got {describe(input)}"
        )
    check_input(input, weights)
    shapes = [(*input.shape[:-1], size) for size in kind.state_sizes(weights)]
    state = check_state(state, shapes, input.dtype)
    from_input = linear(input, weights.ih, weights.b_ih)
    return kind.step(from_input, linear(state[0], weights.hh, weights.b_hh), state)
