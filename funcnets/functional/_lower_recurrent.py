r"""How a direction of a recurrent layer is run, and differentiated, on each platform.

Forward. On an accelerator the whole input is projected in one matrix product, and the loop is left with the
product of the hidden state. A CPU has the input product in the loop as well: XLA's code for a step that
reads its gates out of a larger array is so much slower that it costs more than the large product gains
(``python -m benchmarks.lowering recurrent``).

Derivatives, on every platform. The derivative that JAX makes of the loop adds to the gradient of the weights
in every step. Here the tangents of the weights and of the input enter through matrix products over the whole
sequence, before a loop over the tangents of the state:

.. math::
    dg_t &= W_{ih}\, dx_t + dW_{ih}\, x_t + dW_{hh}\, h_{t-1} + db \\
    ds_t &= A_t\, (dg_t + W_{hh}\, dh_{t-1}) + B_t\, ds_{t-1}

JAX transposes this into backpropagation through time with one product for each gradient after the loop. The
diagonal matrices :math:`A_t, B_t` (``slopes`` below) are kept from the forward loop. All of it is one
``custom_jvp``, so forward mode and higher derivatives are JAX's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from funcnets.functional.linear import linear
from funcnets.functional.recurrent_cell import GRU, LSTM, RELU, TANH, Kind, State, Weights

__all__ = ["scan_cell"]

Slopes = tuple[jax.Array, ...]


class Linearised(NamedTuple):
    """A kind of cell as a step whose derivative is written out.

    Both work on what the input and the hidden state contribute to the gates, ``x`` and ``h``. Some of ``x``
    may not be added to ``h``: ``apart`` gives ``x`` as (what is added, the rest or None), and is linear.
    """

    apart: Callable[[jax.Array], tuple[jax.Array, jax.Array | None]]
    #: (x, h, state) -> (next state before a projection, slopes)
    step: Callable[[jax.Array, jax.Array, State], tuple[State, Slopes]]
    #: (slopes, tangent of the sum, of the rest, of the state) -> tangent of the next state
    tangent: Callable[[Slopes, jax.Array, Any, State], State]


def _tanh_step(x: jax.Array, h: jax.Array, state: State) -> tuple[State, Slopes]:
    out = jnp.tanh(x + h)
    return (out,), (1 - out * out,)


def _relu_step(x: jax.Array, h: jax.Array, state: State) -> tuple[State, Slopes]:
    total = x + h
    return (jax.nn.relu(total),), ((total > 0).astype(total.dtype),)


def _elman_tangent(slopes: Slopes, total: jax.Array, rest: None, state: State) -> State:
    return (slopes[0] * total,)


def _lstm_step(x: jax.Array, h: jax.Array, state: State) -> tuple[State, Slopes]:
    i, f, g, o = jnp.split(x + h, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    cell = f * state[1] + i * g
    bent = jnp.tanh(cell)
    of_gates = (g * i * (1 - i), state[1] * f * (1 - f), i * (1 - g * g), bent * o * (1 - o))
    return (o * bent, cell), (*of_gates, f, o * (1 - bent * bent))


def _lstm_tangent(slopes: Slopes, total: jax.Array, rest: None, state: State) -> State:
    i, f, g, o = jnp.split(total, 4, axis=-1)
    of_i, of_f, of_g, of_o, of_cell, of_next = slopes
    cell = of_cell * state[1] + of_i * i + of_f * f + of_g * g
    return of_o * o + of_next * cell, cell


def _gru_apart(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    gates, new = jnp.split(x, [x.shape[-1] // 3 * 2], axis=-1)
    return jnp.concatenate([gates, jnp.zeros_like(new)], axis=-1), new


def _gru_step(x: jax.Array, h: jax.Array, state: State) -> tuple[State, Slopes]:
    r_x, z_x, n_x = jnp.split(x, 3, axis=-1)
    r_h, z_h, n_h = jnp.split(h, 3, axis=-1)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    n = jnp.tanh(n_x + r * n_h)
    of_new = (1 - z) * (1 - n * n)
    of_gates = (of_new * n_h * r * (1 - r), (state[0] - n) * z * (1 - z), of_new * r)
    return (n + z * (state[0] - n),), (*of_gates, of_new, z)


def _gru_tangent(slopes: Slopes, total: jax.Array, rest: jax.Array, state: State) -> State:
    r, z, n = jnp.split(total, 3, axis=-1)
    of_r, of_z, of_n, of_new, of_state = slopes
    return (of_r * r + of_z * z + of_n * n + of_new * rest + of_state * state[0],)


def _all_added(x: jax.Array) -> tuple[jax.Array, None]:
    return x, None


_LINEARISED = {
    TANH: Linearised(_all_added, _tanh_step, _elman_tangent),
    RELU: Linearised(_all_added, _relu_step, _elman_tangent),
    LSTM: Linearised(_all_added, _lstm_step, _lstm_tangent),
    GRU: Linearised(_gru_apart, _gru_step, _gru_tangent),
}


# Compiled as one: an eager call would otherwise compile a new loop every time.
@functools.partial(jax.jit, static_argnums=(0, 1))
def scan_cell(
    kind: Kind,
    reverse: bool,
    input: jax.Array,
    state: State,
    weights: Weights,
    mask: jax.Array | None,
) -> tuple[jax.Array, State]:
    """Run a cell over time, see ``run_direction`` of ``recurrent.py``; the arrays are checked."""
    return _run(kind, reverse, input, state, weights, mask)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _run(
    kind: Kind, reverse: bool, input: Any, state: State, weights: Weights, mask: Any
) -> tuple[jax.Array, State]:
    def step(x: jax.Array, h: jax.Array, state: State) -> tuple[State, tuple[()]]:
        return kind.step(x, h, state), ()

    output, final, *_ = _loop(step, reverse, input, state, weights, mask)
    return output, final


def _tangent(kind: Kind, reverse: bool, primals: Any, tangents: Any) -> Any:
    (input, state, weights, mask), (d_input, d_state, d_weights, _) = primals, tangents
    linearised = _LINEARISED[kind]

    output, final, slopes, unprojected = _loop(
        linearised.step, reverse, input, state, weights, mask
    )

    # What does not depend on the tangent of the state, for all steps at once.
    first = jnp.expand_dims(state[0], 0)
    rows = [output[1:], first] if reverse else [first, output[:-1]]
    before = jnp.concatenate(rows)  # the hidden state that each step began with
    x = [(d_input, weights.ih), (input, d_weights.ih), (d_weights.b_ih,)]
    h = [(before, d_weights.hh), (d_weights.b_hh,)]
    gates = (*input.shape[:2], weights.hh.shape[0])
    total, rest = linearised.apart(_summed(x, gates, input.dtype))
    total = total + _summed(h, gates, input.dtype)
    outward = None
    if weights.hr is not None:
        outward = _summed([(unprojected, d_weights.hr)], output.shape, input.dtype)

    def advance(d_state: State, steps: Any) -> tuple[State, jax.Array]:
        slopes, total, rest, outward, active = steps
        total = total + linear(d_state[0], weights.hh)
        following = linearised.tangent(slopes, total, rest, d_state)
        if weights.hr is not None:
            following = (outward + linear(following[0], weights.hr), *following[1:])
        following = _where(active, following, d_state)
        return following, following[0]

    steps = (slopes, total, rest, outward, mask)
    d_state = tuple(
        jnp.zeros_like(part) if isinstance(d_part, SymbolicZero) else d_part
        for part, d_part in zip(state, d_state, strict=True)
    )
    d_state = varying(d_state, (d_state, steps, weights))
    d_final, d_output = lax.scan(advance, d_state, steps, reverse=reverse)
    return (output, final), (d_output, d_final)


_run.defjvp(_tangent, symbolic_zeros=True)


def _loop(
    step: Callable[[jax.Array, jax.Array, State], tuple[State, Any]],
    reverse: bool,
    input: jax.Array,
    state: State,
    weights: Weights,
    mask: jax.Array | None,
) -> tuple[jax.Array, State, Any, jax.Array | None]:
    """The outputs, the final state, what else the step gives, and the outputs before a projection."""
    # XLA's products for a CPU are slower if the second factor lies transposed.
    wide = weights._replace(ih=weights.ih.T, hh=weights.hh.T)

    def scan(projected: bool, xs: jax.Array, state: State, weights: Weights, mask: Any) -> Any:
        def advance(state: State, inputs: tuple[jax.Array, Any]) -> tuple[State, Any]:
            x, active = inputs
            x = x if projected else _affine(x, weights.ih, weights.b_ih)
            following, others = step(x, _affine(state[0], weights.hh, weights.b_hh), state)
            unprojected = None
            if weights.hr is not None:
                unprojected, *rest = following
                following = (linear(unprojected, weights.hr), *rest)
            following = _where(active, following, state)
            return following, (following[0], others, unprojected)

        final, outputs = lax.scan(advance, state, (xs, mask), reverse=reverse)
        return outputs[0], final, *outputs[1:]

    def inside(x: jax.Array, state: State, weights: Weights, mask: Any) -> Any:
        return scan(False, x, state, weights, mask)

    def outside(x: jax.Array, state: State, weights: Weights, mask: Any) -> Any:
        return scan(True, _affine(x, weights.ih, weights.b_ih), state, weights, mask)

    state = varying(state, (state, input, weights, mask))
    return lax.platform_dependent(input, state, wide, mask, cpu=inside, default=outside)


def _affine(x: jax.Array, weight: jax.Array, bias: jax.Array | None) -> jax.Array:
    """``linear`` with the weight's axes the other way round."""
    out = x @ weight
    return out if bias is None else out + _at_rank(bias, out)


def _at_rank(vector: jax.Array, like: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def _where(active: jax.Array | None, new: State, old: State) -> State:
    """``new`` for the sequences that have this step."""
    if active is None:
        return new
    return tuple(jnp.where(active[:, None], n, o) for n, o in zip(new, old, strict=True))


def _summed(terms: list[tuple[Any, ...]], shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The sum of products ``(x, weight)`` and vectors ``(bias,)`` of which some may be no tangent at all."""
    out = None
    for term in terms:
        if any(factor is None or isinstance(factor, SymbolicZero) for factor in term):
            continue
        value = linear(*term) if len(term) == 2 else jnp.broadcast_to(term[0], shape)
        out = value if out is None else out + value
    return jnp.zeros(shape, dtype) if out is None else out


def varying(state: State, others: Any) -> State:
    """``state`` marked as varying over every mapped axis of ``jax.shard_map`` that the others do.

    A scan wants its carry so marked from the start, and an initial state is often a constant.
    """

    def axes(x: jax.Array) -> frozenset[str]:
        # Read from the type under the name that it has in this version of JAX.
        kind = jax.typeof(x)
        manual = getattr(kind, "manual_axis_type", None)
        return getattr(kind, "vma", frozenset()) if manual is None else manual.varying

    wanted = frozenset[str]().union(*(axes(leaf) for leaf in jax.tree.leaves(others)))

    def mark(part: jax.Array) -> jax.Array:
        missing = tuple(sorted(wanted - axes(part)))
        return lax.pcast(part, missing, to="varying") if missing else part

    return tuple(mark(part) for part in state)
