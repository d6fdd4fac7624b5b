"""What a run leaves behind beside its checkpoints: pictures, curves, tables, metrics.json, predictions."""

from flatten_dense.callbacks.attention_statistics import AttentionStatistics
from flatten_dense.callbacks.best_evaluation import BestEvaluation
from flatten_dense.callbacks.classification_pictures import ClassificationPlotter
from flatten_dense.callbacks.classification_report import ClassificationReport
from flatten_dense.callbacks.classification_writer import ClassificationWriter
from flatten_dense.callbacks.detection_pictures import DetectionPlotter
from flatten_dense.callbacks.detection_report import DetectionReport
from flatten_dense.callbacks.detection_writer import DetectionWriter
from flatten_dense.callbacks.due_validation import DueValidation
from flatten_dense.callbacks.ema import EMA
from flatten_dense.callbacks.evaluation_report import EvaluationReport
from flatten_dense.callbacks.last_checkpoint import LastCheckpoint
from flatten_dense.callbacks.metrics_file import MetricsFile, weights_hash
from flatten_dense.callbacks.pictures import CurvePlotter, PredictionPlotter
from flatten_dense.callbacks.predictions import PredictionWriter
from flatten_dense.callbacks.preemption import Preemption
from flatten_dense.callbacks.random_states import RandomStates
from flatten_dense.callbacks.resumption import Resumption
from flatten_dense.callbacks.unfreezing import GradualUnfreezing
from flatten_dense.callbacks.worst_images import WorstImages

__all__ = [
    "EMA",
    "AttentionStatistics",
    "BestEvaluation",
    "ClassificationPlotter",
    "ClassificationReport",
    "ClassificationWriter",
    "CurvePlotter",
    "DetectionPlotter",
    "DetectionReport",
    "DetectionWriter",
    "DueValidation",
    "EvaluationReport",
    "GradualUnfreezing",
    "LastCheckpoint",
    "MetricsFile",
    "PredictionPlotter",
    "PredictionWriter",
    "Preemption",
    "RandomStates",
    "Resumption",
    "WorstImages",
    "weights_hash",
]
