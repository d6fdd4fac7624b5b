"""Efficient attention: a softmax for queries and one for keys, in place of one for their products."""

from __future__ import annotations

import torch
from torch import Tensor

from flatten_dense.layers.linear_attention import LinearAttention
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.plain import split_heads


class EfficientAttention(LinearAttention):
    """softmax(q) (softmax(K)^T V) per head: of queries over the channels, of keys over the tokens.

    Rows of the N x M matrix sum to 1.

    Source: "Efficient Attention", arXiv 1812.01243.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, key_padding_mask: Tensor | None) -> Tensor:
        """As the base says."""
        if key_padding_mask is not None:
            k = k.masked_fill(key_padding_mask.unsqueeze(-1), torch.finfo(k.dtype).min)
        q, k, v = (split_heads(x, self.num_heads) for x in (q, k, v))
        return (q.softmax(dim=-1) @ (k.softmax(dim=-2).transpose(-2, -1) @ v)).transpose(1, 2).flatten(2)
