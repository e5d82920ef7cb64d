"""The older spectral normalisation, with ``weight_orig`` on the module itself."""

from __future__ import annotations

from typing import Any

import jax

from funcnets._args import positive
from funcnets.core.cell import Buffer, Cell
from funcnets.core.derived import Derivation
from funcnets.core.module import Module
from funcnets.errors import ArgumentError, UnsupportedError
from funcnets.nn.utils import _norms
from funcnets.nn.utils._computed import compute, rule_of, stop_computing
from funcnets.nn.utils.parametrize import find_cell, register
from funcnets.nn.utils.weight_norm import _array, like, refuse_second, refuse_taken

__all__ = ["SpectralNorm", "remove_spectral_norm", "spectral_norm"]


class SpectralNorm:
    """The rule of a weight that is divided by its largest singular value; see :func:`spectral_norm`.

    Args:
        name: the name of the weight.
        n_power_iterations: steps of the power iteration before each call.
        dim: the axis of the outputs.
        eps: the least norm that is divided by.
    """

    prefix = ""
    _version = 1

    def __init__(
        self,
        name: str = "weight",
        n_power_iterations: int = 1,
        dim: int = 0,
        eps: float = 1e-12,
    ) -> None:
        self.name, self.dim, self.eps = name, dim, eps
        self.n_power_iterations = positive("n_power_iterations", n_power_iterations)
        self.handles: list[Any] = []

    def _parts(self, module: Module) -> tuple[jax.Array, jax.Array, jax.Array]:
        original, u, v = (_array(getattr(module, f"{self.name}_{p}")) for p in ("orig", "u", "v"))
        return original, u, v

    def compute_weight(self, module: Module) -> jax.Array:
        """The weight of ``module``, from its present vectors."""
        original, u, v = self._parts(module)
        return original / _norms.sigma(_norms.as_matrix(original, self.dim), u, v)

    value = compute_weight

    def assign(self, module: Module, value: Any) -> None:
        """The weight is computed: this raises and says what to assign to."""
        raise UnsupportedError(
            f"'{self.name}' is computed from '{self.name}_orig': assign to its .data"
        )

    def __call__(self, module: Module, inputs: Any) -> None:
        """Before each call in training mode, go on with the power iteration."""
        if module.training:
            original, u, v = self._parts(module)
            matrix = _norms.as_matrix(original, self.dim)
            u, v = _norms.power_iteration(
                matrix, u, v, self.n_power_iterations, self.eps, u_first=False
            )
            setattr(module, f"{self.name}_u", u)
            setattr(module, f"{self.name}_v", v)


class _StateDictVersion:
    """Notes in the state_dict's metadata which buffers there are, as PyTorch does."""

    def __init__(self, rule: SpectralNorm) -> None:
        self.rule = rule

    def __call__(self, module: Module, state_dict: Any, prefix: str, metadata: Any) -> None:
        versions = metadata.setdefault("spectral_norm", {})
        versions[f"{self.rule.name}.version"] = self.rule._version


class _Itself:
    """The value of a cell."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __call__(self) -> list[jax.Array]:
        return [self.cell.data]


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    r"""Divide a weight by its largest singular value.

    PyTorch recommends ``nn.utils.parametrizations.spectral_norm`` instead.

    .. math::
        W_\text{SN} = \frac{W}{\sigma(W)}, \qquad \sigma(W) = \max_{h \neq 0} \frac{\lVert W h \rVert}{\lVert h \rVert}

    Args:
        module: the module whose parameter it is.
        name: its name; the trained parameter is ``weight_orig`` then, and the vectors of the power
            iteration are the buffers ``weight_u`` and ``weight_v``.
        n_power_iterations: steps of the power iteration before each call in training mode.
        eps: the least norm that is divided by.
        dim: the axis of the outputs; 0 by default, and 1 for transposed convolutions.

    Returns:
        ``module``, whose class is a subclass of the former one with the same name.

    Raises:
        ArgumentError: there is no such parameter or axis, no steps, or it is normalised already.
        ShapeError: its shape is not known yet.
        ModeError: (on a pure call) neither training nor evaluation was asked for.

    Examples:
        >>> from funcnets import nn
        >>> list(nn.utils.spectral_norm(nn.Linear(20, 40)).state_dict())
        ['bias', 'weight_orig', 'weight_u', 'weight_v']

    References:
        Miyato et al., 2018; torch.nn.utils.spectral_norm
    """
    refuse_second(module, name, SpectralNorm, "spectral_norm")
    cell = find_cell(module, name)
    dim = _norms.check_dim(_norms.default_dim(module, dim), cell.ndim) % max(cell.ndim, 1)
    rule = SpectralNorm(name, n_power_iterations, dim, eps)
    refuse_taken(module, [f"{name}_{part}" for part in ("orig", "u", "v")])
    derived = Derivation(_Itself(cell), [cell])
    delattr(module, name)
    derived.give(cell, 0, 1, (name,))
    register(module, f"{name}_orig", cell)
    height = cell.shape[dim]
    for part, size in (("u", height), ("v", cell.numel() // max(height, 1))):
        vector = Buffer((size,), _norms.unit_vector, dtype=cell.dtype, device=cell._placement)
        module.register_buffer(f"{name}_{part}", vector)
    compute(module, name, rule)
    rule.handles = [
        module.register_forward_pre_hook(rule),
        module.register_state_dict_post_hook(_StateDictVersion(rule)),
    ]
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make a spectrally normalised weight an ordinary parameter again, with its present value.

    Args:
        module: the module.
        name: the name of the weight.

    Returns:
        ``module``.

    Raises:
        ArgumentError: the weight is not normalised by :func:`spectral_norm`.

    Examples:
        >>> from funcnets import nn
        >>> layer = nn.utils.spectral_norm(nn.Linear(20, 40))
        >>> list(nn.utils.remove_spectral_norm(layer).state_dict())
        ['bias', 'weight']

    References:
        torch.nn.utils.remove_spectral_norm
    """
    rule = rule_of(module, name)
    if not isinstance(rule, SpectralNorm):
        raise ArgumentError(f"spectral_norm of '{name}' not found in {module}")
    original, value = find_cell(module, f"{name}_orig"), rule.compute_weight(module)
    stop_computing(module, name)
    for handle in rule.handles:
        handle.remove()
    for part in ("u", "v", "orig"):
        delattr(module, f"{name}_{part}")
    register(module, name, like(original, value))
    return module
