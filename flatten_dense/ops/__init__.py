"""Attention as pure functions of tensors."""

from flatten_dense.ops.focused_linear_attention import focused_feature_map, linear_attention

__all__ = ["focused_feature_map", "linear_attention"]
