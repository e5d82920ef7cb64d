"""Pure initializers: hashable callables ``(key, shape, dtype) -> array``.

Most are an affine map of a standard draw, and say so (``affine``), which lets a model of a hundred
parameters be drawn in a few large kernels instead of a hundred small ones (``core/draw.py``).
``funcnets.nn.init`` has PyTorch's in-place names, which put one of these into a Parameter.
"""

from funcnets.init.base import Given as Given
from funcnets.init.base import Initializer, initializer_from
from funcnets.init.base import draw_dtype as draw_dtype
from funcnets.init.base import finish as finish
from funcnets.init.base import is_affine as is_affine
from funcnets.init.base import rounded as rounded
from funcnets.init.base import standard_draw as standard_draw
from funcnets.init.draws import (
    calculate_gain,
    kaiming_normal,
    kaiming_uniform,
    normal,
    orthogonal,
    sparse,
    trunc_normal,
    uniform,
    xavier_normal,
    xavier_uniform,
)
from funcnets.init.fixed import Constant as Constant
from funcnets.init.fixed import constant, dirac, eye, ones, zeros

__all__ = [
    "Initializer",
    "calculate_gain",
    "constant",
    "dirac",
    "eye",
    "initializer_from",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "ones",
    "orthogonal",
    "sparse",
    "trunc_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
