"""Learning rates as pure functions of the count of steps: ``optim.lr_scheduler``'s, in optax's protocol.

Each function takes the learning rate and then the arguments of torch's scheduler, and returns a
function of the count that can be traced: ``optim.sgd_tx(schedules.step_lr(0.1, 30))``, or any optax
transformation. The values are those of the schedulers of the same name, in JAX's default float.

A schedule of the momentum goes where ``optax.inject_hyperparams`` puts it.
"""

from funcnets.optim.schedules.combined import chained, sequential_lr
from funcnets.optim.schedules.cycles import (
    cosine_annealing_lr,
    cosine_annealing_warm_restarts,
    cyclic_lr,
    cyclic_momentum,
    one_cycle_lr,
    one_cycle_momentum,
    swa_lr,
)
from funcnets.optim.schedules.decay import (
    constant_lr,
    exponential_lr,
    lambda_lr,
    linear_lr,
    multi_step_lr,
    multiplicative_lr,
    polynomial_lr,
    step_lr,
)
from funcnets.optim.schedules.plateau import PlateauState, reduce_lr_on_plateau

__all__ = [
    "PlateauState",
    "chained",
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "cyclic_momentum",
    "exponential_lr",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "multiplicative_lr",
    "one_cycle_lr",
    "one_cycle_momentum",
    "polynomial_lr",
    "reduce_lr_on_plateau",
    "sequential_lr",
    "step_lr",
    "swa_lr",
]
