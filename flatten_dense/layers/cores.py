"""The attention cores by name."""

from __future__ import annotations

import re

from torch import nn

from flatten_dense.layers.efficient_attention import EfficientAttention
from flatten_dense.layers.elu_attention import EluLinearAttention
from flatten_dense.layers.focused_linear_attention import FocusedLinearAttention
from flatten_dense.layers.hydra_attention import HydraAttention
from flatten_dense.layers.linear_angular_attention import LinearAngularAttention
from flatten_dense.layers.relu_attention import ReluLinearAttention
from flatten_dense.layers.softmax_attention import SoftmaxAttention
from flatten_dense.layers.token_grid import Size

_FOCUSED = ("focused", "focused_no_dwc")
_OTHERS: dict[str, type[nn.Module]] = {
    "softmax": SoftmaxAttention,
    "relu": ReluLinearAttention,
    "elu": EluLinearAttention,
    "hydra": HydraAttention,
    "efficient": EfficientAttention,
    "linear_angular": LinearAngularAttention,
    "enhanced": ReluLinearAttention,  # EfficientViT's, arXiv 2205.14756: what enhances it is a convolution in the MLP
}
CORE_NAMES = (*_FOCUSED, *_OTHERS)
"""What :func:`make_core` makes; a focused one may carry its power: ``"focused_p8"``, ``"focused_no_dwc_p1"``."""


def make_core(
    name: str, dim: int, num_heads: int, grid_size: Size, focusing_factor: float = 3, kernel_size: int = 5
) -> nn.Module:
    """An attention core, called as ``core(q, k, v, q_size, kv_size, key_padding_mask, attn_bias, own_sizes)``.

    Args:
        name: one of ``CORE_NAMES``, a focused one perhaps with its power.
        dim: C.
        num_heads: G, a divisor of C.
        grid_size: native (H, W) of the keys, for a learned encoding.
        focusing_factor: power of the focused feature map, where the name says none.
        kernel_size: of the depth-wise convolution of ``"focused"``, odd.

    Raises:
        ValueError: there is no such core, or an argument does not fit.
    """
    base, power = split_core_name(name)
    if base in _OTHERS:
        return _OTHERS[base](dim, num_heads)
    kernel = None if base == "focused_no_dwc" else kernel_size
    return FocusedLinearAttention(dim, num_heads, grid_size, focusing_factor if power is None else power, kernel)


def split_core_name(name: str) -> tuple[str, float | None]:
    """A core's name without its power, and the power or None.

    Raises:
        ValueError: there is no such core.
    """
    match = re.fullmatch(rf"({'|'.join(CORE_NAMES)})(?:_p(\d+(?:\.\d+)?))?", name)
    power = float(match[2]) if match and match[2] else None
    if match is None or (power is not None and (match[1] not in _FOCUSED or power <= 0)):
        raise ValueError(
            f"no attention is called {name!r}; expected {', '.join(CORE_NAMES)}, a focused one perhaps with its power "
            "like 'focused_p8'"
        )
    return match[1], power
