"""Metrics as streaming pytrees: computed on the device, inside the compiled step (``metrics.base``)."""

from funcnets.train.metrics.base import Metric, MetricCollection, Running, Total
from funcnets.train.metrics.classes import F1, ConfusionMatrix, Precision, Recall
from funcnets.train.metrics.means import Accuracy, Mean, Perplexity, TopK

__all__ = [
    "Accuracy",
    "ConfusionMatrix",
    "F1",
    "Mean",
    "Metric",
    "MetricCollection",
    "Perplexity",
    "Precision",
    "Recall",
    "Running",
    "TopK",
    "Total",
]
