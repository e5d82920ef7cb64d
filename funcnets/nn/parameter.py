"""The leaves of a model under the names of ``torch.nn.parameter``."""

from funcnets.core.cell import Buffer as Buffer
from funcnets.core.cell import Parameter as Parameter
from funcnets.core.lazy import UninitializedBuffer, UninitializedParameter
from funcnets.core.lazy import is_lazy as is_lazy

__all__ = ["UninitializedBuffer", "UninitializedParameter"]
