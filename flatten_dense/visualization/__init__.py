"""Figures from tensors and tables: no logger, no Lightning."""

from flatten_dense.visualization.attention_depth import plot_depth
from flatten_dense.visualization.attention_sheet import draw_attention_sheet
from flatten_dense.visualization.boxes import draw_detections, draw_truth
from flatten_dense.visualization.classification_sheet import ClassifiedPhoto, classification_sheet
from flatten_dense.visualization.confusion import confusion_picture, detection_confusion_picture, draw_confusion
from flatten_dense.visualization.curves import plot_curves
from flatten_dense.visualization.detection_errors import plot_detection_errors
from flatten_dense.visualization.detection_sheet import DetectionSample, describe_detections, detection_sheet
from flatten_dense.visualization.legend import legend
from flatten_dense.visualization.masks import colorize, overlay
from flatten_dense.visualization.precision_recall import plot_precision_recall
from flatten_dense.visualization.sheet import describe_errors, prediction_sheet

__all__ = [
    "ClassifiedPhoto",
    "DetectionSample",
    "classification_sheet",
    "colorize",
    "confusion_picture",
    "describe_detections",
    "describe_errors",
    "detection_confusion_picture",
    "detection_sheet",
    "draw_attention_sheet",
    "draw_confusion",
    "draw_detections",
    "draw_truth",
    "legend",
    "overlay",
    "plot_curves",
    "plot_depth",
    "plot_detection_errors",
    "plot_precision_recall",
    "prediction_sheet",
]
