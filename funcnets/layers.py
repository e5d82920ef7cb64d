"""Ready pairs and combinators: models without classes.

``layers.Linear(8, 16)`` is ``functionalize(nn.Linear(8, 16))``, and so for every class of ``funcnets.nn`` that
computes something: the same arguments, a :class:`funcnets.Layer` instead of a Module. The combinators put
pairs together into pairs:

    >>> import jax, jax.numpy as jnp
    >>> from funcnets import layers
    >>> init, apply = layers.serial(
    ...     layers.Linear(4, 8), layers.residual(layers.Linear(8, 8)), layers.Dropout(0.1)
    ... )
    >>> params, state = init(jax.random.key(0))
    >>> out, state = apply(params, state, jnp.ones((2, 4)), training=False)
    >>> out.shape
    (2, 8)

A combinator names its children "0", "1", ...: its ``params`` and ``state`` are dicts of the children's own
under these names. An empty dict is left out, and the child gets one all the same. A child's key is
``child_key(key, "0")``, for ``init`` and for ``rng``. So ``serial`` of pairs has the parameters, values
included, of ``functionalize(nn.Sequential(...))``. Pairs written by hand take part like all others.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from funcnets import nn
from funcnets._args import as_int, describe, positive
from funcnets.core.keys import child_key
from funcnets.core.layer import Layer, functionalize
from funcnets.errors import DTypeError, ShapeError, TreeError
from funcnets.nn.from_layer import as_layer

__all__ = ["fan_in_concat", "fan_in_sum", "fan_out", "parallel", "residual", "serial", "stateless"]


# --- the one combinator behind all ------------------------------------------------------------


def _combine(
    owner: str, layers: Sequence[Any], forward: Callable[[Callable[[str, Any], Any], Any], Any]
) -> Layer:
    """A pair out of pairs named "0", "1", ...

    Args:
        owner: the combinator's name, for errors.
        layers: the pairs.
        forward: ``(call, x) -> out``, where ``call(name, x)`` applies one of the pairs.
    """
    children = {str(i): as_layer(f"layer {i} of {owner}", layer) for i, layer in enumerate(layers)}

    def init(key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}
        for name, layer in children.items():
            with _noting(owner, name):
                params[name], state[name] = layer.init(child_key(key, name))
        return _without_empty(params), _without_empty(state)

    def apply(
        params: dict[str, Any],
        state: dict[str, Any],
        x: Any,
        *,
        rng: jax.Array | None = None,
        training: bool | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        _check_names(owner, "params", params, children)
        _check_names(owner, "state", state, children)
        new_state: dict[str, Any] = {}

        def call(name: str, x: Any) -> Any:
            key = None if rng is None else child_key(rng, name)
            with _noting(owner, name):
                out, new_state[name] = children[name].apply(
                    params.get(name, {}), state.get(name, {}), x, rng=key, training=training
                )
            return out

        out = forward(call, x)
        return out, _without_empty(new_state)

    return Layer(init, apply)


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: sub for name, sub in tree.items() if not (isinstance(sub, dict) and not sub)}


def _check_names(owner: str, what: str, tree: Any, children: dict[str, Layer]) -> None:
    if not isinstance(tree, dict):
        raise TreeError(
            f"{what} of {owner} must be a dict, as init(key) gives it, but got {describe(tree)}"
        )
    unknown = [str(name) for name in tree if name not in children]
    if unknown:
        raise TreeError(
            f"{what} do not fit {owner}:\n    unknown: {', '.join(unknown)}\n"
            f"the names of its layers are: {', '.join(children) or 'none, it has no layers'}"
        )


@contextmanager
def _noting(owner: str, name: str) -> Iterator[None]:
    """Add to an exception in which child it was raised."""
    try:
        yield
    except Exception as error:
        error.add_note(f"In layer '{name}' of {owner}.")
        raise


def _arrays(owner: str, x: Any, count: int | None = None) -> Sequence[Any]:
    """``x`` if it is a tuple or list, of ``count`` elements if given."""
    wanted = "a tuple" if count is None else f"a tuple of {count} inputs, one for each layer,"
    if not isinstance(x, (tuple, list)) or not x or len(x) != (len(x) if count is None else count):
        length = f" of {len(x)}" if isinstance(x, (tuple, list)) else ""
        raise ShapeError(
            f"{owner} takes {wanted} but got {type(x).__name__}{length}: {describe(x)}"
        )
    return x


# --- combinators ------------------------------------------------------------------------------


def serial(*layers: Layer) -> Layer:
    r"""Pairs one after the other: the output of each is the input of the next.

    .. math::
        y = f_{n-1}(\dots f_1(f_0(x)))

    Args:
        *layers: pairs; none at all give the identity.

    Returns:
        A :class:`funcnets.Layer` with the parameters of ``functionalize(nn.Sequential(...))``.

    Raises:
        DTypeError: one of ``layers`` is not a pair of functions.
        ArgumentError: one of them has other arguments than ``init(key)`` and
            ``apply(params, state, x, *, rng=None, training=None)``.
        TreeError: (from ``apply``) unknown or missing names.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import layers
        >>> init, apply = layers.serial(layers.Linear(4, 3), layers.ReLU(), layers.Linear(3, 2))
        >>> params, state = init(jax.random.key(0))
        >>> jax.tree.map(jnp.shape, params)
        {'0': {'bias': (3,), 'weight': (3, 4)}, '2': {'bias': (2,), 'weight': (2, 3)}}
        >>> apply(params, state, jnp.ones((5, 4)))[0].shape
        (5, 2)

    References:
        torch.nn.Sequential; jax.example_libraries.stax.serial
    """

    def forward(call: Callable[[str, Any], Any], x: Any) -> Any:
        for i in range(len(layers)):
            x = call(str(i), x)
        return x

    return _combine("serial", layers, forward)


def parallel(*layers: Layer) -> Layer:
    r"""Pairs side by side, each on its own element of a tuple.

    .. math::
        (y_0, \dots, y_{n-1}) = (f_0(x_0), \dots, f_{n-1}(x_{n-1}))

    Args:
        *layers: pairs.

    Returns:
        A :class:`funcnets.Layer` that takes a tuple (or list) of as many inputs and gives a tuple.

    Raises:
        ShapeError: (from ``apply``) the input is not a tuple of as many elements.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import layers
        >>> init, apply = layers.parallel(layers.Linear(4, 3), layers.Identity())
        >>> out, _ = apply(*init(jax.random.key(0)), (jnp.ones(4), jnp.ones(5)))
        >>> [y.shape for y in out]
        [(3,), (5,)]

    References:
        jax.example_libraries.stax.parallel
    """

    def forward(call: Callable[[str, Any], Any], x: Any) -> Any:
        inputs = _arrays("parallel", x, len(layers))
        return tuple(call(str(i), part) for i, part in enumerate(inputs))

    return _combine("parallel", layers, forward)


def residual(layer: Layer) -> Layer:
    r"""A pair and a way around it.

    .. math::
        y = x + f(x)

    Args:
        layer: a pair whose output has the shape of its input; its name is "0".

    Returns:
        A :class:`funcnets.Layer`.

    Raises:
        ShapeError: (from ``apply``) the shapes differ. For another way around write
            ``serial(fan_out(2), parallel(layer, projection), fan_in_sum())``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import layers
        >>> init, apply = layers.residual(layers.Linear(3, 3))
        >>> apply(*init(jax.random.key(0)), jnp.ones((2, 3)))[0].shape
        (2, 3)

    References:
        He et al., 2016: Deep residual learning for image recognition
    """

    def forward(call: Callable[[str, Any], Any], x: Any) -> Any:
        y = call("0", x)
        _check_same_shapes("residual", "the layer's input and output", (x, y))
        return x + y

    return _combine("residual", (layer,), forward)


def fan_out(n: int) -> Layer:
    """The input, ``n`` times, for :func:`parallel`.

    Args:
        n: how many times.

    Returns:
        A :class:`funcnets.Layer` without parameters that gives a tuple.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import layers
        >>> _, apply = layers.fan_out(3)
        >>> len(apply({}, {}, jnp.ones(4))[0])
        3

    References:
        jax.example_libraries.stax.FanOut
    """
    count = positive("n", n)
    return _combine("fan_out", (), lambda call, x: (x,) * count)


def fan_in_sum() -> Layer:
    """The sum of a tuple of arrays of one shape.

    Returns:
        A :class:`funcnets.Layer` without parameters.

    Raises:
        ShapeError: (from ``apply``) not a tuple, or the shapes differ.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import layers
        >>> _, apply = layers.fan_in_sum()
        >>> apply({}, {}, (jnp.ones(2), jnp.ones(2)))[0].tolist()
        [2.0, 2.0]

    References:
        jax.example_libraries.stax.FanInSum
    """

    def forward(call: Callable[[str, Any], Any], x: Any) -> Any:
        _check_same_shapes("fan_in_sum", "the inputs", _arrays("fan_in_sum", x))
        return functools.reduce(jnp.add, x)

    return _combine("fan_in_sum", (), forward)


def fan_in_concat(axis: int = -1) -> Layer:
    """A tuple of arrays, joined along one axis.

    Args:
        axis: the axis along which the sizes may differ.

    Returns:
        A :class:`funcnets.Layer` without parameters.

    Raises:
        ShapeError: (from ``apply``) not a tuple, no such axis, or the other sizes differ.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import layers
        >>> _, apply = layers.fan_in_concat()
        >>> apply({}, {}, (jnp.ones((2, 3)), jnp.ones((2, 4))))[0].shape
        (2, 7)

    References:
        jax.example_libraries.stax.FanInConcat
    """
    axis = as_int("axis", axis)

    def forward(call: Callable[[str, Any], Any], x: Any) -> Any:
        shapes = [_shape("fan_in_concat", part) for part in _arrays("fan_in_concat", x)]
        rank = len(shapes[0])
        if not -rank <= axis < rank:
            raise ShapeError(
                f"fan_in_concat(axis={axis}) got inputs without that axis: {describe(x)}"
            )
        if len({(len(s), s[:axis] + s[axis:][1:]) for s in shapes}) > 1:
            raise ShapeError(
                f"fan_in_concat needs inputs of equal sizes, except along axis {axis}, "
                f"but got {describe(x)}"
            )
        return jnp.concatenate(x, axis)

    return _combine("fan_in_concat", (), forward)


def stateless(function: Callable[[Any], Any]) -> Layer:
    """A function of one input as a pair.

    Args:
        function: ``x -> out``, pure. One that draws random numbers or that differs between training and
            evaluation is a layer: take ``layers.Dropout(...)``, or write the pair.

    Returns:
        A :class:`funcnets.Layer` without parameters.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from funcnets import layers
        >>> model = layers.serial(layers.Linear(4, 6), layers.stateless(lambda x: x.reshape(2, 3)))
        >>> model.apply(*model.init(jax.random.key(0)), jnp.ones(4))[0].shape
        (2, 3)

    References:
        jax.example_libraries.stax.elementwise
    """
    if not callable(function):
        raise DTypeError(f"stateless takes a function, but got {describe(function)}")
    return _combine("stateless", (), lambda call, x: function(x))


def _shape(owner: str, x: Any) -> tuple[int, ...]:
    if not hasattr(x, "shape"):
        raise DTypeError(f"{owner} takes arrays, but got {describe(x)}")
    return tuple(x.shape)


def _check_same_shapes(owner: str, what: str, arrays: Sequence[Any]) -> None:
    if len({_shape(owner, x) for x in arrays}) > 1:
        listed = ", ".join(map(describe, arrays))
        raise ShapeError(f"{owner} needs {what} to have one shape, but got {listed}")


# --- a ready pair of every layer --------------------------------------------------------------

#: What holds modules or parameters and computes nothing; Sequential is ``serial`` here.
_NOT_LAYERS = {
    "Container",
    "FromLayer",
    "Module",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
    "Sequential",
}


def _ready(cls: type[nn.Module]) -> Callable[..., Layer]:
    """The function that makes the pair of one class, with the class's arguments and documentation."""

    def make(*args: Any, **kwargs: Any) -> Layer:
        return functionalize(cls(*args, **kwargs))

    # The examples are those of the class; here they would show a Module.
    about = (inspect.getdoc(cls) or "").split("Examples:")[0].rstrip()
    make.__doc__ = (
        f"{about}\n\nReturns:\n    The pair ``functionalize(nn.{cls.__name__}(...))``, "
        f"a :class:`funcnets.Layer`.\n"
    )
    make.__name__ = make.__qualname__ = cls.__name__
    signature = inspect.signature(cls).replace(return_annotation=Layer)
    make.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return make


for _name, _cls in sorted((name, getattr(nn, name)) for name in nn.__all__):
    if isinstance(_cls, type) and issubclass(_cls, nn.Module) and _name not in _NOT_LAYERS:
        globals()[_name] = _ready(_cls)
        __all__.append(_name)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Layer]: ...
