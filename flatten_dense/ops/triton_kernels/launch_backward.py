"""The backward pass as a sequence of kernel launches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.ops.triton_kernels.forward_kernels import sum_chunks_kernel
from flatten_dense.ops.triton_kernels.key_backward_kernels import key_gradient_kernel
from flatten_dense.ops.triton_kernels.launching import (
    Tiles,
    chunking,
    encoding_mode,
    launch,
    readable,
    softplus_of,
)
from flatten_dense.ops.triton_kernels.query_backward_kernels import query_gradient_kernel, query_scalars_kernel

TOKENS = 64  # per tile
FLOAT16_MAX = torch.finfo(torch.float16).max


def gradients(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: Tensor,
    encoding: Tensor,
    key_padding_mask: Tensor | None,
    context: Tensor,
    encoding_size: Sequence[int],
    kv_size: Sequence[int],
    num_heads: int,
    focusing_factor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, scale and encoding; arguments and results as the operator's."""
    grad, q, k, v, table = (readable(x) for x in (grad, q, k, v, encoding.contiguous()))
    softplus = softplus_of(scale)
    (batch, tokens, channels), keys = q.shape, k.shape[1]
    tiles = Tiles(channels, num_heads, q.dtype)
    head_dim, device = tiles.head_dim, q.device
    heads = {"G": num_heads, "D": head_dim, "BLOCK_D": tiles.block_d}
    shared = {"BLOCK_T": TOKENS, "FACTOR": focusing_factor, "PRECISION": tiles.precision}
    masked = key_padding_mask is not None

    state = context.transpose(2, 3).contiguous()
    state[:, :, :head_dim] = context[..., :head_dim]
    scalars = torch.empty(3, batch, tokens, device=device)
    head_scalars = torch.empty(2, num_heads, batch, tokens, device=device)
    strides = (grad.stride(0), grad.stride(1), q.stride(0), q.stride(1), tokens, batch * tokens)
    launch(
        query_scalars_kernel,
        batch * -(-tokens // TOKENS),
        (grad, q, softplus, state, scalars, head_scalars, *strides),
        **heads,
        BLOCK_C=tiles.block_c,
        **shared,
        num_warps=tiles.num_warps,
    )
    chunks, chunk_tokens = chunking(tokens, batch * num_heads, TOKENS, device)
    partial = torch.empty(batch, num_heads, chunks, head_dim + 1, head_dim, device=device)
    scale_partial = torch.empty(batch * chunks, channels, device=device)
    dq = torch.empty(q.shape, dtype=q.dtype, device=device)
    launch(
        query_gradient_kernel,
        batch * num_heads * chunks,
        (grad, q, softplus, state, scalars, head_scalars, dq, partial, scale_partial, *strides, chunks, chunk_tokens),
        **heads,
        **shared,
        num_warps=tiles.num_warps,
    )
    counts = (~key_padding_mask).sum(1) if key_padding_mask is not None else k
    state_gradient = torch.empty_like(state)
    launch(
        sum_chunks_kernel,
        batch * num_heads * -(-head_dim * (head_dim + 1) // 128),
        (partial, counts, torch.empty_like(context), state_gradient, keys, chunks),
        G=num_heads,
        D=head_dim,
        BLOCK_CHUNKS=32,
        BLOCK_S=128,
        MASKED=masked,
        num_warps=4,
    )
    programs = batch * -(-keys // TOKENS)
    mask = key_padding_mask.contiguous().view(torch.uint8) if key_padding_mask is not None else k
    key_scale_partial = torch.empty(programs, channels, device=device)
    dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=device) for x in (k, v))
    launch(
        key_gradient_kernel,
        programs,
        (
            *(k, v, mask, softplus, table, state_gradient, dk, dv, key_scale_partial),
            *(k.stride(0), k.stride(1), v.stride(0), v.stride(1), 0 if table.shape[0] == 1 else table.stride(0)),
            *(keys, *kv_size, *encoding_size),
        ),
        **heads,
        BLOCK_C=tiles.block_c,
        ENCODING=encoding_mode(encoding_size, kv_size),
        MASKED=masked,
        **shared,
        num_warps=tiles.num_warps,
    )
    # y = a / softplus(scale): the gradient of the softplus is -(sum of y dy) / softplus.
    dscale = -(scale_partial.sum(0) + key_scale_partial.sum(0)) / softplus * scale.float().flatten().sigmoid()
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
