"""What the linear attentions that focused linear attention is compared with share: the core's call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from flatten_dense.layers.softmax_attention import check_heads
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.half_precision import narrow, widen
from flatten_dense.ops.plain import full_precision


class LinearAttention(nn.Module):
    """A core without an N x M matrix, in float32 inside whatever the input's type is (float64 stays).

    A subclass says in :meth:`attend` how.

    Args:
        dim: C, channels of queries, keys and values.
        num_heads: G, a divisor of C.

    Raises:
        ValueError: if ``num_heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.dim = dim
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
        """Attend; arguments as of :class:`flatten_dense.layers.FocusedLinearAttention`.

        Returns:
            ``[B, N, C]`` in the type of ``q``; float16 saturates.

        Raises:
            ValueError: if ``attn_bias`` is given, or the grids are none that this attention can take.
        """
        if attn_bias is not None:
            raise ValueError("linear attention cannot add attn_bias, having no N x M matrix; use SoftmaxAttention")
        self.check_grids(q_size, kv_size)
        with full_precision(q.device):
            dtype, (q, k, v) = q.dtype, (widen(x) for x in (q, k, v))
            if key_padding_mask is not None:
                ignore = key_padding_mask.unsqueeze(-1)
                k, v = k.masked_fill(ignore, 0), v.masked_fill(ignore, 0)
            return narrow(self.attend(q, k, v, q_size, key_padding_mask), dtype)

    def check_grids(self, q_size: Size, kv_size: Size) -> None:
        """Refuse grids of queries and keys; none by itself."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, key_padding_mask: Tensor | None) -> Tensor:
        """``[B, N, C]`` from queries ``[B, N, C]``, keys and values ``[B, M, C]`` that are zero where masked."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The argument that no submodule shows."""
        return f"num_heads={self.num_heads}"
