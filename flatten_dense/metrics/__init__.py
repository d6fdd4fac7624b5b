"""Metrics over a whole data set."""

from flatten_dense.metrics.classification import (
    ClassificationConfusion,
    ClassificationScores,
    classification_as_dict,
    classification_rows,
    describe_classification,
)
from flatten_dense.metrics.coco import CocoDetection
from flatten_dense.metrics.coco_evaluation import BACKENDS, IOU_TYPES, evaluate_coco
from flatten_dense.metrics.coco_scores import STATS, ClassScores, CocoScores
from flatten_dense.metrics.coco_tables import coco_class_rows, coco_scores_as_dict, describe_coco
from flatten_dense.metrics.confusion import confusion_matrix
from flatten_dense.metrics.detection_errors import ERROR_KINDS, DetectionErrors, detection_errors
from flatten_dense.metrics.nearest_neighbours import nearest_neighbour_accuracy
from flatten_dense.metrics.result_file import corners_suspected, read_results, read_truth, write_results
from flatten_dense.metrics.segmentation import (
    PROTOCOLS,
    SegmentationConfusion,
    SegmentationScores,
    check_protocol,
    score_confusion,
)
from flatten_dense.metrics.tables import describe_scores, per_class_rows, scores_as_dict

__all__ = [
    "BACKENDS",
    "ERROR_KINDS",
    "IOU_TYPES",
    "PROTOCOLS",
    "STATS",
    "ClassScores",
    "ClassificationConfusion",
    "ClassificationScores",
    "CocoDetection",
    "CocoScores",
    "DetectionErrors",
    "SegmentationConfusion",
    "SegmentationScores",
    "check_protocol",
    "classification_as_dict",
    "classification_rows",
    "coco_class_rows",
    "coco_scores_as_dict",
    "confusion_matrix",
    "corners_suspected",
    "describe_classification",
    "describe_coco",
    "describe_scores",
    "detection_errors",
    "evaluate_coco",
    "nearest_neighbour_accuracy",
    "per_class_rows",
    "read_results",
    "read_truth",
    "score_confusion",
    "scores_as_dict",
    "write_results",
]
