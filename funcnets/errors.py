"""Every exception that funcnets raises on purpose.

    FuncnetsError
    |-- ArgumentError      (ValueError)                 a hyper-parameter or option that cannot be
    |-- ShapeError         (ValueError, RuntimeError)   an array of the wrong rank or size
    |-- DTypeError         (TypeError, RuntimeError)    an array of the wrong kind
    |-- ModeError          (ValueError, RuntimeError)   ``training=`` is missing where it matters
    |-- RngError           (ValueError, RuntimeError)   ``rng=`` is missing where it matters
    |-- StateLeakError     (RuntimeError)               state would be lost or repeated silently
    |-- TreeError          (ValueError, KeyError)       params or state that do not fit the model
    |-- StateDictError     (RuntimeError)               a state_dict that does not fit the model
    |-- CheckpointError    (RuntimeError)               a file or checkpoint that is truncated or foreign
    |-- NonFiniteError     (FloatingPointError)         a loss, a gradient or an output is NaN or infinite
    |-- MissingExtraError  (ImportError)                an optional package is not installed
    |-- ModuleAccessError  (AttributeError)             a name that a module does not have, or not yet
    `-- UnsupportedError   (NotImplementedError)        what exists in PyTorch and cannot exist here

Each subclasses the built-in exceptions that somebody coming from PyTorch or from JAX would catch.
A message says what was expected, what came and what to do. The module path is added on the way
out, as a note of the exception (see ``core/module.py``).
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DTypeError",
    "FuncnetsError",
    "MissingExtraError",
    "ModeError",
    "ModuleAccessError",
    "NonFiniteError",
    "RngError",
    "ShapeError",
    "StateDictError",
    "StateLeakError",
    "TreeError",
    "UnsupportedError",
]


class FuncnetsError(Exception):
    """Base class of all exceptions that funcnets raises on purpose."""


class ArgumentError(FuncnetsError, ValueError):
    """A hyper-parameter or an option has a value that cannot be used."""


class ShapeError(FuncnetsError, ValueError, RuntimeError):
    """An array has the wrong rank or the wrong size along an axis."""


class DTypeError(FuncnetsError, TypeError, RuntimeError):
    """An array, or what came instead of one, has the wrong type."""


class ModeError(FuncnetsError, ValueError, RuntimeError):
    """A layer behaves differently in training and evaluation and was not told which it is."""


class RngError(FuncnetsError, ValueError, RuntimeError):
    """A layer draws random numbers and was given no key."""


class StateLeakError(FuncnetsError, RuntimeError):
    """A write or a random draw would be lost, repeated, or leave a tracer behind."""


class TreeError(FuncnetsError, ValueError, KeyError):
    """A tree of parameters or of state does not have the names and shapes of the model."""

    # KeyError prints the repr of its message, which turns line breaks into "\n".
    __str__ = Exception.__str__


class StateDictError(FuncnetsError, RuntimeError):
    """A state_dict does not have the names and shapes of the model."""


class CheckpointError(FuncnetsError, RuntimeError):
    """A file or a checkpoint is truncated, incomplete, or not what it should be."""


class NonFiniteError(FuncnetsError, FloatingPointError):
    """A loss, a gradient or an output is NaN or infinite."""


class MissingExtraError(FuncnetsError, ImportError):
    """An optional package is not installed; the message says how to get it."""


class ModuleAccessError(FuncnetsError, AttributeError):
    """A module has no such attribute, or its ``super().__init__()`` has not run yet."""


class UnsupportedError(FuncnetsError, NotImplementedError):
    """PyTorch has it, and it cannot exist here; the message says what to use instead."""
