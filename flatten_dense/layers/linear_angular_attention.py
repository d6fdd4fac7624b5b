"""Linear angular attention: the linear part of a kernel of angles, and a convolution for the rest of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.linear_attention import LinearAttention
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.plain import split_heads

KERNEL_WIDTH = 9


class LinearAngularAttention(LinearAttention):
    """y / ||y|| with y = v / 2 + q^ (K^T V) / pi per head, plus a convolution of the values.

    q^ and the rows of K have length 1, and so have the results of a head before the convolution. Weights have either
    sign.

    Args:
        dim: C, channels of queries, keys and values.
        num_heads: G, a divisor of C. The convolution has one kernel for all channels of a head.

    Source: Castling-ViT, arXiv 2211.10526, as its models are after training, when the auxiliary softmax is gone.
    Changed: the convolution along the tokens ends with a row of the map, where the released one runs on into the next.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.dwc = nn.Conv2d(num_heads, num_heads, (1, KERNEL_WIDTH), padding="same", groups=num_heads, bias=False)

    def check_grids(self, q_size: Size, kv_size: Size) -> None:
        """Refuse other keys than the queries' tokens: half of each token's own value is added to it."""
        if q_size != kv_size:
            raise ValueError(f"linear angular attention needs queries and keys on one grid, got {q_size} and {kv_size}")

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, key_padding_mask: Tensor | None) -> Tensor:
        """As the base says."""
        convolved = self._convolve(v, q_size)
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        context = F.normalize(k, dim=-1).transpose(-2, -1) @ v
        rows = F.normalize(v / 2 + F.normalize(q, dim=-1) @ context / math.pi, dim=-1)
        return rows.transpose(1, 2).flatten(2) + convolved

    def _convolve(self, v: Tensor, size: Size) -> Tensor:
        channels = v.shape[2]
        weight = self.dwc.weight.to(v.dtype).repeat_interleave(channels // self.num_heads, 0)
        maps = v.transpose(1, 2).reshape(-1, channels, *size)
        return torch.conv2d(maps, weight, padding=[0, KERNEL_WIDTH // 2], groups=channels).flatten(2).transpose(1, 2)
