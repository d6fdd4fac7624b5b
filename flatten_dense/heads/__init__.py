"""Heads: feature maps in, predictions out. They know channels and strides, never a backbone."""

from flatten_dense.heads.base import SegmentationHead
from flatten_dense.heads.semantic_fpn import SemanticFPNHead

__all__ = ["SegmentationHead", "SemanticFPNHead"]
