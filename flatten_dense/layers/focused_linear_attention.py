"""The focused linear attention core that every backbone family calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.positional import resize_token_table
from flatten_dense.layers.softmax_attention import check_heads
from flatten_dense.layers.streaming import add_over
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.depthwise_convolution import depthwise_convolution
from flatten_dense.ops.focused_linear_attention import focused_linear_attention
from flatten_dense.ops.half_precision import saturate, widen


class FocusedLinearAttention(nn.Module):
    """Focused linear attention between projected queries, keys and values, plus a depth-wise convolution of the values.

    Works in float32 inside whatever the input's type is (float64 stays), so that half precision neither overflows nor
    divides by nothing. It knows no projections and no backbone family.

    Args:
        dim: C, channels of queries, keys and values.
        num_heads: G, a divisor of C. The convolution's D = C / G kernels are shared by all heads.
        grid_size: (H, W) of the key grid that the positional encoding is made for.
        focusing_factor: power of the feature map.
        kernel_size: of the depth-wise convolution, odd; None for no convolution.

    Raises:
        ValueError: if ``num_heads`` does not divide ``dim``, or ``kernel_size`` is even.

    Source: arXiv 2308.00442, section 4.3; encoding on the keys only and shared kernels as in the released code.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid_size: Size,
        focusing_factor: float = 3,
        kernel_size: int | None = 5,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
            raise ValueError(f"kernel_size must be odd to keep the map's size, got {kernel_size}")
        self.num_heads = num_heads
        self.grid_size = grid_size
        self.focusing_factor = focusing_factor
        head_dim = dim // num_heads
        self.positional_encoding = nn.Parameter(torch.zeros(1, grid_size[0] * grid_size[1], dim))
        self.scale = nn.Parameter(torch.zeros(1, 1, dim))
        self.dwc: nn.Conv2d | None = None
        if kernel_size is not None:
            self.dwc = nn.Conv2d(head_dim, head_dim, kernel_size, padding=kernel_size // 2, groups=head_dim)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_size: Size,
        kv_size: Size,
        key_padding_mask: Tensor | None = None,
        attn_bias: Tensor | None = None,
        own_sizes: Sequence[Size] | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            q: ``[B, N, C]``.
            k: ``[B, M, C]``.
            v: ``[B, M, C]``.
            q_size: (H, W) of the queries, H * W = N, row-major.
            kv_size: (H, W) of keys and values, H * W = M.
            key_padding_mask: ``[B, M]`` bool, True = ignore: no key, and zero for the convolution.
            attn_bias: not possible here; an argument only to share the softmax core's signature.
            own_sizes: (h, w) of each image's part of the key grid in a padded batch; the encoding spans that part.

        Returns:
            ``[B, N, C]`` in the type of ``q``.

        Raises:
            ValueError: if ``attn_bias`` is given.
        """
        if attn_bias is not None:
            raise ValueError("linear attention cannot add attn_bias, having no N x M matrix; use SoftmaxAttention")
        encoding, encoding_size = widen(self.positional_encoding), self.grid_size
        if own_sizes is not None:
            encoding, encoding_size = resize_token_table(encoding, encoding_size, kv_size, own_sizes), kv_size
        out = focused_linear_attention(
            q,
            k,
            v,
            widen(self.scale),
            encoding,
            encoding_size,
            kv_size,
            self.num_heads,
            self.focusing_factor,
            key_padding_mask,
        )
        if self.dwc is None:
            return out
        if key_padding_mask is not None:
            v = v.masked_fill(key_padding_mask.unsqueeze(-1), 0)
        return saturate(add_over(out, self._convolve(self.dwc, v, q_size, kv_size)))

    @staticmethod
    def _convolve(dwc: nn.Conv2d, v: Tensor, q_size: Size, kv_size: Size) -> Tensor:
        """Depth-wise convolution of the values as a map of ``q_size``: ``[B, M, C]`` to ``[B, N, C]``."""
        if kv_size != q_size:
            # Along the flattened index, not over the map: spatially odd, but it is how published weights were trained.
            v = F.interpolate(v.transpose(1, 2), size=q_size[0] * q_size[1], mode="linear").transpose(1, 2)
        return depthwise_convolution(v, q_size, dwc.weight, cast(Tensor, dwc.bias))

    def extra_repr(self) -> str:
        """The arguments that the submodules do not show."""
        return f"num_heads={self.num_heads}, grid_size={self.grid_size}, focusing_factor={self.focusing_factor}"
