# mypy: disable-error-code="untyped-decorator, import-untyped, import-not-found"
"""Backward on the side of the queries: dq by tiles of tokens with all their heads, then dKV and dm by chunks.

With num = p KV, den = p . m + floor (floor = 1e-6 / length) and out = num / den, the gradient g gives

    dKV += (p / den)^T g,  dm -= p w,  length dphi = (g KV^T) / den - w m,  where w = (g . out) / den.

The focused map being homogeneous, dphi . phi over all channels is the sum over heads of (g . out) floor / den.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flatten_dense.ops.triton_kernels.device_functions import (
    EPS,
    NO_ENCODING,
    add_outer,
    focus_gradient,
    fold_rows,
    load_state,
    load_tile,
    load_vector,
    positive_map,
    power,
    row_norms,
    store_tile,
    times_state,
)


@triton.jit
def query_gradient_kernel(
    grad: tl.tensor,
    q: tl.tensor,
    inverse_scales: tl.tensor,
    state: tl.tensor,
    mean: tl.tensor,
    inverses: tl.tensor,
    head_scalars: tl.tensor,
    dq: tl.tensor,
    scale_partial: tl.tensor,
    grad_batch_stride: tl.tensor,
    grad_stride: tl.tensor,
    q_batch_stride: tl.tensor,
    q_stride: tl.tensor,
    N: tl.tensor,
    heads: tl.tensor,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """The gradient dq, contiguous, and the sums of y dy over a tile, ``[programs, C]``.

    For the other kernel also 1 / largest, ``[B, N]``, and 1 / den and w, ``[2, B, G, N]``.
    """
    blocks = tl.cdiv(N, BLOCK_T)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    tokens = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    row_ok = tokens < N
    grad += image * grad_batch_stride
    q += image * q_batch_stride
    dq += image * N * (G * D)
    head_scalars += image * N * G
    scale_partial += tl.program_id(0).to(tl.int64) * (G * D)
    plane = tl.cast(heads, tl.int64) * N
    inverse, squares, powers = row_norms(
        q,
        q_stride,
        inverse_scales,
        q,
        tokens,
        tokens,
        tokens,
        tokens,
        tokens,
        tokens,
        tokens,
        row_ok,
        BLOCK_T,
        G * D,
        BLOCK_C,
        FACTOR,
        NO_ENCODING,
    )
    tl.store(inverses + image * N + tokens, inverse, mask=row_ok)
    floor = EPS * inverse * tl.sqrt(powers / squares)
    d = tl.arange(0, BLOCK_D)
    d_ok = None if D == BLOCK_D else d < D
    projection = tl.zeros([BLOCK_T], tl.float32)
    for head in range(0, G):
        columns = head * D + d
        x = load_tile(q, q_stride, tokens, row_ok, columns, d_ok).to(tl.float32)
        p = power(positive_map(x, load_vector(inverse_scales, columns, d_ok)) * inverse[:, None], FACTOR)
        g = load_tile(grad, grad_stride, tokens, row_ok, columns, d_ok)
        high, low = load_state(state, image * G + head, heads, D, BLOCK_D, PRECISION)
        mean_key = load_vector(mean + (image * G + head) * D, d, d_ok)
        inverse_normaliser = 1.0 / (tl.sum(p * mean_key[None, :], 1) + floor)
        product = times_state(g, tl.trans(high), tl.trans(low), PRECISION)
        weight = tl.sum(p * product, 1) * inverse_normaliser * inverse_normaliser
        projection += weight * floor
        tl.store(head_scalars + tokens, inverse_normaliser, mask=row_ok)
        tl.store(head_scalars + plane + tokens, weight, mask=row_ok)
        head_scalars += N
    along_y = projection / squares
    along_p = projection / powers
    for head in range(0, G):
        columns = head * D + d
        x = load_tile(q, q_stride, tokens, row_ok, columns, d_ok).to(tl.float32)
        inverse_scale = load_vector(inverse_scales, columns, d_ok)
        y = positive_map(x, inverse_scale) * inverse[:, None]
        p = power(y, FACTOR)
        g = load_tile(grad, grad_stride, tokens, row_ok, columns, d_ok)
        high, low = load_state(state, image * G + head, heads, D, BLOCK_D, PRECISION)
        mean_key = load_vector(mean + (image * G + head) * D, d, d_ok)
        inverse_normaliser = 1.0 / (tl.sum(p * mean_key[None, :], 1) + floor)
        product = times_state(g, tl.trans(high), tl.trans(low), PRECISION) * inverse_normaliser[:, None]
        weight = tl.sum(p * product, 1) * inverse_normaliser
        dy = focus_gradient(y, p, product - weight[:, None] * mean_key[None, :], along_y, along_p, FACTOR)
        tl.store(scale_partial + columns, tl.sum(y * dy, 0), mask=d < D)
        dx = tl.where(x > 0, dy * inverse[:, None] * inverse_scale[None, :], 0.0)
        store_tile(dx, dq, G * D, tokens, row_ok, columns, d_ok)


@triton.jit
def query_state_kernel(
    grad: tl.tensor,
    q: tl.tensor,
    inverse_scales: tl.tensor,
    inverses: tl.tensor,
    head_scalars: tl.tensor,
    partial: tl.tensor,
    grad_batch_stride: tl.tensor,
    grad_stride: tl.tensor,
    q_batch_stride: tl.tensor,
    q_stride: tl.tensor,
    N: tl.tensor,
    heads: tl.tensor,
    chunks: tl.tensor,
    chunk_tokens: tl.tensor,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    FOLD: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Gradients dKV and dm of one head from a chunk of tokens, laid out as the forward's sums."""
    head = tl.program_id(0) % G
    chunk = tl.program_id(0) // G % chunks
    image = (tl.program_id(0) // G // chunks).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    d_ok = None if D == BLOCK_D else d < D
    columns = head * D + d
    inverse_scale = load_vector(inverse_scales, columns, d_ok)
    grad += image * grad_batch_stride
    q += image * q_batch_stride
    inverses += image * N
    head_scalars += (image * G + head) * N
    plane = tl.cast(heads, tl.int64) * N
    state = tl.zeros([BLOCK_D, BLOCK_D], tl.float32)
    total = tl.zeros([FOLD, BLOCK_D], tl.float32)
    start = chunk * chunk_tokens
    for first in range(start, tl.minimum(start + chunk_tokens, N), BLOCK_T):
        tokens = first + tl.arange(0, BLOCK_T)
        row_ok = tokens < N
        inverse = tl.load(inverses + tokens, mask=row_ok, other=0.0)
        inverse_normaliser = tl.load(head_scalars + tokens, mask=row_ok, other=0.0)
        weight = tl.load(head_scalars + plane + tokens, mask=row_ok, other=0.0)
        x = load_tile(q, q_stride, tokens, row_ok, columns, d_ok).to(tl.float32)
        p = power(positive_map(x, inverse_scale) * inverse[:, None], FACTOR)
        g = load_tile(grad, grad_stride, tokens, row_ok, columns, d_ok)
        total -= fold_rows(p * weight[:, None], BLOCK_T, BLOCK_D, FOLD)
        # The select is for the compiler, as in the forward pass.
        p = tl.where(row_ok[:, None], p * inverse_normaliser[:, None], 0.0)
        state = add_outer(state, p, g, PRECISION)
    partial += ((image * G + head) * chunks + chunk) * (D + 1) * D
    tl.store(partial + d[:, None] * (D + 1) + d[None, :], state, mask=(d < D)[:, None] & (d < D)[None, :])
    tl.store(partial + d * (D + 1) + D, tl.sum(total, 0), mask=d < D)
