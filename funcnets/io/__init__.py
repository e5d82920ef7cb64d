"""Files: ``save`` and ``load`` for state_dicts and whatever else nests arrays.

A file is in the safetensors format, which other frameworks read, or in torch's own where torch is
installed. Nothing in a file is ever run. Checkpoints of a running training are ``funcnets.train``'s.
"""

from funcnets.io.loading import load
from funcnets.io.saving import save

__all__ = ["load", "save"]
