"""What focused linear attention is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """The operator's arguments, in its order; see :func:`flatten_dense.ops.focused_linear_attention`.

    Attributes:
        q: ``[B, N, C]``.
        k: ``[B, M, C]``.
        v: ``[B, M, C]``.
        scale: ``[1, 1, C]``.
        encoding: ``[1 or B, h * w, C]``.
        key_padding_mask: ``[B, M]`` bool, or None.
        encoding_size: (h, w).
        kv_size: (H, W), H * W = M.
        num_heads: G.
        focusing_factor: the power of the feature map.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    encoding: Tensor
    key_padding_mask: Tensor | None
    encoding_size: Sequence[int]
    kv_size: Sequence[int]
    num_heads: int
    focusing_factor: float
