"""Metrics over a whole data set."""

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
    "PROTOCOLS",
    "SegmentationConfusion",
    "SegmentationScores",
    "check_protocol",
    "confusion_matrix",
    "per_class_rows",
    "score_confusion",
    "scores_as_dict",
]
