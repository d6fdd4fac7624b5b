"""Attention as pure functions of tensors."""

from flatten_dense.ops.forms import attention_form
from flatten_dense.ops.plain import focused_feature_map, linear_attention

__all__ = ["attention_form", "focused_feature_map", "linear_attention"]
