"""What a run leaves behind beside its checkpoints: pictures, curves, metrics.json, predictions."""

from flatten_dense.callbacks.metrics_file import MetricsFile, weights_hash
from flatten_dense.callbacks.pictures import CurvePlotter, PredictionPlotter
from flatten_dense.callbacks.predictions import PredictionWriter

__all__ = ["CurvePlotter", "MetricsFile", "PredictionPlotter", "PredictionWriter", "weights_hash"]
