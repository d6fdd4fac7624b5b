"""Hydra attention: linear attention with as many heads as channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flatten_dense.layers.linear_attention import LinearAttention
from flatten_dense.layers.softmax_attention import check_heads
from flatten_dense.layers.token_grid import Size


class HydraAttention(LinearAttention):
    """q^ * sum_j k^_j * v_j, products of channels, with q^ and k^_j of length 1 over all channels.

    Weights have either sign and are not normalised.

    Args:
        dim: C, channels of queries, keys and values.
        num_heads: of the model, without effect here.

    Attributes:
        num_heads: C, each channel being a head.
        model_heads: that of the model.

    Source: "Hydra Attention", arXiv 2209.07484, with its cosine similarity kernel.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        check_heads(dim, num_heads)
        super().__init__(dim, dim)
        self.model_heads = num_heads

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, key_padding_mask: Tensor | None) -> Tensor:
        """As the base says."""
        return F.normalize(q, dim=-1) * (F.normalize(k, dim=-1) * v).sum(dim=1, keepdim=True)
