"""The backward pass as a sequence of kernel launches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.ops.inputs import Inputs
from flatten_dense.ops.triton_kernels.key_backward_kernels import key_gradient_kernel
from flatten_dense.ops.triton_kernels.launching import (
    Tiles,
    chunking,
    encoding_mode,
    inverse_scales_of,
    launch,
    readable,
    readable_mask,
)
from flatten_dense.ops.triton_kernels.query_backward_kernels import query_gradient_kernel, query_state_kernel
from flatten_dense.ops.triton_kernels.summing import state_of, sum_chunks

FLOAT16_MAX = torch.finfo(torch.float16).max


def gradients(grad: Tensor, inputs: Inputs, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, scale and encoding; arguments and results as the operator's."""
    q, k, v, scale, encoding, key_padding_mask, encoding_size, kv_size, num_heads, focusing_factor = inputs
    grad, q, k, v, table = (readable(x) for x in (grad, q, k, v, encoding.contiguous()))
    inverse_scales = inverse_scales_of(scale)
    (batch, tokens, channels), keys = q.shape, k.shape[1]
    tiles = Tiles(channels, num_heads, torch.promote_types(q.dtype, v.dtype))
    head_dim, device = tiles.head_dim, q.device

    state, mean = state_of(context, tiles)
    inverses = torch.empty(batch, tokens, device=device)
    head_scalars = torch.empty(2, batch, num_heads, tokens, device=device)
    programs = batch * -(-tokens // tiles.block_t)
    scale_partial = torch.empty(programs, channels, device=device)
    dq = torch.empty(q.shape, dtype=q.dtype, device=device)
    strides = (*grad.stride()[:2], *q.stride()[:2], tokens, batch * num_heads)
    launch(
        query_gradient_kernel,
        programs,
        (grad, q, inverse_scales, state, mean, inverses, head_scalars, dq, scale_partial, *strides),
        BLOCK_C=tiles.block_c,
        FACTOR=focusing_factor,
        **tiles.over_heads(),
    )
    chunks, chunk_tokens = chunking(tokens, batch, tiles, device)
    partial = torch.empty(batch, num_heads, chunks, head_dim, head_dim + 1, device=device)
    launch(
        query_state_kernel,
        batch * num_heads * chunks,
        (grad, q, inverse_scales, inverses, head_scalars, partial, *strides, chunks, chunk_tokens),
        FOLD=tiles.fold,
        FACTOR=focusing_factor,
        **tiles.over_heads(),
    )
    _, state, mean = sum_chunks(partial, tiles, keys, key_padding_mask)
    encoding_kind = encoding_mode(encoding_size, kv_size)
    programs = batch * -(-keys // tiles.block_t)
    key_scale_partial = torch.empty(programs, channels, device=device)
    dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=device) for x in (k, v))
    launch(
        key_gradient_kernel,
        programs,
        (
            *(k, v, readable_mask(key_padding_mask, k), inverse_scales, table, state, mean, dk, dv, key_scale_partial),
            *(*k.stride()[:2], *v.stride()[:2], 0 if table.shape[0] == 1 else table.stride(0)),
            *(keys, *kv_size, *encoding_size, batch * num_heads),
        ),
        BLOCK_C=tiles.block_c,
        FACTOR=focusing_factor,
        ENCODING=encoding_kind,
        MASKED=key_padding_mask is not None,
        **tiles.over_heads(encoding=encoding_kind),
    )
    # y = a / softplus(scale): the gradient of the softplus is -(sum of y dy) / softplus.
    dscale = -(scale_partial.sum(0) + key_scale_partial.sum(0)) * inverse_scales * scale.float().flatten().sigmoid()
    dencoding = _encoding_gradient(dk, encoding.shape[0], encoding_size, kv_size)
    return dq, dk, dv, _narrow(dscale.view_as(scale), scale.dtype), _narrow(dencoding, encoding.dtype)


def _encoding_gradient(dk: Tensor, tables: int, encoding_size: Sequence[int], kv_size: Sequence[int]) -> Tensor:
    if tables == 1:
        dk = dk.sum(0, keepdim=True, dtype=torch.float32)
    if tuple(encoding_size) == tuple(kv_size):
        return dk
    grid = dk.view(tables, *kv_size, -1).permute(0, 3, 1, 2)
    grid = torch.ops.aten.upsample_bilinear2d_backward(
        grid, list(kv_size), [*grid.shape[:2], *encoding_size], False, None, None
    )
    table: Tensor = grid.flatten(2).transpose(1, 2)
    return table


def _narrow(x: Tensor, dtype: torch.dtype) -> Tensor:
    return (x.clamp(-FLOAT16_MAX, FLOAT16_MAX) if dtype == torch.float16 else x).to(dtype)
