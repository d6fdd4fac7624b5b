"""The softmax core: the baseline, behind the same call as the focused linear one."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.plain import split_heads


class SoftmaxAttention(nn.Module):
    """Scaled dot-product attention between projected queries, keys and values. No parameters.

    Args:
        dim: C, channels of queries, keys and values.
        num_heads: G, a divisor of C.

    Raises:
        ValueError: if ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads

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
            q_size: (H, W) of the queries; not needed here.
            kv_size: (H, W) of keys and values; not needed here.
            key_padding_mask: ``[B, M]`` bool, True = ignore that key. A row that ignores every key gives zeros.
            attn_bias: added before the softmax, broadcastable to ``[B, G, N, M]``.
            own_sizes: of the images in a padded batch; not needed here, the mask says it.

        Returns:
            ``[B, N, C]``.
        """
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        attn_mask = None if attn_bias is None else attn_bias.to(q.dtype)
        if key_padding_mask is not None:
            nothing_left = key_padding_mask.all(dim=1)
            # A softmax over nothing is 0 / 0: such a row attends anywhere and is zeroed afterwards.
            ignore = (key_padding_mask & ~nothing_left.unsqueeze(1))[:, None, None]
            attn_mask = ~ignore if attn_mask is None else attn_mask.masked_fill(ignore, float("-inf"))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        if key_padding_mask is not None:
            out = out.masked_fill(nothing_left.view(-1, 1, 1, 1), 0)
        return out.transpose(1, 2).flatten(2)

    def extra_repr(self) -> str:
        """The argument that no submodule shows."""
        return f"num_heads={self.num_heads}"


def check_heads(dim: int, num_heads: int) -> None:
    """Refuse heads that do not divide the channels.

    Raises:
        ValueError: they do not.
    """
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"num_heads must divide the channels, got dim={dim} and num_heads={num_heads}")
