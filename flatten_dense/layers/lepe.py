"""CSWin's locally-enhanced positional encoding, around a core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.depthwise_convolution import depthwise_convolution


class LocallyEnhancedAttention(nn.Module):
    """Add a 3x3 depth-wise convolution of the values to what a core gives; itself called like a core.

    Args:
        core: the core inside.
        dim: C.

    Source: CSWin Transformer, arXiv 2107.00652.
    """

    def __init__(self, core: nn.Module, dim: int) -> None:
        super().__init__()
        self.core = core
        self.lepe = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

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
        """Attend; arguments as the core's, queries and keys on one grid."""
        out = self.core(q, k, v, q_size, kv_size, key_padding_mask, attn_bias, own_sizes)
        if key_padding_mask is not None:
            v = v.masked_fill(key_padding_mask.unsqueeze(-1), 0)
        lepe = depthwise_convolution(v, kv_size, self.lepe.weight, cast(Tensor, self.lepe.bias))
        return cast(Tensor, out + lepe)
