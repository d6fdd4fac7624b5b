"""Attention cores and the parts that the backbone families share."""

from flatten_dense.layers.focused_linear_attention import FocusedLinearAttention
from flatten_dense.layers.patch_embed import PatchEmbed
from flatten_dense.layers.positional import resize_token_table
from flatten_dense.layers.softmax_attention import SoftmaxAttention
from flatten_dense.layers.spatial_reduction import SpatialReductionAttention

__all__ = [
    "FocusedLinearAttention",
    "PatchEmbed",
    "SoftmaxAttention",
    "SpatialReductionAttention",
    "resize_token_table",
]
