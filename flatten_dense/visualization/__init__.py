"""Figures from tensors and tables: no logger, no Lightning."""

from flatten_dense.visualization.boxes import draw_detections, draw_truth
from flatten_dense.visualization.confusion import confusion_picture
from flatten_dense.visualization.curves import plot_curves
from flatten_dense.visualization.detection_sheet import DetectionSample, describe_detections, detection_sheet
from flatten_dense.visualization.legend import legend
from flatten_dense.visualization.masks import colorize, overlay
from flatten_dense.visualization.sheet import describe_errors, prediction_sheet

__all__ = [
    "DetectionSample",
    "colorize",
    "confusion_picture",
    "describe_detections",
    "describe_errors",
    "detection_sheet",
    "draw_detections",
    "draw_truth",
    "legend",
    "overlay",
    "plot_curves",
    "prediction_sheet",
]
