"""Weights of other runs, of the official code and of timm, loaded into our backbones without running their code."""

from flatten_dense.backbones.weights.load import load_weights
from flatten_dense.backbones.weights.report import WeightReport

__all__ = ["WeightReport", "load_weights"]
