"""Necks: lists of feature maps in, lists of feature maps out."""

from flatten_dense.necks.fpn import FPN

__all__ = ["FPN"]
