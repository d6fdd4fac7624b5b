"""Backbones: importing this package registers the FLatten variants with timm."""

from flatten_dense.backbones import cswin, deit, pvt, pvt_v2, swin  # noqa: F401 - imported for their registrations
from flatten_dense.backbones.base import TimmBackbone
from flatten_dense.backbones.classifier import TimmClassifier
from flatten_dense.backbones.timm_model import TimmModel
from flatten_dense.backbones.weights import WeightReport, load_weights

__all__ = ["TimmBackbone", "TimmClassifier", "TimmModel", "WeightReport", "load_weights"]
