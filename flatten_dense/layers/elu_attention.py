"""Linear attention with ELU + 1 as its feature map."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flatten_dense.layers.linear_attention import LinearAttention
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.plain import linear_attention


class EluLinearAttention(LinearAttention):
    """phi(q) (mean_j phi(k)_j v_j^T) / (phi(q) . mean_j phi(k)_j + 1e-6) per head, with phi(x) = ELU(x) + 1.

    Source: "Transformers are RNNs", arXiv 2006.16236; the 1e-6 as in the other linear attentions here.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, key_padding_mask: Tensor | None) -> Tensor:
        """As the base says."""
        return linear_attention(F.elu(q) + 1, F.elu(k) + 1, v, self.num_heads, key_padding_mask)
