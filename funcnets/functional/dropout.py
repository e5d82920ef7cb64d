"""Dropout: elements, whole channels, and the two that keep the statistics of SELU networks.

Nothing is drawn, and no key is needed, unless ``training`` is True and ``0 < p < 1``.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from funcnets._args import describe, probability
from funcnets.errors import ShapeError
from funcnets.functional._numeric import as_array, need_key, real

__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
]

#: The value that SELU tends to for large negative input, with the sign turned.
_SELU_LIMIT = 1.7580993408473766


def _apply(
    function: str,
    input: Any,
    p: float,
    training: bool,
    rng: jax.Array | None,
    *,
    axes: int | None = None,
    alpha: bool = False,
) -> jax.Array:
    """Drop with probability ``p``: elements, or with ``axes`` what these leading axes index."""
    input = as_array("input", input)
    if not training or p == 0 or input.size == 0:
        return input
    if p == 1:
        return jnp.zeros_like(input)
    input = real("input", input)
    axes = input.ndim if axes is None else axes
    if input.ndim < axes:
        raise ShapeError(
            f"{function} needs an input of at least {axes}D, but got {describe(input)}"
        )
    mask_shape = (*input.shape[:axes], *[1] * (input.ndim - axes))
    keep = jax.random.bernoulli(need_key(function, rng), 1.0 - p, mask_shape)
    keep = jnp.broadcast_to(keep, input.shape)
    if not alpha:
        return jnp.where(keep, input * (1.0 / (1.0 - p)), jnp.zeros_like(input))
    # An affine map after the replacement gives back mean 0 and variance 1.
    scale = 1.0 / math.sqrt((_SELU_LIMIT**2 * p + 1.0) * (1.0 - p))
    shift = scale * _SELU_LIMIT * p
    dropped = jnp.full_like(input, shift - scale * _SELU_LIMIT)
    return jnp.where(keep, input * scale + shift, dropped)


def dropout(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Zero elements at random and scale the others up, so that the mean stays.

    .. math:: y_i = \frac{m_i}{1 - p} \, x_i, \quad m_i \sim \text{Bernoulli}(1 - p)

    Args:
        input: a floating point array of any shape.
        p: the probability that an element is zeroed.
        training: False returns ``input`` as it is.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        rng: the key to draw with, needed if ``training`` and ``0 < p < 1``.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.
        DTypeError: something is to be drawn and ``input`` is not a real floating point array.
        RngError: something is to be drawn and ``rng`` is missing.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> y = F.dropout(jnp.ones(1000), p=0.75, rng=jax.random.key(0))
        >>> sorted(set(y.tolist()))
        [0.0, 4.0]

    References:
        Hinton et al., "Improving neural networks by preventing co-adaptation of feature
        detectors", 2012; torch.nn.functional.dropout
    """
    return _apply("dropout", input, probability("p", p), training, rng)


def dropout1d(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Dropout of whole channels of a sequence.

    .. math:: y_{nc} = \frac{m_{nc}}{1 - p} \, x_{nc}, \quad m_{nc} \sim \text{Bernoulli}(1 - p)

    Args:
        input: a floating point array of shape ``(N, C, L)`` or ``(C, L)``.
        p: the probability that a channel is zeroed.
        training: False returns ``input`` as it is.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        rng: the key to draw with, needed if ``training`` and ``0 < p < 1``.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.
        DTypeError: something is to be drawn and ``input`` is not a real floating point array.
        RngError: something is to be drawn and ``rng`` is missing.
        ShapeError: ``input`` has neither 2 nor 3 axes.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> y = F.dropout1d(jnp.ones((2, 8, 3)), rng=jax.random.key(0))
        >>> sorted(set(y.sum(axis=2).ravel().tolist()))
        [0.0, 6.0]

    References:
        Tompson et al., "Efficient object localization using convolutional networks", 2015;
        torch.nn.functional.dropout1d
    """
    p, input = probability("p", p), as_array("input", input)
    if input.ndim not in (2, 3):
        raise ShapeError(
            f"dropout1d expects an input of shape (N, C, L) or (C, L), but got {describe(input)}; "
            "use dropout for other ranks"
        )
    return _apply("dropout1d", input, p, training, rng, axes=input.ndim - 1)


def dropout2d(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Dropout of whole channels of an image.

    .. math:: y_{nc} = \frac{m_{nc}}{1 - p} \, x_{nc}, \quad m_{nc} \sim \text{Bernoulli}(1 - p)

    An input of rank 3 is taken as ``(N, C, L)``, as PyTorch takes it, with a warning.

    Args:
        input: a floating point array of shape ``(N, C, H, W)``. Other ranks of at least 2 warn.
        p: the probability that a channel is zeroed.
        training: False returns ``input`` as it is.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        rng: the key to draw with, needed if ``training`` and ``0 < p < 1``.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.
        DTypeError: something is to be drawn and ``input`` is not a real floating point array.
        RngError: something is to be drawn and ``rng`` is missing.
        ShapeError: something is to be drawn and ``input`` has fewer than 2 axes.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> y = F.dropout2d(jnp.ones((2, 8, 3, 3)), rng=jax.random.key(0))
        >>> sorted(set(y.sum(axis=(2, 3)).ravel().tolist()))
        [0.0, 18.0]

    References:
        Tompson et al., "Efficient object localization using convolutional networks", 2015;
        torch.nn.functional.dropout2d
    """
    p, input = probability("p", p), as_array("input", input)
    if input.ndim == 3:
        warnings.warn(
            f"dropout2d takes an input of rank 3 as (N, C, L) and drops along axes 0 and 1: it got "
            f"{describe(input)}; use dropout1d for this, and input[None] for one image (C, H, W)",
            UserWarning,
            stacklevel=3,
        )
    elif input.ndim != 4:
        warnings.warn(
            f"dropout2d expects an input of shape (N, C, H, W), but got {describe(input)}; "
            "use dropout for other ranks",
            UserWarning,
            stacklevel=3,
        )
    return _apply("dropout2d", input, p, training, rng, axes=2)


def dropout3d(
    input: jax.Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Dropout of whole channels of a volume.

    .. math:: y_{nc} = \frac{m_{nc}}{1 - p} \, x_{nc}, \quad m_{nc} \sim \text{Bernoulli}(1 - p)

    Args:
        input: a floating point array of shape ``(N, C, D, H, W)`` or ``(C, D, H, W)``. Other ranks
            warn and are taken without a batch axis, as PyTorch takes them.
        p: the probability that a channel is zeroed.
        training: False returns ``input`` as it is.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        rng: the key to draw with, needed if ``training`` and ``0 < p < 1``.

    Returns:
        An array like ``input``.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.
        DTypeError: something is to be drawn and ``input`` is not a real floating point array.
        RngError: something is to be drawn and ``rng`` is missing.
        ShapeError: something is to be drawn and ``input`` has no axes.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> y = F.dropout3d(jnp.ones((2, 8, 2, 2, 2)), rng=jax.random.key(0))
        >>> sorted(set(y.sum(axis=(2, 3, 4)).ravel().tolist()))
        [0.0, 16.0]

    References:
        Tompson et al., "Efficient object localization using convolutional networks", 2015;
        torch.nn.functional.dropout3d
    """
    p, input = probability("p", p), as_array("input", input)
    if input.ndim not in (4, 5):
        warnings.warn(
            f"dropout3d expects an input of shape (N, C, D, H, W) or (C, D, H, W), but got "
            f"{describe(input)}; use dropout for other ranks",
            UserWarning,
            stacklevel=3,
        )
    return _apply("dropout3d", input, p, training, rng, axes=2 if input.ndim == 5 else 1)


def alpha_dropout(
    input: jax.Array,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Dropout that keeps mean 0 and variance 1, for networks of SELU.

    .. math::
        y_i = a \, (m_i x_i - (1 - m_i) \alpha') + b, \quad m_i \sim \text{Bernoulli}(1 - p)

    with :math:`\alpha' \approx 1.7581`, :math:`a = ((1 - p)(1 + p \alpha'^2))^{-1/2}` and
    :math:`b = a p \alpha'`.

    Args:
        input: a floating point array of any shape.
        p: the probability that an element is replaced.
        training: False returns ``input`` as it is. Note the default.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        rng: the key to draw with, needed if ``training`` and ``0 < p < 1``.

    Returns:
        An array like ``input``; zeros if ``p`` is 1.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.
        DTypeError: something is to be drawn and ``input`` is not a real floating point array.
        RngError: something is to be drawn and ``rng`` is missing.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> F.alpha_dropout(jnp.ones((2, 3)), training=True, rng=jax.random.key(0)).shape
        (2, 3)

    References:
        Klambauer et al., "Self-normalizing neural networks", 2017;
        torch.nn.functional.alpha_dropout
    """
    return _apply("alpha_dropout", input, probability("p", p), training, rng, alpha=True)


def feature_alpha_dropout(
    input: jax.Array,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    rng: jax.Array | None = None,
) -> jax.Array:
    r"""Alpha dropout of whole channels.

    The formula is that of :func:`alpha_dropout`, with one :math:`m_{nc}` for each channel.

    Args:
        input: a floating point array of shape ``(N, C, *)``.
        p: the probability that a channel is replaced.
        training: False returns ``input`` as it is. Note the default.
        inplace: accepted for PyTorch's signature; arrays are immutable, the result is returned.
        rng: the key to draw with, needed if ``training`` and ``0 < p < 1``.

    Returns:
        An array like ``input``; zeros if ``p`` is 1.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.
        DTypeError: something is to be drawn and ``input`` is not a real floating point array.
        RngError: something is to be drawn and ``rng`` is missing.
        ShapeError: something is to be drawn and ``input`` has fewer than 2 axes.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from funcnets import functional as F
        >>> x = jnp.ones((2, 3, 4))
        >>> F.feature_alpha_dropout(x, training=True, rng=jax.random.key(0)).shape
        (2, 3, 4)

    References:
        Klambauer et al., "Self-normalizing neural networks", 2017;
        torch.nn.functional.feature_alpha_dropout
    """
    p = probability("p", p)
    return _apply("feature_alpha_dropout", input, p, training, rng, axes=2, alpha=True)
