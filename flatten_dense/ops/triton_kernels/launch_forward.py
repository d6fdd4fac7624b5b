"""The forward pass as a sequence of kernel launches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.ops.triton_kernels.forward_kernels import (
    key_lengths_kernel,
    key_state_kernel,
    query_kernel,
    sum_chunks_kernel,
)
from flatten_dense.ops.triton_kernels.launching import (
    Tiles,
    chunking,
    encoding_mode,
    launch,
    readable,
    softplus_of,
)

TOKENS = 64  # per tile


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    key_padding_mask: Tensor | None,
    encoding_size: Sequence[int],
    kv_size: Sequence[int],
    num_heads: int,
    focusing_factor: float,
) -> tuple[Tensor, Tensor]:
    """Output and context; arguments and results as the operator's."""
    q, k, v, encoding = (readable(x) for x in (q, k, v, encoding.contiguous()))
    softplus = softplus_of(scale)
    (batch, tokens, channels), keys = q.shape, k.shape[1]
    tiles = Tiles(channels, num_heads, q.dtype)
    head_dim, device = tiles.head_dim, q.device
    grids = (*kv_size, *encoding_size)
    table_stride = 0 if encoding.shape[0] == 1 else encoding.stride(0)
    focus = {"FACTOR": focusing_factor, "ENCODING": encoding_mode(encoding_size, kv_size)}
    masked = key_padding_mask is not None
    mask = key_padding_mask.contiguous().view(torch.uint8) if key_padding_mask is not None else k

    inverses, lengths = torch.empty(2, batch, keys, device=device).unbind()
    launch(
        key_lengths_kernel,
        batch * -(-keys // TOKENS),
        (k, mask, softplus, encoding, inverses, lengths, k.stride(0), k.stride(1), table_stride, keys, *grids),
        C=channels,
        BLOCK_C=tiles.block_c,
        BLOCK_T=TOKENS,
        MASKED=masked,
        **focus,
        num_warps=4,
    )
    chunks, chunk_tokens = chunking(keys, batch * num_heads, TOKENS, device)
    partial = torch.empty(batch, num_heads, chunks, head_dim + 1, head_dim, device=device)
    launch(
        key_state_kernel,
        batch * num_heads * chunks,
        (
            k,
            v,
            softplus,
            encoding,
            inverses,
            lengths,
            partial,
            k.stride(0),
            k.stride(1),
            v.stride(0),
            v.stride(1),
            table_stride,
            keys,
            *grids,
            chunks,
            chunk_tokens,
        ),
        G=num_heads,
        D=head_dim,
        BLOCK_D=tiles.block_d,
        BLOCK_T=TOKENS,
        PRECISION=tiles.precision,
        **focus,
        num_warps=tiles.num_warps,
    )
    context = torch.empty(batch, num_heads, head_dim, head_dim + 1, device=device)
    state = torch.empty(batch, num_heads, head_dim + 1, head_dim, device=device)
    counts = (~key_padding_mask).sum(1) if key_padding_mask is not None else k
    launch(
        sum_chunks_kernel,
        batch * num_heads * -(-head_dim * (head_dim + 1) // 128),
        (partial, counts, context, state, keys, chunks),
        G=num_heads,
        D=head_dim,
        BLOCK_CHUNKS=32,
        BLOCK_S=128,
        MASKED=masked,
        num_warps=4,
    )
    out = torch.empty(q.shape, dtype=q.dtype, device=device)
    launch(
        query_kernel,
        batch * -(-tokens // TOKENS),
        (q, softplus, state, out, q.stride(0), q.stride(1), tokens),
        G=num_heads,
        D=head_dim,
        BLOCK_D=tiles.block_d,
        BLOCK_C=tiles.block_c,
        BLOCK_T=TOKENS,
        FACTOR=focusing_factor,
        PRECISION=tiles.precision,
        num_warps=tiles.num_warps,
    )
    return out, context
