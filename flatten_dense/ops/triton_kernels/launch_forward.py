"""The forward pass as a sequence of kernel launches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.ops.triton_kernels.forward_kernels import key_lengths_kernel, key_state_kernel, query_kernel
from flatten_dense.ops.triton_kernels.launching import (
    Tiles,
    chunking,
    encoding_mode,
    launch,
    readable,
    readable_mask,
    softplus_of,
)
from flatten_dense.ops.triton_kernels.summing import sum_chunks

FOLD=None
KEYS = 64  # per tile
QUERIES = 128


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
    tiles = Tiles(channels, num_heads, torch.promote_types(q.dtype, v.dtype))
    head_dim, device = tiles.head_dim, q.device
    focus = {"FACTOR": focusing_factor, "ENCODING": encoding_mode(encoding_size, kv_size)}
    grids = (*kv_size, *encoding_size)
    table_stride = 0 if encoding.shape[0] == 1 else encoding.stride(0)
    k_strides, v_strides = k.stride()[:2], v.stride()[:2]

    inverses, lengths = torch.empty(2, batch, keys, device=device).unbind()
    launch(
        key_lengths_kernel,
        batch * -(-keys // KEYS),
        (
            *(k, readable_mask(key_padding_mask, k), softplus, encoding, inverses, lengths),
            *(*k_strides, table_stride, keys, *grids),
        ),
        C=channels,
        BLOCK_C=tiles.block_c,
        BLOCK_T=KEYS,
        MASKED=key_padding_mask is not None,
        **focus,
        num_warps=4,
    )
    chunks, chunk_tokens = chunking(keys, batch * num_heads, KEYS, device)
    partial = torch.empty(batch, num_heads, chunks, head_dim, head_dim + 1, device=device)
    launch(
        key_state_kernel,
        batch * num_heads * chunks,
        (
            *(k, v, softplus, encoding, inverses, lengths, partial),
            *(*k_strides, *v_strides, table_stride, keys, *grids, chunks, chunk_tokens),
        ),
        BLOCK_T=KEYS,
        FOLD=FOLD or tiles.fold(KEYS, 8 if tiles.block_d > 64 else 4),
        **tiles.heads(),
        **focus,
        num_warps=8 if tiles.block_d > 64 else 4,
    )
    context, state, mean = sum_chunks(partial, tiles, keys, key_padding_mask)
    out = torch.empty(q.shape, dtype=q.dtype, device=device)
    launch(
        query_kernel,
        batch * -(-tokens // QUERIES),
        (q, softplus, state, mean, out, *q.stride()[:2], tokens, batch * num_heads),
        BLOCK_C=tiles.block_c,
        BLOCK_T=QUERIES,
        FACTOR=focusing_factor,
        **tiles.heads(),
        num_warps=8,
    )
    return out, context
