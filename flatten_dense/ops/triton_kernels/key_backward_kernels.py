# mypy: disable-error-code="untyped-decorator, import-untyped, import-not-found"
"""Backward on the side of the keys: dv = phi(k) dKV and dk from dphi = v dKV^T + dm.

``state`` and ``mean`` hold dKV and dm, already divided by the number of keys. A program has all heads of a tile, since
dphi . phi is over all channels; its second pass over the heads finds the tile in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flatten_dense.ops.triton_kernels.device_functions import (
    focus_gradient,
    load_encoded,
    load_state,
    load_tile,
    load_vector,
    map_times_state,
    positive_map,
    power,
    row_norms,
    store_tile,
    table_corners,
    times_state,
)


@triton.jit
def key_gradient_kernel(
    k: tl.tensor,
    v: tl.tensor,
    mask: tl.tensor,
    inverse_scales: tl.tensor,
    table: tl.tensor,
    state: tl.tensor,
    mean: tl.tensor,
    dk: tl.tensor,
    dv: tl.tensor,
    scale_partial: tl.tensor,
    k_batch_stride: tl.tensor,
    k_stride: tl.tensor,
    v_batch_stride: tl.tensor,
    v_stride: tl.tensor,
    table_batch_stride: tl.tensor,
    M: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    table_height: tl.tensor,
    table_width: tl.tensor,
    heads: tl.tensor,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    FACTOR: tl.constexpr,
    ENCODING: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Gradients dk and dv, contiguous, zero for ignored keys; sums of y dy over a tile, ``[programs, C]``."""
    blocks = tl.cdiv(M, BLOCK_T)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    tokens = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = tokens < M
    row_ok = inside
    if MASKED:
        row_ok &= tl.load(mask + image * M + tokens, mask=inside, other=1) == 0
    k += image * k_batch_stride
    v += image * v_batch_stride
    table += image * table_batch_stride
    dk += image * M * (G * D)
    dv += image * M * (G * D)
    scale_partial += tl.program_id(0).to(tl.int64) * (G * D)
    upper_left, upper_right, lower_left, lower_right, down, across = table_corners(
        tokens, height, width, table_height, table_width, ENCODING
    )
    inverse, squares, powers = row_norms(
        k,
        k_stride,
        inverse_scales,
        table,
        upper_left,
        upper_right,
        lower_left,
        lower_right,
        down,
        across,
        tokens,
        row_ok,
        BLOCK_T,
        G * D,
        BLOCK_C,
        FACTOR,
        ENCODING,
    )
    length = tl.where(row_ok, tl.sqrt(squares / powers) / inverse, 0.0)
    d = tl.arange(0, BLOCK_D)
    d_ok = None if D == BLOCK_D else d < D
    projection = tl.zeros([BLOCK_T], tl.float32)
    for head in range(0, G):
        columns = head * D + d
        x = load_encoded(
            k,
            k_stride,
            table,
            upper_left,
            upper_right,
            lower_left,
            lower_right,
            down,
            across,
            tokens,
            row_ok,
            columns,
            d_ok,
            G * D,
            ENCODING,
        )
        values = load_tile(v, v_stride, tokens, row_ok, columns, d_ok)
        y = positive_map(x, load_vector(inverse_scales, columns, d_ok)) * inverse[:, None]
        high, low = load_state(state, image * G + head, heads, D, BLOCK_D, PRECISION)
        mean_key = load_vector(mean + (image * G + head) * D, d, d_ok)
        dphi = times_state(values, tl.trans(high), tl.trans(low), PRECISION) + mean_key[None, :]
        projection += tl.sum(power(y, FACTOR) * dphi, 1)
    projection *= length
    along_y = projection / squares
    along_p = projection / powers
    for head in range(0, G):
        columns = head * D + d
        x = load_encoded(
            k,
            k_stride,
            table,
            upper_left,
            upper_right,
            lower_left,
            lower_right,
            down,
            across,
            tokens,
            row_ok,
            columns,
            d_ok,
            G * D,
            ENCODING,
        )
        values = load_tile(v, v_stride, tokens, row_ok, columns, d_ok)
        inverse_scale = load_vector(inverse_scales, columns, d_ok)
        y = positive_map(x, inverse_scale) * inverse[:, None]
        p = power(y, FACTOR)
        high, low = load_state(state, image * G + head, heads, D, BLOCK_D, PRECISION)
        mean_key = load_vector(mean + (image * G + head) * D, d, d_ok)
        dvalues = map_times_state(p, high, low, PRECISION) * length[:, None]
        store_tile(dvalues, dv, G * D, tokens, inside, columns, d_ok)
        dphi = times_state(values, tl.trans(high), tl.trans(low), PRECISION) + mean_key[None, :]
        dy = focus_gradient(y, p, dphi * length[:, None], along_y, along_p, FACTOR)
        tl.store(scale_partial + columns, tl.sum(y * dy, 0), mask=d < D)
        dx = tl.where((x > 0) & row_ok[:, None], dy * inverse[:, None] * inverse_scale[None, :], 0.0)
        store_tile(dx, dk, G * D, tokens, inside, columns, d_ok)
