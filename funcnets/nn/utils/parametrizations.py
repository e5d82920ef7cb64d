"""Parametrizations of PyTorch: orthogonal matrices, weight normalisation, spectral normalisation."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg

from funcnets import functional as F
from funcnets._args import choice, positive
from funcnets.core.cell import Buffer
from funcnets.core.derived import Derivation, Leaf, draw_one
from funcnets.core.layer import call_abstractly
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, ShapeError, UnsupportedError
from funcnets.functional._numeric import widen
from funcnets.init import normal
from funcnets.nn.utils import _norms
from funcnets.nn.utils.parametrize import (
    ParametrizationList,
    find_cell,
    is_parametrized,
    register_parametrization,
)

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]


def _described(module: Module, name: str) -> Any:
    """Shape and dtype of a parameter, a buffer, or what a parametrization makes of one."""
    if not is_parametrized(module, name):
        return find_cell(module, name)
    return call_abstractly(module.parametrizations[name], (), {})


# --- orthogonal matrices ----------------------------------------------------------------------


def _adjoint(x: jax.Array) -> jax.Array:
    return x.conj().mT


def _diagonal(x: jax.Array) -> jax.Array:
    return jnp.diagonal(x, axis1=-2, axis2=-1)


def _eye(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(*shape[-2:], dtype=dtype), shape)


def _skew(x: jax.Array) -> jax.Array:
    """The square skew-Hermitian matrix out of the lower triangle of a tall one."""
    rows, columns = x.shape[-2:]
    lower = jnp.pad(jnp.tril(x), [(0, 0)] * (x.ndim - 1) + [(0, rows - columns)])
    return lower - _adjoint(lower)


def _reflections(x: jax.Array) -> jax.Array:
    """The product of the Householder reflections below the diagonal, with the diagonal's signs.

    As one expression, I - V T V^H, which is a few matrix products and can be differentiated; T is the
    inverse of a triangular matrix (Joffrain et al., 2006).
    """
    columns = x.shape[-1]
    v = jnp.tril(x, -1) + _eye(None, x.shape, x.dtype)
    gram = v.mT @ v
    half = 0.5 * jnp.eye(columns, dtype=x.dtype)
    triangle = jnp.triu(gram, 1) + gram * jnp.broadcast_to(half, gram.shape)
    top = jax.scipy.linalg.solve_triangular(triangle, v[..., :columns, :].mT)
    q = _eye(None, x.shape, x.dtype) - v @ top
    signs = jax.lax.stop_gradient(jnp.trunc(_diagonal(x)))
    return q * jnp.broadcast_to(signs[..., None, :], q.shape)


def _nearest_by_qr(x: jax.Array) -> jax.Array:
    """The Q of x = QR with a real and non-negative diagonal of R."""
    q, r = jnp.linalg.qr(x)
    return q * jnp.broadcast_to(jnp.sign(_diagonal(r))[..., None, :], q.shape)


def _is_orthogonal(q: jax.Array) -> jax.Array:
    rows, columns = q.shape[-2:]
    eye, eps = _eye(None, (*q.shape[:-2], columns, columns), q.dtype), jnp.finfo(q.dtype).eps
    return jnp.allclose(_adjoint(q) @ q, eye, atol=10.0 * rows * float(eps))


# Compiled once for each shape: it also runs when the weight is read outside of compiled code.
@functools.partial(jax.jit, static_argnums=2)
def _orthogonal(x: jax.Array, base: jax.Array | None, orthogonal_map: str) -> jax.Array:
    """The orthogonal matrix that belongs to ``x``."""
    wide = widen(x)
    transposed = x.shape[-2] < x.shape[-1]
    if transposed:
        wide = wide.mT
    if orthogonal_map == "householder":
        q = _reflections(wide)
    else:
        a, columns = _skew(wide), wide.shape[-1]
        if orthogonal_map == "matrix_exp":
            q = jax.scipy.linalg.expm(a)
        else:
            eye = _eye(None, a.shape, a.dtype)
            q = jnp.linalg.solve(eye - 0.5 * a, eye + 0.5 * a)
        q = q[..., :columns]
    if base is not None:
        q = widen(base) @ q
    return (q.mT if transposed else q).astype(x.dtype)


@jax.jit
def _complete(q: jax.Array, more: jax.Array) -> jax.Array:
    """A square orthogonal matrix whose first columns are those of ``q``, made orthogonal."""
    if more.shape[-1] == 0:
        return jnp.where(_is_orthogonal(q), q, _nearest_by_qr(q))
    return _nearest_by_qr(jnp.concatenate([q, more], axis=-1))


@jax.jit
def _packed(q: jax.Array) -> jax.Array:
    """The matrix whose reflections give ``q``."""
    packed, tau = jnp.linalg.qr(q, mode="raw")
    packed = packed.mT
    signs = jnp.sign(_diagonal(packed))
    signs = jnp.where(tau == 0, -signs, signs)
    on_diagonal = _eye(None, packed.shape, jnp.bool_)
    return jnp.where(on_diagonal, jnp.broadcast_to(signs[..., None, :], packed.shape), packed)


class _Orthogonal(Module):
    """See :func:`orthogonal`."""

    base: Any

    def __init__(
        self, weight: Any, orthogonal_map: str, *, use_trivialization: bool = True
    ) -> None:
        super().__init__()
        self.shape = tuple(weight.shape)
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            size = max(self.shape[-2:])
            shape = (*self.shape[:-2], size, size)
            self.register_buffer("base", Buffer(shape, _eye, dtype=weight.dtype))

    @property
    def _trivialized(self) -> bool:
        return "base" in self._buffers

    def forward(self, x: jax.Array) -> jax.Array:
        return _orthogonal(x, self.base if self._trivialized else None, self.orthogonal_map)

    def right_inverse(self, q: jax.Array) -> jax.Array:
        if q.shape != self.shape:
            raise ShapeError(
                f"expected a matrix or batch of matrices of shape {self.shape}, but got shape {q.shape}"
            )
        wide = widen(q)
        transposed = q.shape[-2] < q.shape[-1]
        if transposed:
            wide = wide.mT
        if self._trivialized:
            rows, columns = wide.shape[-2:]
            shape = (*wide.shape[:-1], rows - columns)
            more = draw_one(normal(), shape, wide.dtype, self.make_rng())
            self.base = _complete(wide, more).astype(q.dtype)
            # Zeros, but for the signs that the reflections take from the diagonal.
            return -_eye(None, q.shape, q.dtype)
        if self.orthogonal_map != "householder":
            raise UnsupportedError(
                "no value can be assigned to the matrix exponential or the Cayley map with "
                "use_trivialization=False"
            )
        packed = _packed(wide)
        return (packed.mT if transposed else packed).astype(q.dtype)


def orthogonal(
    module: Module,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
) -> Module:
    r"""Keep a matrix orthogonal (unitary, if it is complex) while it is trained.

    A tall matrix :math:`Q` has orthonormal columns, :math:`Q^H Q = I`, a wide one orthonormal rows.
    It is computed from an unconstrained matrix :math:`X` of the same shape by one of three maps:

    - ``'matrix_exp'``: :math:`Q = \exp(A)`, and
    - ``'cayley'``: :math:`Q = (I - A/2)^{-1} (I + A/2)`, where :math:`A` is the skew-Hermitian matrix
      with the lower triangle of :math:`X`;
    - ``'householder'``: the product of the reflections at the columns below the diagonal of :math:`X`.

    With ``use_trivialization`` the result is multiplied by a fixed orthogonal matrix, the buffer
    ``base``, such that :math:`X` starts at zero. The weight starts as it was if it is orthogonal
    already, and is made so by a QR decomposition otherwise.

    Args:
        module: the module whose parameter it is.
        name: its name. More than two dimensions are a batch of matrices.
        orthogonal_map: the map; ``'matrix_exp'`` for square and complex matrices and ``'householder'``
            for others by default.
        use_trivialization: whether there is a ``base``.

    Returns:
        ``module``.

    Raises:
        ArgumentError: there is no such parameter; it has fewer than two dimensions; an unknown map; or
            reflections of complex matrices.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> from funcnets.nn.utils.parametrizations import orthogonal
        >>> layer = orthogonal(nn.Linear(20, 40))
        >>> bool(jnp.allclose(layer.weight.T @ layer.weight, jnp.eye(20), atol=1e-5))
        True

    References:
        Lezcano-Casado, 2019; torch.nn.utils.parametrizations.orthogonal
    """
    weight = _described(module, name)
    if weight.ndim < 2:
        raise ArgumentError(
            f"orthogonal takes a matrix or batch of matrices, but '{name}' has {weight.ndim} dimensions"
        )
    is_complex = jnp.issubdtype(weight.dtype, jnp.complexfloating)
    if orthogonal_map is None:
        square = weight.shape[-2] == weight.shape[-1]
        orthogonal_map = "matrix_exp" if square or is_complex else "householder"
    choice("orthogonal_map", orthogonal_map, ("matrix_exp", "cayley", "householder"))
    if is_complex and orthogonal_map == "householder":
        raise ArgumentError("orthogonal_map='householder' does not support complex matrices")
    rule = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    return register_parametrization(module, name, rule, unsafe=True)


# --- weight normalisation ---------------------------------------------------------------------


class _WeightNorm(Module):
    """See :func:`weight_norm`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: jax.Array, weight_v: jax.Array) -> jax.Array:
        return _norms.weight_norm(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _norms.norm_except_dim(weight, self.dim), weight


class _OldNames:
    """Takes over the state_dict of ``nn.utils.weight_norm``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: Module, state_dict: Any, prefix: str, *others: Any) -> None:
        old = [f"{prefix}{self.name}_{part}" for part in "gv"]
        if all(key in state_dict for key in old):
            for i, key in enumerate(old):
                new = f"{prefix}parametrizations.{self.name}.original{i}"
                state_dict[new] = state_dict.pop(key)


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    r"""Train the lengths and the directions of a weight apart.

    .. math::
        w = g \, \frac{v}{\lVert v \rVert}

    Args:
        module: the module whose parameter it is.
        name: its name.
        dim: the axis along which there are several lengths; None for a single one of the whole
            weight. As in PyTorch, -1 means None.

    Returns:
        ``module``; :math:`g` is ``parametrizations.weight.original0``, :math:`v` is ``original1``.
        State_dicts of the deprecated ``nn.utils.weight_norm`` are understood.

    Raises:
        ArgumentError: there is no such parameter or axis.

    Examples:
        >>> from funcnets import nn
        >>> from funcnets.nn.utils.parametrizations import weight_norm
        >>> layer = weight_norm(nn.Linear(20, 40))
        >>> layer
        ParametrizedLinear(
          in_features=20, out_features=40, bias=True
          (parametrizations): ModuleDict(
            (weight): ParametrizationList(
              (0): _WeightNorm()
            )
          )
        )
        >>> layer.parametrizations.weight.original0.shape
        (40, 1)

    References:
        Salimans and Kingma, 2016; torch.nn.utils.parametrizations.weight_norm
    """
    rule = _WeightNorm(_norms.check_dim(dim, _described(module, name).ndim))
    register_parametrization(module, name, rule, unsafe=True)
    module.register_load_state_dict_pre_hook(_OldNames(name))
    return module


# --- spectral normalisation -------------------------------------------------------------------


class _SpectralNorm(Module):
    """See :func:`spectral_norm`."""

    _u: Any
    _v: Any

    def __init__(
        self, weight: Any, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        ndim = weight.ndim
        if not -ndim <= dim < ndim:
            raise ArgumentError(
                f"dim must be in the range of [{-ndim}, {ndim - 1}] for a weight of {ndim} dimensions, but got {dim}"
            )
        self.n_power_iterations = positive("n_power_iterations", n_power_iterations)
        self.dim, self.eps = dim % ndim, eps
        if ndim > 1:
            shape = jax.eval_shape(
                lambda: _norms.as_matrix(jnp.zeros(weight.shape), self.dim)
            ).shape
            for name, size in zip(("_u", "_v"), shape, strict=True):
                self.register_buffer(name, Buffer((size,), _norms.unit_vector, dtype=weight.dtype))

    def forward(self, weight: jax.Array) -> jax.Array:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = _norms.as_matrix(weight, self.dim)
        if self.training:
            self._u, self._v = _norms.power_iteration(
                matrix, self._u, self._v, self.n_power_iterations, self.eps, u_first=True
            )
        return weight / _norms.sigma(matrix, self._u, self._v)

    def right_inverse(self, value: jax.Array) -> jax.Array:
        return value


class _FirstVectors:
    """Singular vectors of the weight that a spectral norm is given first."""

    def __init__(self, norm: _SpectralNorm, parametrizations: ParametrizationList) -> None:
        self.norm, self.originals = norm, parametrizations._originals()
        self.before = [m for m in parametrizations if m is not norm]

    def __call__(self) -> list[Any]:
        values: Any = [cell.data for cell in self.originals]
        for module in self.before:
            values = [module(*values)]
        norm = self.norm
        norm._u, norm._v = _norms.first_vectors(norm.make_rng(), values[0], norm.dim, norm.eps)
        return []


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    r"""Divide a weight by its largest singular value.

    .. math::
        W_\text{SN} = \frac{W}{\sigma(W)}, \qquad \sigma(W) = \max_{h \neq 0} \frac{\lVert W h \rVert}{\lVert h \rVert}

    :math:`\sigma` is found by a power iteration, whose vectors are buffers. In training mode each
    reading of the weight goes ``n_power_iterations`` steps further; in evaluation they stay as they
    are. A weight of more dimensions counts as a matrix, a vector is divided by its norm.

    Args:
        module: the module whose parameter it is.
        name: its name.
        n_power_iterations: steps at each reading.
        eps: the least norm that is divided by.
        dim: the axis of the outputs; 0 by default, and 1 for transposed convolutions.

    Returns:
        ``module``.

    Raises:
        ArgumentError: there is no such parameter or axis, or no steps.

    Examples:
        >>> import jax.numpy as jnp
        >>> from funcnets import nn
        >>> from funcnets.nn.utils.parametrizations import spectral_norm
        >>> layer = spectral_norm(nn.Linear(20, 40))
        >>> list(layer.state_dict())[1:]
        ['parametrizations.weight.original', 'parametrizations.weight.0._u', 'parametrizations.weight.0._v']

    References:
        Miyato et al., 2018; torch.nn.utils.parametrizations.spectral_norm
    """
    weight = _described(module, name)
    norm = _SpectralNorm(weight, n_power_iterations, _norms.default_dim(module, dim), eps)
    register_parametrization(module, name, norm)
    if weight.ndim > 1:
        parametrizations = module.parametrizations[name]
        home = [
            cell
            for _, cell in parametrizations._cells()
            if isinstance(cell.initializer, Leaf) and cell.initializer.below == (name,)
        ]
        first = Derivation(_FirstVectors(norm, parametrizations), home)
        own = set(norm._buffers.values())
        for i, cell in enumerate(first.written):
            if cell in own:  # others are those of parametrizations that were there before
                first.give(cell, i, 4, (name,))
    return module
