"""Attention cores and the parts that backbones and heads share."""

from flatten_dense.layers.block import Block
from flatten_dense.layers.conv_bn_relu import conv_bn_relu
from flatten_dense.layers.cores import CORE_NAMES, make_core
from flatten_dense.layers.efficient_attention import EfficientAttention
from flatten_dense.layers.elu_attention import EluLinearAttention
from flatten_dense.layers.focused_linear_attention import FocusedLinearAttention
from flatten_dense.layers.hydra_attention import HydraAttention
from flatten_dense.layers.lepe import LocallyEnhancedAttention
from flatten_dense.layers.linear_angular_attention import LinearAngularAttention
from flatten_dense.layers.mlp import ConvMlp, Mlp
from flatten_dense.layers.patch_embed import PatchEmbed, PatchMerging
from flatten_dense.layers.positional import relative_position_bias, resize_token_table
from flatten_dense.layers.projections import POOLED_GRID, FusedAttention, SpatialReductionAttention
from flatten_dense.layers.relu_attention import ReluLinearAttention
from flatten_dense.layers.softmax_attention import SoftmaxAttention
from flatten_dense.layers.token_grid import Size, TokenGrid, as_size, ceil_div, own_grids
from flatten_dense.layers.windows import SwinWindowAttention, WindowedAttention

__all__ = [
    "CORE_NAMES",
    "POOLED_GRID",
    "Block",
    "ConvMlp",
    "EfficientAttention",
    "EluLinearAttention",
    "FocusedLinearAttention",
    "FusedAttention",
    "HydraAttention",
    "LinearAngularAttention",
    "LocallyEnhancedAttention",
    "Mlp",
    "PatchEmbed",
    "PatchMerging",
    "ReluLinearAttention",
    "Size",
    "SoftmaxAttention",
    "SpatialReductionAttention",
    "SwinWindowAttention",
    "TokenGrid",
    "WindowedAttention",
    "as_size",
    "ceil_div",
    "conv_bn_relu",
    "make_core",
    "own_grids",
    "relative_position_bias",
    "resize_token_table",
]
