"""The search of L-BFGS as a state machine: one call for each evaluation of the objective.

``advance`` takes the state of the search with the value and the gradient at the position that it asked
for, and gives the next state with the next position, or says that it is done. So the same compiled
function serves a Python loop, which calls the user's function between the calls, and a
``jax.lax.while_loop``, of which both are the body.

    START      first evaluation                  -> ITERATE or DONE
    ITERATE    new direction and step            -> BRACKET or MOVE, which wait for an evaluation
    BRACKET    the step is made longer           -> BRACKET, NARROW or SEARCHED
    NARROW     a trial step within the bracket   -> ZOOM, which waits for an evaluation, or SEARCHED
    ZOOM       the bracket is made smaller       -> NARROW or SEARCHED
    SEARCHED   the line search has a step        -> MOVED
    MOVE       a step without line search        -> MOVED
    MOVED      is it enough?                     -> ITERATE or DONE
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from funcnets.optim._parts import wide

START, MOVE, BRACKET, ZOOM, NARROW, SEARCHED, MOVED, ITERATE, DONE = range(9)
#: Constants of the strong Wolfe conditions.
ARMIJO, CURVATURE = 1e-4, 0.9


class Settings(NamedTuple):
    """The numbers that end a search; data of the program, if one likes."""

    max_iter: Any
    max_eval: Any
    tolerance_grad: Any
    tolerance_change: Any


class LBFGSState(NamedTuple):
    """What is kept between the steps, for all parameters in one vector, under PyTorch's names.

    The history begins with the oldest entry; its unused places have ``ro`` zero.
    """

    func_evals: jax.Array
    n_iter: jax.Array
    d: jax.Array
    t: jax.Array
    old_dirs: jax.Array
    old_stps: jax.Array
    ro: jax.Array
    H_diag: jax.Array
    prev_flat_grad: jax.Array
    prev_loss: jax.Array


class Bracket(NamedTuple):
    """Two steps with value, gradient and slope, between which the line search looks."""

    t: jax.Array
    f: jax.Array
    g: jax.Array
    slope: jax.Array


class Search(NamedTuple):
    """One running search."""

    phase: jax.Array
    x: jax.Array  # where the objective is to be evaluated, and at last the result
    origin: jax.Array  # where the present iteration began
    loss: jax.Array
    grad: jax.Array
    evals: jax.Array
    iterations: jax.Array
    slope: jax.Array  # along the direction, at the origin
    trials: jax.Array  # evaluations of the present line search
    rounds: jax.Array
    bracket: Bracket
    low: jax.Array  # which end of the bracket is lower
    stuck: jax.Array  # whether the last trial was near an end
    state: LBFGSState


# --- vectors ----------------------------------------------------------------------------------


class Flat(NamedTuple):
    """How arrays become one real vector, complex ones as pairs, and the vector arrays again."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]

    @classmethod
    def of(cls, arrays: Sequence[Any]) -> Flat:
        return cls(tuple(tuple(a.shape) for a in arrays), tuple(jnp.dtype(a.dtype) for a in arrays))

    @property
    def dtype(self) -> Any:
        return jnp.result_type(*(wide(jnp.finfo(d).dtype) for d in self.dtypes))

    @property
    def size(self) -> int:
        return sum(math.prod(s) * _width(d) for s, d in zip(self.shapes, self.dtypes, strict=True))

    def ravel(self, arrays: Sequence[Any]) -> jax.Array:
        parts = []
        for array in arrays:
            if jnp.issubdtype(array.dtype, jnp.complexfloating):
                array = jnp.stack([array.real, array.imag], -1)
            parts.append(array.reshape(-1).astype(self.dtype))
        return jnp.concatenate(parts)

    def unravel(self, vector: jax.Array) -> list[jax.Array]:
        arrays, start = [], 0
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            width = _width(dtype)
            piece = vector[start : start + math.prod(shape) * width]
            start += math.prod(shape) * width
            if width == 2:
                pairs = piece.astype(jnp.finfo(dtype).dtype).reshape(-1, 2)
                piece = jax.lax.complex(pairs[:, 0], pairs[:, 1])
            arrays.append(piece.reshape(shape).astype(dtype))
        return arrays


def _width(dtype: Any) -> int:
    return 2 if jnp.issubdtype(dtype, jnp.complexfloating) else 1


# --- the beginning ----------------------------------------------------------------------------


def fresh(flat: Flat, history_size: int) -> LBFGSState:
    """The state before the first step."""
    vector, number = jnp.zeros(flat.size, flat.dtype), jnp.zeros((), flat.dtype)
    history = jnp.zeros((history_size, flat.size), flat.dtype)
    count = jnp.zeros((), jnp.int32)
    ro = jnp.zeros(history_size, flat.dtype)
    return LBFGSState(
        count, count, vector, number, history, history, ro, number + 1, vector, number
    )


def begin(state: LBFGSState, x: jax.Array) -> Search:
    """A search from ``x``, which first asks for an evaluation there."""
    number, count = jnp.zeros((), x.dtype), jnp.zeros((), jnp.int32)
    pair = jnp.zeros(2, x.dtype)
    bracket = Bracket(pair, pair, jnp.zeros((2, x.size), x.dtype), pair)
    return Search(
        phase=jnp.full((), START, jnp.int32),
        x=x,
        origin=x,
        loss=number,
        grad=jnp.zeros_like(x),
        evals=count,
        iterations=count,
        slope=number,
        trials=count,
        rounds=count,
        bracket=bracket,
        low=count,
        stuck=jnp.zeros((), bool),
        state=state,
    )


# --- the rules of the phases ------------------------------------------------------------------


def advance(
    line_search: bool, settings: Settings, lr: Any, s: Search, f: jax.Array, g: jax.Array
) -> Search:
    """The next state, given value and gradient at ``s.x``."""
    lr, f = jnp.asarray(lr).astype(s.x.dtype), jnp.asarray(f).astype(s.x.dtype)
    received = [_start, _move, _bracket, _zoom] if line_search else [_start, _move]
    branches = [lambda s, f, g, rule=rule: _like(s, rule(settings, s, f, g)) for rule in received]
    s = jax.lax.switch(s.phase, branches, s, f, g)
    rules: list[tuple[int, Callable[[Search], Search]]] = [
        (NARROW, lambda s: _narrow(settings, s)),
        (SEARCHED, _searched),
        (MOVED, lambda s: _moved(settings, s)),
        (ITERATE, lambda s: _iterate(line_search, settings, lr, s)),
    ]
    for phase, rule in rules if line_search else rules[2:]:
        s = jax.lax.cond(s.phase == phase, lambda s, f=rule: _like(s, f(s)), lambda s: s, s)
    return s


def _like(old: Search, new: Search) -> Search:
    """The new state in the dtypes of the old one."""
    return jax.tree.map(lambda a, b: jnp.asarray(b).astype(a.dtype), old, new)


def _start(settings: Settings, s: Search, f: Any, g: Any) -> Search:
    optimal = (jnp.abs(g).max() <= settings.tolerance_grad) | (settings.max_iter <= 0)
    s = _counted(s._replace(loss=f, grad=g), 1)
    return s._replace(phase=jnp.where(optimal, DONE, ITERATE))


def _counted(s: Search, evaluations: Any) -> Search:
    state = s.state._replace(func_evals=s.state.func_evals + evaluations)
    return s._replace(evals=s.evals + evaluations, state=state)


def _iterate(line_search: bool, settings: Settings, lr: jax.Array, s: Search) -> Search:
    """A new direction, and a first step along it."""
    state = s.state._replace(n_iter=s.state.n_iter + 1)
    first = state.n_iter == 1
    state = jax.lax.cond(first, lambda: state, lambda: _remember(state, s.grad))
    d = jnp.where(first, -s.grad, _direction(state, s.grad))
    t = jnp.where(first, jnp.minimum(1.0, 1.0 / jnp.abs(s.grad).sum()) * lr, lr)
    state = state._replace(d=d, t=t, prev_flat_grad=s.grad, prev_loss=s.loss)
    slope = s.grad @ d
    iterations = s.iterations + 1
    flat = slope > -settings.tolerance_change
    pair = jnp.stack([jnp.zeros_like(t), t])
    last = jnp.stack([s.loss, s.loss])
    bracket = Bracket(pair, last, jnp.stack([s.grad, s.grad]), jnp.stack([slope, slope]))
    if line_search:
        phase = jnp.full((), BRACKET, jnp.int32)
    else:  # in a stochastic setting nobody wants the value after the last step
        phase = jnp.where(iterations == settings.max_iter, DONE, MOVE)
    return s._replace(
        phase=jnp.where(flat, DONE, phase),
        x=jnp.where(flat, s.x, s.x + t * d),
        origin=s.x,
        iterations=iterations,
        slope=slope,
        trials=jnp.zeros_like(s.trials),
        rounds=jnp.zeros_like(s.rounds),
        bracket=bracket,
        stuck=jnp.zeros_like(s.stuck),
        state=state,
    )


def _remember(state: LBFGSState, grad: jax.Array) -> LBFGSState:
    """The history with the last step, if the curvature along it was positive."""
    y, step = grad - state.prev_flat_grad, state.d * state.t
    curvature = y @ step

    def appended() -> LBFGSState:
        size = state.ro.size
        count = (state.ro != 0).sum()
        full = count == size
        place = jnp.where(full, size - 1, count)

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(full, jnp.roll(old, -1, 0), old).at[place].set(new)

        return state._replace(
            old_dirs=put(state.old_dirs, y),
            old_stps=put(state.old_stps, step),
            ro=put(state.ro, 1.0 / curvature),
            H_diag=curvature / (y @ y),
        )

    return jax.lax.cond(curvature > 1e-10, appended, lambda: state)


def _direction(state: LBFGSState, grad: jax.Array) -> jax.Array:
    """Minus the approximate inverse Hessian times the gradient, by the two-loop recursion."""
    count = (state.ro != 0).sum()

    def newest_first(k: jax.Array, carry: Any) -> Any:
        q, al = carry
        i = count - 1 - k
        share = (state.old_stps[i] @ q) * state.ro[i]
        return q - share * state.old_dirs[i], al.at[i].set(share)

    def oldest_first(i: jax.Array, r: jax.Array) -> jax.Array:
        share = (state.old_dirs[i] @ r) * state.ro[i]
        return r + (al[i] - share) * state.old_stps[i]

    q, al = jax.lax.fori_loop(0, count, newest_first, (-grad, jnp.zeros_like(state.ro)))
    return jax.lax.fori_loop(0, count, oldest_first, q * state.H_diag)


def _move(settings: Settings, s: Search, f: Any, g: Any) -> Search:
    s = _counted(s, 1)
    return s._replace(loss=f, grad=g, phase=jnp.full((), MOVED, jnp.int32))


def _moved(settings: Settings, s: Search) -> Search:
    state = s.state
    enough = (
        (s.iterations == settings.max_iter)
        | (s.evals >= settings.max_eval)
        | (jnp.abs(s.grad).max() <= settings.tolerance_grad)
        | (jnp.abs(state.d * state.t).max() <= settings.tolerance_change)
        | (jnp.abs(s.loss - state.prev_loss) < settings.tolerance_change)
    )
    return s._replace(phase=jnp.where(enough, DONE, ITERATE))


# --- the line search --------------------------------------------------------------------------


def _to_step(s: Search, t: jax.Array, phase: Any) -> Search:
    """Ask for an evaluation at the step ``t``."""
    return s._replace(
        x=s.origin + t * s.state.d, state=s.state._replace(t=t), phase=jnp.asarray(phase, jnp.int32)
    )


def _bracket(settings: Settings, s: Search, f: Any, g: Any) -> Search:
    """The present step is the second of the bracket; is there a minimum between it and the first?"""
    t, last = s.state.t, s.bracket
    slope = g @ s.state.d
    over = s.rounds >= settings.max_eval - s.evals
    too_high = (f > s.loss + ARMIJO * t * s.slope) | ((s.rounds > 1) & (f >= last.f[0]))
    fits = ~too_high & (jnp.abs(slope) <= -CURVATURE * s.slope)
    found = over | fits
    enclosed = ~found & (too_high | (slope >= 0))
    here = Bracket(t, f, g, slope)
    begin = Bracket(jnp.zeros_like(t), s.loss, s.grad, s.slope)

    def first(before: Any, present: Any, origin: Any) -> jax.Array:
        return jnp.where(over, origin, jnp.where(found, present, before))

    low_end = Bracket(*map(first, (part[0] for part in last), here, begin))
    ends = Bracket(*(jnp.stack([a, b]) for a, b in zip(low_end, here, strict=True)))
    longer = _cubic(
        *(last.t[0], last.f[0], last.slope[0], t, f, slope),
        (t + 0.01 * (t - last.t[0]), t * 10),
    )
    moved_on = Bracket(*(jnp.stack([part, part]) for part in here))
    on = ~found & ~enclosed
    s = s._replace(
        trials=s.trials + 1,
        rounds=s.rounds + jnp.where(on, 1, 0),
        bracket=jax.tree.map(lambda a, b: jnp.where(on, a, b), moved_on, ends),
        low=jnp.where(ends.f[0] <= ends.f[1], 0, 1),
    )
    phase = jnp.where(found, SEARCHED, jnp.where(enclosed, NARROW, BRACKET))
    return _to_step(s, jnp.where(on, longer, t), phase)


def _narrow(settings: Settings, s: Search) -> Search:
    """A trial step within the bracket, not too near to its ends twice in a row."""
    b = s.bracket
    least, most = b.t.min(), b.t.max()
    width = most - least
    t = _cubic(b.t[0], b.f[0], b.slope[0], b.t[1], b.f[1], b.slope[1])
    near = jnp.minimum(most - t, t - least) < 0.1 * width
    away = near & (s.stuck | (t >= most) | (t <= least))
    nearer_end = jnp.where(
        jnp.abs(t - most) < jnp.abs(t - least), most - 0.1 * width, least + 0.1 * width
    )
    small = width * jnp.abs(s.state.d).max() < settings.tolerance_change
    return _to_step(
        s._replace(stuck=jnp.where(small, s.stuck, near & ~away)),
        jnp.where(small, s.state.t, jnp.where(away, nearer_end, t)),
        jnp.where(small, SEARCHED, ZOOM),
    )


def _zoom(settings: Settings, s: Search, f: Any, g: Any) -> Search:
    """The trial takes the place of one end of the bracket."""
    b, t, low = s.bracket, s.state.t, s.low
    high = 1 - low
    slope = g @ s.state.d
    too_high = (f > s.loss + ARMIJO * t * s.slope) | (f >= b.f[low])
    fits = ~too_high & (jnp.abs(slope) <= -CURVATURE * s.slope)
    turn = ~too_high & ~fits & (slope * (b.t[high] - b.t[low]) >= 0)
    here = Bracket(t, f, g, slope)

    def replaced(part: jax.Array, new: jax.Array) -> jax.Array:
        part = part.at[high].set(jnp.where(turn, part[low], part[high]))
        return part.at[jnp.where(too_high, high, low)].set(new)

    b = Bracket(*map(replaced, b, here))
    rounds = s.rounds + 1
    done = fits | (rounds >= settings.max_eval - s.evals)
    return s._replace(
        phase=jnp.where(done, SEARCHED, NARROW),
        trials=s.trials + 1,
        rounds=rounds,
        bracket=b,
        low=jnp.where(too_high, jnp.where(b.f[0] <= b.f[1], 0, 1), low),
    )


def _searched(s: Search) -> Search:
    b = s.bracket
    s = _counted(s._replace(loss=b.f[s.low], grad=b.g[s.low]), s.trials)
    return _to_step(s, b.t[s.low], MOVED)


def _cubic(
    x1: Any, f1: Any, g1: Any, x2: Any, f2: Any, g2: Any, bounds: tuple[Any, Any] | None = None
) -> jax.Array:
    """Where the cubic with these values and slopes is least, within the bounds."""
    least, most = (jnp.minimum(x1, x2), jnp.maximum(x1, x2)) if bounds is None else bounds
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1**2 - g1 * g2
    d2 = jnp.sqrt(jnp.where(square >= 0, square, 0))
    right = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    left = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    inner = jnp.where(x1 <= x2, right, left)
    # Written so that NaN goes where PyTorch's comparisons send it.
    inner = jnp.where(least > inner, least, inner)
    inner = jnp.where(most < inner, most, inner)
    return jnp.where(square >= 0, inner, (least + most) / 2.0)
