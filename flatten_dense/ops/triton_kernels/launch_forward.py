"""The forward pass as a sequence of kernel launches."""

from __future__ import annotations

import torch
from torch import Tensor

from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.triton_kernels.forward_kernels import key_lengths_kernel, key_state_kernel, query_kernel
from flatten_dense.ops.triton_kernels.launching import (
    Tiles,
    chunking,
    encoding_mode,
    inverse_scales_of,
    launch,
    readable,
    readable_mask,
)
from flatten_dense.ops.triton_kernels.summing import sum_chunks

MEASURED = 2048  # numbers of a tile in the pass that only measures keys: few, so that many programs load at once


def attend(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Output and context; arguments and results as the operator's."""
    q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, num_heads, focusing_factor = inputs
    q, k, v, encoding = (readable(x) for x in (q, k, v, encoding.contiguous()))
    inverse_scales = inverse_scales_of(scale)
    (batch, tokens, channels), keys = q.shape, k.shape[1]
    tiles = Tiles(channels, num_heads, torch.promote_types(q.dtype, v.dtype))
    head_dim, device = tiles.head_dim, q.device
    encoding_kind = encoding_mode(encoding_size, kv_size)
    focus = {"FACTOR": focusing_factor, "ENCODING": encoding_kind}
    grids = (*kv_size, *encoding_size)
    table_stride = 0 if encoding.shape[0] == 1 else encoding.stride(0)
    k_strides, v_strides = k.stride()[:2], v.stride()[:2]

    rows = MEASURED // tiles.block_c
    inverses, lengths = torch.empty(2, batch, keys, device=device).unbind()
    launch(
        key_lengths_kernel,
        batch * -(-keys // rows),
        (
            *(k, readable_mask(key_padding_mask, k), inverse_scales, encoding, inverses, lengths),
            *(*k_strides, table_stride, keys, *grids),
        ),
        C=channels,
        BLOCK_C=tiles.block_c,
        BLOCK_T=rows,
        MASKED=key_padding_mask is not None,
        **focus,
        num_warps=4,
    )
    chunks, chunk_tokens = chunking(keys, batch, tiles, device)
    partial = torch.empty(batch, num_heads, chunks, head_dim, head_dim + 1, device=device)
    launch(
        key_state_kernel,
        batch * num_heads * chunks,
        (
            *(k, v, inverse_scales, encoding, inverses, lengths, partial),
            *(*k_strides, *v_strides, table_stride, keys, *grids, chunks, chunk_tokens),
        ),
        FOLD=tiles.fold,
        **focus,
        **tiles.over_heads(encoding=encoding_kind),
    )
    context, state, mean = sum_chunks(partial, tiles, keys, key_padding_mask)
    out = torch.empty(q.shape, dtype=q.dtype, device=device)
    # Larger tiles read the state less often, from a cache that is not much faster than memory.
    larger = 2 if tiles.block_t == 64 and tokens > 64 else 1
    launch(
        query_kernel,
        batch * -(-tokens // (tiles.block_t * larger)),
        (q, inverse_scales, state, mean, out, *q.stride()[:2], tokens, batch * num_heads),
        BLOCK_C=tiles.block_c,
        FACTOR=focusing_factor,
        **tiles.over_heads(larger),
    )
    return out, context
