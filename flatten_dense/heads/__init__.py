"""Heads: feature maps in, predictions out. They know channels and strides, never a backbone."""

from flatten_dense.heads.base import SegmentationHead
from flatten_dense.heads.detection import CascadeMaskRCNNHead, DetectionHead, MaskRCNNHead, RetinaNetHead
from flatten_dense.heads.fcn import FCNHead
from flatten_dense.heads.semantic_fpn import SemanticFPNHead
from flatten_dense.heads.upernet import UPerHead

__all__ = [
    "CascadeMaskRCNNHead",
    "DetectionHead",
    "FCNHead",
    "MaskRCNNHead",
    "RetinaNetHead",
    "SegmentationHead",
    "SemanticFPNHead",
    "UPerHead",
]
