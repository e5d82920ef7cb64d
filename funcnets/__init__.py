"""funcnets: define models as in PyTorch, compute with them as in JAX."""

from funcnets import core, init, nn, optim
from funcnets.core.jit import jit
from funcnets.core.keys import child_key
from funcnets.core.layer import Layer, functionalize, get_variables, set_variables
from funcnets.core.lifts import checkpoint, eval_shape, grad, scan, value_and_grad, vmap
from funcnets.core.random import initial_seed, manual_seed
