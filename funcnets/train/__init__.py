"""Training: :func:`fit`, what it reports to (history, callbacks, progress), metrics, data and checkpoints.

A training function under ``fn.jit`` needs nothing of this. ``fit`` is that function, compiled once, with
the loop around it.
"""

from funcnets.train import metrics
from funcnets.train.callbacks import Callback, EarlyStopping, LambdaCallback, LearningRateLogger
from funcnets.train.checkpoints import CheckpointManager, Restored
from funcnets.train.data import ArrayLoader
from funcnets.train.fit import evaluate, fit
from funcnets.train.history import History
from funcnets.train.metrics import (
    F1,
    Accuracy,
    ConfusionMatrix,
    Mean,
    Metric,
    MetricCollection,
    Perplexity,
    Precision,
    Recall,
    Running,
    TopK,
    Total,
)
from funcnets.train.nonfinite import Diverged
from funcnets.train.objective import Outcome, supervised
from funcnets.train.prefetch import Prefetcher, prefetch
from funcnets.train.progress import Progress
from funcnets.train.run import Run
from funcnets.train.saving import Checkpoint
from funcnets.train.tensorboard import TensorBoard

__all__ = [
    "F1",
    "Accuracy",
    "ArrayLoader",
    "Callback",
    "Checkpoint",
    "CheckpointManager",
    "ConfusionMatrix",
    "Diverged",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateLogger",
    "Mean",
    "Metric",
    "MetricCollection",
    "Outcome",
    "Perplexity",
    "Precision",
    "Prefetcher",
    "Progress",
    "Recall",
    "Restored",
    "Run",
    "Running",
    "TensorBoard",
    "TopK",
    "Total",
    "evaluate",
    "fit",
    "metrics",
    "prefetch",
    "supervised",
]
