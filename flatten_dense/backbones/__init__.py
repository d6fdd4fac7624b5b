"""Backbones: importing this package registers the FLatten variants with timm."""

from flatten_dense.backbones import pvt as pvt  # imported for its registrations
from flatten_dense.backbones.base import TimmBackbone

__all__ = ["TimmBackbone"]
