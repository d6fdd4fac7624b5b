"""Figures from tensors and tables: no logger, no Lightning."""

from flatten_dense.visualization.confusion import confusion_picture
from flatten_dense.visualization.curves import plot_curves
from flatten_dense.visualization.legend import legend
from flatten_dense.visualization.masks import colorize, overlay
from flatten_dense.visualization.sheet import describe_errors, prediction_sheet

__all__ = ["colorize", "confusion_picture", "describe_errors", "legend", "overlay", "plot_curves", "prediction_sheet"]
