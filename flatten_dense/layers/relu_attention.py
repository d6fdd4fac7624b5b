"""Linear attention with ReLU as its feature map: what focusing is added to."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flatten_dense.layers.linear_attention import LinearAttention
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.plain import EPS, linear_attention


class ReluLinearAttention(LinearAttention):
    """phi(q) (mean_j phi(k)_j v_j^T) / (phi(q) . mean_j phi(k)_j + 1e-6) per head, with phi(x) = ReLU(x) + 1e-6.

    Source: the linear attention that arXiv 2308.00442, Table 4, starts from; both 1e-6 as in the focused one.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, key_padding_mask: Tensor | None) -> Tensor:
        """As the base says."""
        return linear_attention(F.relu(q) + EPS, F.relu(k) + EPS, v, self.num_heads, key_padding_mask)
