"""How many operations a program has, counted from its jaxpr: by the part of it that does them.

What is counted is what XLA's own cost analysis counts: one for every element of an elementwise operation, two
for every multiply-add of a matrix product or a convolution (those that meet the zeros around an input left
out), and what a reduction combines. Transcendental functions (``exp``, ``tanh``, ...) are a count of their own, as in
XLA, and moving data is free. In one thing this goes further: a scan counts as often as it runs.

Where a function has one form for CPUs and another for all other devices, the other one is counted.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Set
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import jaxprs_in_params

__all__ = ["Cost", "costs", "scope"]


class Cost(NamedTuple):
    """Operations of a program or of a part of it.

    Attributes:
        flops: operations, as XLA counts them.
        mult_adds: multiply-adds of matrix products and convolutions, those with padding included.
        transcendentals: values of ``exp``, ``log``, ``tanh`` and the like.

    Examples:
        >>> from funcnets.look.flops import Cost
        >>> Cost(2, 1) + Cost(4, 2)
        Cost(flops=6, mult_adds=3, transcendentals=0)
    """

    flops: int = 0
    mult_adds: int = 0
    transcendentals: int = 0

    def __add__(self, other: Any) -> Cost:
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, number: int) -> Cost:
        """The cost of doing it so many times."""
        return Cost(*(number * a for a in self))


def scope(number: int) -> str:
    """The name of the scope (``jax.named_scope``) of part ``number`` of a program."""
    return f"funcnets{number}_"


_SCOPE = re.compile(r"funcnets(\d+)_")


def costs(jaxpr: Any, parts: Set[int] = frozenset()) -> dict[int | None, Cost]:
    """What each part of a program does by itself, without the parts within it.

    Args:
        jaxpr: a jaxpr, closed or not.
        parts: the numbers of the parts; other scopes are not looked at.

    Returns:
        A cost by the number of the part; None stands for what is in no part.
    """
    found: dict[int | None, Cost] = {}
    for owner, cost in _Walk(parts).steps(jaxpr, None, 1):
        found[owner] = found.get(owner, Cost()) + cost
    return found


class _Walk(NamedTuple):
    """Through a program and the programs in it."""

    parts: Set[int]

    def steps(self, jaxpr: Any, owner: int | None, times: int) -> Iterator[tuple[int | None, Cost]]:
        """The cost of each operation, and the part that it belongs to."""
        for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
            names = _SCOPE.findall(str(eqn.source_info.name_stack))
            # Inside of a scan, say, the names start anew.
            own = next((n for n in map(int, reversed(names)) if n in self.parts), owner)
            name, params = eqn.primitive.name, eqn.params
            if name == "cond":
                yield from self.branch(params, own, times)
            elif name == "scan":
                yield from self.steps(params["jaxpr"], own, times * params["length"])
            elif inner := list(jaxprs_in_params(params)) if name not in _WITH_RULES else []:
                for each in inner:
                    yield from self.steps(each, own, times)
            elif any(cost := _cost(name, eqn)):
                yield own, cost.times(times)

    def branch(self, params: dict[str, Any], owner: int | None, times: int) -> list[Any]:
        """The branch for all devices but CPUs, or the most expensive one."""
        platforms = params.get("branches_platforms")
        if platforms is not None and None in platforms:
            return list(self.steps(params["branches"][platforms.index(None)], owner, times))
        each = [list(self.steps(branch, owner, times)) for branch in params["branches"]]
        return max(each, key=lambda found: sum(cost.flops for _, cost in found))


# --- one operation ----------------------------------------------------------------------------


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What only moves, makes or names data.
_FREE = _names(
    """
    bitcast_convert_type broadcast_in_dim concatenate copy copy_p create_token device_put dynamic_slice
    dynamic_update_slice expand_dims gather iota optimization_barrier pad platform_index
    random_unwrap random_wrap reshape rev scatter select_and_gather_add sharding_constraint
    slice split squeeze stack stop_gradient tile transpose unstack name pvary
    """
)
_TRANSCENDENTAL = _names(
    """
    acos acosh asin asinh atan atan2 atanh cbrt cos cosh digamma erf erf_inv erfc exp exp2 expm1 lgamma log
    log1p logistic pow rsqrt sin sinh sqrt tan tanh
    """
)
#: What is computed around the transcendental function, 1 / (1 + exp(-x)).
_AROUND = {"logistic": 3}
#: Reductions whose jaxpr, if they have one, is that of a single combination.
_WITH_RULES = _names(
    """
    reduce reduce_precision reduce_window scatter scatter-add scatter-max scatter-min scatter-mul scatter_add
    scatter_max scatter_min scatter_mul select_and_scatter select_and_scatter_add sort
    """
)
#: An index goes along with what is compared: comparisons of both, and the choices.
_ARG = 9
#: Of Threefry, for each word of its output.
_BITS = 60


def _cost(name: str, eqn: Any) -> Cost:
    out = sum(_size(v) for v in eqn.outvars)
    if name in _FREE:
        return Cost()
    if name in _TRANSCENDENTAL:
        return Cost(_AROUND.get(name, 0) * out, 0, out)
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        terms = math.prod(shape[i] for i in contracted)
        products = _size(eqn.outvars[0]) * terms
        return Cost(2 * products if terms > 1 else products, products)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    first = _size(eqn.invars[0]) if eqn.invars else 0
    if name in ("argmax", "argmin"):
        return Cost(_ARG * (first - out))
    if name.startswith("reduce_window"):
        window = math.prod(eqn.params["window_dimensions"])
        return Cost(_size(eqn.outvars[0]) * (window - 1))
    if name == "reduce" or (name.startswith("reduce_") and name != "reduce_precision"):
        return Cost(first - _size(eqn.outvars[0]))
    if name.startswith("select_and_scatter"):
        window = math.prod(eqn.params["window_dimensions"])
        return Cost(_size(eqn.invars[0]) * window)
    if name.startswith("scatter"):
        return Cost(_size(eqn.invars[-1]))
    if name in ("sort", "top_k"):
        return Cost(first * max(1, math.ceil(math.log2(max(first, 2)))))
    if name.startswith("cum"):
        return Cost(2 * out)
    if name in ("random_bits", "threefry2x32"):
        return Cost(_BITS * out)
    if name == "integer_pow":
        power = abs(eqn.params["y"])
        steps = power.bit_length() + power.bit_count() - 2 + (eqn.params["y"] < 0)
        return Cost(max(steps, 0) * out)
    return Cost(out)


def _size(variable: Any) -> int:
    return math.prod(getattr(variable.aval, "shape", ()))


def _convolution(eqn: Any) -> Cost:
    params, (x, w), (out,) = eqn.params, eqn.invars[:2], eqn.outvars
    numbers = params["dimension_numbers"]
    batch = out.aval.shape[numbers.out_spec[0]]
    kernel = [w.aval.shape[i] for i in numbers.rhs_spec]
    # (out channels, in channels of a group, positions ...)
    channels = kernel[0] * kernel[1]
    valid = every = batch * channels
    for n, size in enumerate(kernel[2:]):
        positions = out.aval.shape[numbers.out_spec[2 + n]]
        every *= positions * size
        valid *= _valid(
            x.aval.shape[numbers.lhs_spec[2 + n]],
            size,
            positions,
            params["window_strides"][n],
            params["padding"][n][0],
            params["lhs_dilation"][n],
            params["rhs_dilation"][n],
        )
    return Cost(2 * valid, every)


@functools.lru_cache(maxsize=1024)
def _valid(
    size: int, kernel: int, positions: int, stride: int, low: int, spread: int, dilation: int
) -> int:
    """How often a tap of the kernel meets an element of the input, along one axis."""
    start = np.arange(positions) * stride - low
    total = 0
    for tap in range(kernel):
        at = start + tap * dilation
        total += int(np.count_nonzero((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)))
    return total
