"""Necks: lists of feature maps in, lists of feature maps out."""

from flatten_dense.necks.fpn import FPN
from flatten_dense.necks.simple_pyramid import SimplePyramid

__all__ = ["FPN", "SimplePyramid"]
