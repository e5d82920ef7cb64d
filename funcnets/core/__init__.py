"""The idea, to be read first: ``frame``, ``cell``, ``module``, then ``layer``, ``lifts`` and ``jit``."""

from funcnets.core import layer as layer
