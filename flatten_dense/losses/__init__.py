"""Losses: functions of prediction and target only, and classes that a recipe can name for them."""

from flatten_dense.losses.base import SegmentationLoss, WeightedSum
from flatten_dense.losses.cross_entropy import (
    CrossEntropyLoss,
    OHEMCrossEntropyLoss,
    ohem_cross_entropy,
    segmentation_cross_entropy,
)
from flatten_dense.losses.dice import DiceLoss, dice_loss
from flatten_dense.losses.focal import FocalLoss, focal_loss

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "OHEMCrossEntropyLoss",
    "SegmentationLoss",
    "WeightedSum",
    "dice_loss",
    "focal_loss",
    "ohem_cross_entropy",
    "segmentation_cross_entropy",
]
