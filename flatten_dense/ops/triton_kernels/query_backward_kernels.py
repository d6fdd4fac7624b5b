# mypy: disable-error-code="untyped-decorator, import-untyped, import-not-found"
"""Backward on the side of the queries: per-token scalars over all heads, then head by head the gradients.

With num = p KV, den = p . m + floor (floor = 1e-6 / length) and out = num / den, the gradient g gives

    dKV += (p / den)^T g,  dm -= p w,  length dphi = (g KV^T) / den - w m  with  w = (g . out) / den.

The focused map being homogeneous, t = dphi . phi is (g . out) floor / den summed over heads, and
y dy = t (y / |y|)^2 + f (phi dphi - t (p / |p|)^2).
"""

from __future__ import annotations

import triton
import triton.language as tl

from flatten_dense.ops.triton_kernels.device_functions import (
    EPS,
    NO_ENCODING,
    add_outer,
    focus_gradient,
    inverse_softplus,
    load_state,
    load_tile,
    positive_map,
    power,
    row_norms,
    store_tile,
    times_state,
)


@triton.jit
def query_scalars_kernel(
    grad: tl.tensor,
    q: tl.tensor,
    softplus: tl.tensor,
    state: tl.tensor,
    mean: tl.tensor,
    scalars: tl.tensor,
    head_scalars: tl.tensor,
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
    """1 / largest, t / |y|^2 and t / |p|^2, ``[3, B, N]``; 1 / den and w, ``[2, G, B, N]``."""
    blocks = tl.cdiv(N, BLOCK_T)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    tokens = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    row_ok = tokens < N
    grad += image * grad_batch_stride
    q += image * q_batch_stride
    scalars += image * N
    head_scalars += image * N
    plane = tl.cast(heads // G, tl.int64) * N
    inverse, squares, powers = row_norms(
        q, q_stride, softplus, q, 1, 1, 1, 1, tokens, row_ok, BLOCK_T, G * D, BLOCK_C, FACTOR, NO_ENCODING
    )
    floor = EPS * inverse * tl.sqrt(powers / squares)
    projection = tl.zeros([BLOCK_T], tl.float32)
    d = tl.arange(0, BLOCK_D)
    d_ok = d < D
    for head in range(0, G):
        columns = head * D + d
        x = load_tile(q, q_stride, tokens, row_ok, columns, d_ok).to(tl.float32)
        y = positive_map(x, inverse_softplus(softplus, columns, d_ok), d_ok)
        p = power(y * inverse[:, None], FACTOR)
        g = load_tile(grad, grad_stride, tokens, row_ok, columns, d_ok)
        high, low = load_state(state, image * G + head, heads, D, BLOCK_D, PRECISION)
        mean_key = tl.load(mean + (image * G + head) * D + d, mask=d_ok, other=0.0)
        inverse_normaliser = 1.0 / (tl.sum(p * mean_key[None, :], 1) + floor)
        along = tl.sum(p * times_state(g, tl.trans(high), tl.trans(low), PRECISION), 1) * inverse_normaliser
        projection += along * floor * inverse_normaliser
        tl.store(head_scalars + tokens, inverse_normaliser, mask=row_ok)
        tl.store(head_scalars + G * plane + tokens, along * inverse_normaliser, mask=row_ok)
        head_scalars += plane
    tl.store(scalars + tokens, inverse, mask=row_ok)
    tl.store(scalars + plane + tokens, projection / squares, mask=row_ok)
    tl.store(scalars + 2 * plane + tokens, projection / powers, mask=row_ok)


@triton.jit
def query_gradient_kernel(
    grad: tl.tensor,
    q: tl.tensor,
    softplus: tl.tensor,
    state: tl.tensor,
    mean: tl.tensor,
    scalars: tl.tensor,
    head_scalars: tl.tensor,
    dq: tl.tensor,
    partial: tl.tensor,
    scale_partial: tl.tensor,
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
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """One head over a chunk of tokens: dq, the chunk's part of dKV and dm as the forward's, and its sum of y dy."""
    head = tl.program_id(0) % G
    chunk = tl.program_id(0) // G % chunks
    image = (tl.program_id(0) // G // chunks).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    d_ok = d < D
    columns = head * D + d
    inverse_scale = inverse_softplus(softplus, columns, d_ok)
    grad += image * grad_batch_stride
    q += image * q_batch_stride
    dq += image * N * (G * D)
    scalars += image * N
    plane = tl.cast(heads // G, tl.int64) * N
    head_scalars += head * plane + image * N
    high, low = load_state(state, image * G + head, heads, D, BLOCK_D, PRECISION)
    mean_key = tl.load(mean + (image * G + head) * D + d, mask=d_ok, other=0.0)
    state_gradient = tl.zeros([BLOCK_D, BLOCK_D], tl.float32)
    mean_gradient = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    scale_gradient = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    start = chunk * chunk_tokens
    for first in range(start, tl.minimum(start + chunk_tokens, N), BLOCK_T):
        tokens = first + tl.arange(0, BLOCK_T)
        row_ok = tokens < N
        inverse = tl.load(scalars + tokens, mask=row_ok, other=0.0)
        along_y = tl.load(scalars + plane + tokens, mask=row_ok, other=0.0)
        along_p = tl.load(scalars + 2 * plane + tokens, mask=row_ok, other=0.0)
        inverse_normaliser = tl.load(head_scalars + tokens, mask=row_ok, other=0.0)
        weight = tl.load(head_scalars + G * plane + tokens, mask=row_ok, other=0.0)
        x = load_tile(q, q_stride, tokens, row_ok, columns, d_ok).to(tl.float32)
        y = positive_map(x, inverse_scale, d_ok) * inverse[:, None]
        p = power(y, FACTOR)
        g = load_tile(grad, grad_stride, tokens, row_ok, columns, d_ok)
        mean_gradient -= p * weight[:, None]
        state_gradient = add_outer(state_gradient, p * inverse_normaliser[:, None], g, PRECISION)
        dp = times_state(g, tl.trans(high), tl.trans(low), PRECISION) * inverse_normaliser[:, None]
        dp -= weight[:, None] * mean_key[None, :]
        dy = focus_gradient(y, p, dp, along_y, along_p, FACTOR)
        scale_gradient += y * dy
        dx = tl.where(x > 0, dy * inverse[:, None] * inverse_scale[None, :], 0.0)
        store_tile(dx, dq, G * D, tokens, row_ok, columns, d_ok)
    partial += ((image * G + head) * chunks + chunk) * (D + 1) * D
    tl.store(partial + d[:, None] * (D + 1) + d[None, :], state_gradient, mask=d_ok[:, None] & d_ok[None, :])
    tl.store(partial + d * (D + 1) + D, tl.sum(mean_gradient, 0), mask=d_ok)
    tl.store(scale_partial + (image * chunks + chunk) * (G * D) + columns, tl.sum(scale_gradient, 0), mask=d_ok)
