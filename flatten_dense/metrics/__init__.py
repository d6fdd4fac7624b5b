"""Metrics over a whole data set."""

from flatten_dense.metrics.segmentation import PROTOCOL, SegmentationConfusion, SegmentationScores

__all__ = ["PROTOCOL", "SegmentationConfusion", "SegmentationScores"]
