"""Metrics over a whole data set."""

from flatten_dense.metrics.coco import CocoDetection
from flatten_dense.metrics.coco_evaluation import BACKENDS, IOU_TYPES, evaluate_coco
from flatten_dense.metrics.coco_scores import STATS, ClassScores, CocoScores
from flatten_dense.metrics.confusion import confusion_matrix
from flatten_dense.metrics.segmentation import (
    PROTOCOLS,
    SegmentationConfusion,
    SegmentationScores,
    check_protocol,
    score_confusion,
)
from flatten_dense.metrics.tables import per_class_rows, scores_as_dict

__all__ = [
    "BACKENDS",
    "IOU_TYPES",
    "PROTOCOLS",
    "STATS",
    "ClassScores",
    "CocoDetection",
    "CocoScores",
    "SegmentationConfusion",
    "SegmentationScores",
    "check_protocol",
    "confusion_matrix",
    "evaluate_coco",
    "per_class_rows",
    "score_confusion",
    "scores_as_dict",
]
