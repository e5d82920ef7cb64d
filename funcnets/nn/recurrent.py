"""Recurrent layers over sequences; the cells that take one step are in ``recurrent_cell.py``."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnets import functional as F
from funcnets._args import choice, describe, positive, probability
from funcnets.core.cell import Parameter
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, ShapeError
from funcnets.functional._numeric import as_array
from funcnets.nn import init
from funcnets.nn.utils.rnn import PackedSequence, pack_sorted, unpack_sorted

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


class RNNBase(Module):
    """What RNN, LSTM and GRU share: the parameters and the run over layers and directions.

    Args:
        mode: ``'RNN_TANH'``, ``'RNN_RELU'``, ``'LSTM'`` or ``'GRU'``.
        input_size: see :class:`RNN`.
        hidden_size: see :class:`RNN`.
        num_layers: see :class:`RNN`.
        bias: see :class:`RNN`.
        batch_first: see :class:`RNN`.
        dropout: see :class:`RNN`.
        bidirectional: see :class:`RNN`.
        proj_size: see :class:`LSTM`.
        device: see :class:`RNN`.
        dtype: see :class:`RNN`.

    References:
        torch.nn.RNNBase
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.mode = choice("mode", mode, tuple(_GATES))
        self.input_size = positive("input_size", input_size)
        self.hidden_size = positive("hidden_size", hidden_size)
        self.num_layers = positive("num_layers", num_layers)
        self.bias = _boolean("bias", bias)
        self.batch_first = _boolean("batch_first", batch_first)
        self.dropout = _probability(dropout)
        self.bidirectional = bidirectional
        self.proj_size = positive("proj_size", proj_size, minimum=0)
        if proj_size >= hidden_size:
            raise ArgumentError(
                f"proj_size must be smaller than hidden_size={hidden_size}, but got {proj_size}"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"dropout={dropout} has no effect: it applies between layers, and num_layers=1",
                stacklevel=3,
            )
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            for suffix in ("", "_reverse") if bidirectional else ("",):
                shapes = self._shapes(layer)
                names = [f"{name}_l{layer}{suffix}" for name in shapes]
                for name, shape in zip(names, shapes.values(), strict=True):
                    self.register_parameter(name, Parameter(shape, device=device, dtype=dtype))
                self._all_weights.append(names)
        self.reset_parameters()

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one direction of a layer, in order."""
        gates, output = _GATES[self.mode] * self.hidden_size, self.proj_size or self.hidden_size
        below = output * (2 if self.bidirectional else 1) if layer else self.input_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (gates, below),
            "weight_hh": (gates, output),
        }
        if self.bias:
            shapes |= {"bias_ih": (gates,), "bias_hh": (gates,)}
        if self.proj_size:
            shapes |= {"weight_hr": (output, self.hidden_size)}
        return shapes

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of every layer and direction, a list for each; arrays inside of a call."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Do nothing: it arranges memory for cuDNN in PyTorch, which is XLA's business here."""

    def _run(self, function: Any, input: Any, hx: Any) -> tuple[Any, tuple[jax.Array, ...]]:
        """``function`` over a batch, a packed one or a single sequence."""
        dropping = self.dropout > 0 and self.num_layers > 1 and self.training
        options: dict[str, Any] = {
            "has_biases": self.bias,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "train": dropping,
            "bidirectional": bool(self.bidirectional),
            "rng": self.make_rng() if dropping else None,
        }
        weights = [weight for weights in self.all_weights for weight in weights]
        if not isinstance(input, PackedSequence):
            input = as_array("input", input)
            if input.ndim not in (2, 3):
                raise ShapeError(
                    f"{type(self).__name__} expects 2D (unbatched) or 3D (batched) input, "
                    f"but got {describe(input)}"
                )
            output, *state = function(input, hx, weights, batch_first=self.batch_first, **options)
            return output, tuple(state)
        if input.data.ndim != 2:
            raise ShapeError(
                f"expected packed data (steps, input_size), but got {describe(input.data)}"
            )
        padded, lengths = unpack_sorted(input)
        mask = jnp.asarray(lengths > np.arange(padded.shape[0])[:, None])
        hx = jax.tree.map(lambda part: _permuted(part, input.sorted_indices), hx)
        output, *state = function(padded, hx, weights, mask=mask, **options)
        state = tuple(_permuted(part, input.unsorted_indices) for part in state)
        return pack_sorted(output, input), state

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size != 0:
            text += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            text += f", num_layers={self.num_layers}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        if self.batch_first is not False:
            text += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            text += f", dropout={self.dropout}"
        if self.bidirectional is not False:
            text += f", bidirectional={self.bidirectional}"
        return text


class RNN(RNNBase):
    r"""Layers of Elman networks over a sequence.

    .. math::
        h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Args:
        input_size: number of features of the input.
        hidden_size: number of features of the hidden state.
        num_layers: how many layers are stacked, each on the output of the one before.
        nonlinearity: ``'tanh'``, or ``'relu'`` in its place.
        bias: whether there are a :math:`b_{ih}` and a :math:`b_{hh}`.
        batch_first: whether the batch comes first in the input and the output. The states have
            it second in any case.
        dropout: probability of dropping, in training, an element of the output of a layer but the
            last.
        bidirectional: whether a second network in each layer runs from the end to the beginning.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    Shape:
        - input: :math:`(T, N, \text{input\_size})`, with ``batch_first``
          :math:`(N, T, \text{input\_size})`, :math:`(T, \text{input\_size})` for a single sequence, or
          a PackedSequence.
        - hx: :math:`(D \cdot \text{num\_layers}, N, \text{hidden\_size})` with :math:`D` = 2 if
          ``bidirectional`` and 1 otherwise, without :math:`N` for a single sequence; zeros if left
          out.
        - output: as input, with :math:`D \cdot \text{hidden\_size}` features: the states of the last
          layer, both directions next to each other.
        - h_n: as hx, the state after the last step (of the reverse direction: at the first).

    Attributes:
        weight_ih_l[k]: the input's weights of layer k, :math:`(\text{hidden\_size}, *)`.
        weight_hh_l[k]: the state's, :math:`(\text{hidden\_size}, \text{hidden\_size})`.
        bias_ih_l[k], bias_hh_l[k]: :math:`(\text{hidden\_size})`.
        weight_ih_l[k]_reverse: and the others, of the reverse direction. All are from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ArgumentError: an option that cannot be used.
        ShapeError: (on the call) shapes that do not fit, or a sequence without steps.
        DTypeError: (on the call) an input of another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> rnn = nn.RNN(10, 20, 2)
        >>> output, h_n = rnn(jnp.ones((5, 3, 10)))
        >>> output.shape, h_n.shape
        ((5, 3, 20), (2, 3, 20))

    References:
        Elman, 1990; torch.nn.RNN
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        choice("nonlinearity", nonlinearity, ("tanh", "relu"))
        options = (num_layers, bias, batch_first, dropout, bidirectional)
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(mode, input_size, hidden_size, *options, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(
        self, input: jax.Array | PackedSequence, hx: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        function = F.rnn_tanh if self.mode == "RNN_TANH" else F.rnn_relu
        output, (state,) = self._run(function, input, hx)
        return output, state


class LSTM(RNNBase):
    r"""Layers of long short-term memories over a sequence.

    .. math::
        \begin{aligned}
        (i_t, f_t, g_t, o_t) &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f_t) \odot c_{t-1} + \sigma(i_t) \odot \tanh(g_t) \\
        h_t &= W_{hr} \big(\sigma(o_t) \odot \tanh(c_t)\big)
        \end{aligned}

    Args:
        input_size: see :class:`RNN`.
        hidden_size: number of features of the cell state, and of the hidden state without a projection.
        num_layers: see :class:`RNN`.
        bias: see :class:`RNN`.
        batch_first: see :class:`RNN`.
        dropout: see :class:`RNN`.
        bidirectional: see :class:`RNN`.
        proj_size: number of features of the hidden state, less than ``hidden_size``; 0 for no
            projection :math:`W_{hr}`.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    Shape:
        - input: as for :class:`RNN`.
        - hx: a pair of the initial hidden state,
          :math:`(D \cdot \text{num\_layers}, N, \text{proj\_size or hidden\_size})`, and cell state,
          :math:`(D \cdot \text{num\_layers}, N, \text{hidden\_size})`; zeros if left out.
        - output: as input, with :math:`D` times the features of the hidden state.
        - (h_n, c_n): as hx, after the last step.

    Attributes:
        weight_ih_l[k]: :math:`(4 \cdot \text{hidden\_size}, *)`, the gates i, f, g, o.
        weight_hh_l[k]: :math:`(4 \cdot \text{hidden\_size}, \text{proj\_size or hidden\_size})`.
        bias_ih_l[k], bias_hh_l[k]: :math:`(4 \cdot \text{hidden\_size})`.
        weight_hr_l[k]: :math:`(\text{proj\_size}, \text{hidden\_size})`, if there is a projection.
        weight_ih_l[k]_reverse: and the others, of the reverse direction. All are from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ArgumentError: an option that cannot be used, or (on the call) ``hx`` is not a pair.
        ShapeError: (on the call) shapes that do not fit, or a sequence without steps.
        DTypeError: (on the call) an input of another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> lstm = nn.LSTM(10, 20, 2)
        >>> output, (h_n, c_n) = lstm(jnp.ones((5, 3, 10)))
        >>> output.shape, h_n.shape, c_n.shape
        ((5, 3, 20), (2, 3, 20), (2, 3, 20))

    References:
        Hochreiter and Schmidhuber, 1997; torch.nn.LSTM
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = (num_layers, bias, batch_first, dropout, bidirectional, proj_size)
        super().__init__("LSTM", input_size, hidden_size, *options, device=device, dtype=dtype)

    def forward(
        self,
        input: jax.Array | PackedSequence,
        hx: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[Any, tuple[jax.Array, ...]]:
        return self._run(F.lstm, input, hx)


class GRU(RNNBase):
    r"""Layers of gated recurrent units over a sequence.

    .. math::
        \begin{aligned}
        r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}
        \end{aligned}

    Args:
        input_size: see :class:`RNN`.
        hidden_size: see :class:`RNN`.
        num_layers: see :class:`RNN`.
        bias: see :class:`RNN`.
        batch_first: see :class:`RNN`.
        dropout: see :class:`RNN`.
        bidirectional: see :class:`RNN`.
        device: where the parameters are placed.
        dtype: their dtype, float32 by default.

    Shape:
        As for :class:`RNN`.

    Attributes:
        weight_ih_l[k]: :math:`(3 \cdot \text{hidden\_size}, *)`, the gates r, z, n.
        weight_hh_l[k]: :math:`(3 \cdot \text{hidden\_size}, \text{hidden\_size})`.
        bias_ih_l[k], bias_hh_l[k]: :math:`(3 \cdot \text{hidden\_size})`.
        weight_ih_l[k]_reverse: and the others, of the reverse direction. All are from
            :math:`\mathcal{U}(-k, k)` with :math:`k = 1 / \sqrt{\text{hidden\_size}}`.

    Raises:
        ArgumentError: an option that cannot be used.
        ShapeError: (on the call) shapes that do not fit, or a sequence without steps.
        DTypeError: (on the call) an input of another dtype than the parameters.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> gru = nn.GRU(10, 20, bidirectional=True, batch_first=True)
        >>> output, h_n = gru(jnp.ones((3, 5, 10)))
        >>> output.shape, h_n.shape
        ((3, 5, 40), (2, 3, 20))

    References:
        Cho et al., 2014; torch.nn.GRU
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = (num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__("GRU", input_size, hidden_size, *options, device=device, dtype=dtype)

    def forward(
        self, input: jax.Array | PackedSequence, hx: jax.Array | None = None
    ) -> tuple[Any, jax.Array]:
        output, (state,) = self._run(F.gru, input, hx)
        return output, state


def _permuted(state: jax.Array, order: jax.Array | None) -> jax.Array:
    return state if order is None else state[:, order]


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, but got {describe(value)}")
    return value


def _probability(value: Any) -> float:
    # Unlike the dropout layers', this option refuses True: PyTorch takes it for a slip of position.
    if isinstance(value, bool):
        raise ArgumentError(f"dropout must be a number between 0 and 1, but got {value}")
    return float(probability("dropout", value))
