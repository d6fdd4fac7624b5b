# mypy: disable-error-code="untyped-decorator, import-untyped, import-not-found"
"""What the attention kernels share: tiles of tokens by channels, their focused map and its norms, in float32.

A row y = (ReLU(x) + 1e-6) / softplus(scale) is divided by its largest entry, so that no power overflows. With
p = (y / largest)^f the focused map is length * p, where length = largest * |y / largest| / |p|, norms over all C.
"""

from __future__ import annotations

import triton
import triton.language as tl

EPS = tl.constexpr(1e-6)
FLOAT16_MAX = tl.constexpr(65504.0)

# How the encoding is added: not at all (queries), row by row, or stretched bilinearly from a grid of its own.
NO_ENCODING = tl.constexpr(0)
SAME_GRID = tl.constexpr(1)
STRETCHED = tl.constexpr(2)


@triton.jit
def load_tile(
    source: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    row_ok: tl.tensor,
    columns: tl.tensor,
    column_ok: tl.tensor,
) -> tl.tensor:
    """A tile, zero outside. Rows are counted in 64 bits: N * C may pass 2^31."""
    pointers = source + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(pointers, mask=row_ok[:, None] & column_ok[None, :], other=0.0)


@triton.jit
def store_tile(
    value: tl.tensor,
    target: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    row_ok: tl.tensor,
    columns: tl.tensor,
    column_ok: tl.tensor,
) -> None:
    """Store in the target's type; float16 saturates."""
    dtype = target.dtype.element_ty
    if dtype == tl.float16:
        value = tl.minimum(value, FLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
        value = tl.maximum(value, -FLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
    pointers = target + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(pointers, value.to(dtype), mask=row_ok[:, None] & column_ok[None, :])


@triton.jit
def load_encoded(
    x: tl.tensor,
    stride: tl.tensor,
    table: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    table_height: tl.tensor,
    table_width: tl.tensor,
    tokens: tl.tensor,
    row_ok: tl.tensor,
    columns: tl.tensor,
    column_ok: tl.tensor,
    C: tl.constexpr,
    ENCODING: tl.constexpr,
) -> tl.tensor:
    """A tile in float32 with its encoding: of the table's own row, or of the four rows around where grids differ."""
    tile = load_tile(x, stride, tokens, row_ok, columns, column_ok).to(tl.float32)
    if ENCODING == SAME_GRID:
        tile += load_tile(table, C, tokens, row_ok, columns, column_ok)
    elif ENCODING == STRETCHED:
        row = tl.maximum((tokens // width + 0.5) * (table_height / height) - 0.5, 0.0)
        column = tl.maximum((tokens % width + 0.5) * (table_width / width) - 0.5, 0.0)
        top = row.to(tl.int32)
        left = column.to(tl.int32)
        upper = top * table_width
        lower = tl.minimum(top + 1, table_height - 1) * table_width
        right = tl.minimum(left + 1, table_width - 1)
        across = column - left
        down = row - top
        corner = load_tile(table, C, upper + left, row_ok, columns, column_ok).to(tl.float32)
        tile += corner * ((1 - down) * (1 - across))[:, None]
        corner = load_tile(table, C, upper + right, row_ok, columns, column_ok).to(tl.float32)
        tile += corner * ((1 - down) * across)[:, None]
        corner = load_tile(table, C, lower + left, row_ok, columns, column_ok).to(tl.float32)
        tile += corner * (down * (1 - across))[:, None]
        corner = load_tile(table, C, lower + right, row_ok, columns, column_ok).to(tl.float32)
        tile += corner * (down * across)[:, None]
    return tile


@triton.jit
def fold_rows(x: tl.tensor, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, FOLD: tl.constexpr) -> tl.tensor:
    """Sums of every FOLD-th row: with FOLD rows held by different threads, a running sum in few registers."""
    return tl.sum(tl.reshape(x, (BLOCK_T // FOLD, FOLD, BLOCK_D)), 0)


@triton.jit
def split(x: tl.tensor, DTYPE: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Two numbers of a narrow type whose sum is ``x`` to twice that type's digits."""
    high = x.to(DTYPE)
    return high, (x - high.to(tl.float32)).to(DTYPE)


@triton.jit
def times_state(tile: tl.tensor, high: tl.tensor, low: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """A tile as it was loaded times the state of a head, which is ``high + low`` where products are split."""
    if PRECISION == "split":
        return tl.dot(tile, low, tl.dot(tile, high))
    else:
        return tl.dot(tile.to(tl.float32), high, input_precision=PRECISION)


@triton.jit
def map_times_state(p: tl.tensor, high: tl.tensor, low: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """The same for a tile that was computed in float32."""
    if PRECISION == "split":
        p_high, p_low = split(p, high.dtype)
        return tl.dot(p_low, high, tl.dot(p_high, low, tl.dot(p_high, high)))
    else:
        return tl.dot(p, high, input_precision=PRECISION)


@triton.jit
def add_outer(total: tl.tensor, p: tl.tensor, tile: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """Total + p^T tile, for p in float32 and a tile as it was loaded."""
    if PRECISION == "split":
        p_high, p_low = split(p, tile.dtype)
        return tl.dot(tl.trans(p_low), tile, tl.dot(tl.trans(p_high), tile, total))
    else:
        return tl.dot(tl.trans(p), tile.to(tl.float32), total, input_precision=PRECISION)


@triton.jit
def load_state(
    state: tl.tensor,
    head: tl.tensor,
    heads: tl.tensor,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The D x D numbers of a head: ``high`` and ``low`` where products are split, else the same twice."""
    d = tl.arange(0, BLOCK_D)
    d_ok = d < D
    high = load_tile(state + head * (D * D), D, d, d_ok, d, d_ok)
    low = high
    if PRECISION == "split":
        low = load_tile(state + (heads + head) * (D * D), D, d, d_ok, d, d_ok)
    return high, low


@triton.jit
def inverse_softplus(softplus: tl.tensor, columns: tl.tensor, column_ok: tl.tensor) -> tl.tensor:
    """1 / softplus(scale) of some channels, from the softplus."""
    return 1.0 / tl.load(softplus + columns, mask=column_ok, other=1.0)


@triton.jit
def positive_map(x: tl.tensor, inverse_scale: tl.tensor, column_ok: tl.tensor) -> tl.tensor:
    """The row y; zero in columns that are none."""
    y = (tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + EPS) * inverse_scale[None, :]
    return tl.where(column_ok[None, :], y, 0.0)


@triton.jit
def power(y: tl.tensor, FACTOR: tl.constexpr) -> tl.tensor:
    """y^f for y >= 0."""
    if FACTOR == 3:
        return y * y * y
    elif FACTOR == 2:
        return y * y
    elif FACTOR == 1:
        return y
    else:
        return tl.exp2(tl.log2(y) * FACTOR)


@triton.jit
def row_norms(
    x: tl.tensor,
    stride: tl.tensor,
    softplus: tl.tensor,
    table: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    table_height: tl.tensor,
    table_width: tl.tensor,
    tokens: tl.tensor,
    row_ok: tl.tensor,
    BLOCK_T: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    FACTOR: tl.constexpr,
    ENCODING: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Per token, over all channels: 1 / largest, |y / largest|^2 and |p|^2; by blocks of channels, in one pass."""
    largest = tl.zeros([BLOCK_T], tl.float32)
    squares = tl.zeros([BLOCK_T], tl.float32)
    powers = tl.zeros([BLOCK_T], tl.float32)
    for first in range(0, C, BLOCK_C):
        columns = first + tl.arange(0, BLOCK_C)
        column_ok = columns < C
        tile = load_encoded(
            x, stride, table, height, width, table_height, table_width, tokens, row_ok, columns, column_ok, C, ENCODING
        )
        y = positive_map(tile, inverse_softplus(softplus, columns, column_ok), column_ok)
        grown = tl.maximum(largest, tl.max(y, 1), propagate_nan=tl.PropagateNan.ALL)
        shrink = largest / grown
        y *= (1.0 / grown)[:, None]
        p = power(y, FACTOR)
        squares = squares * shrink * shrink + tl.sum(y * y, 1)
        shrink = power(shrink, FACTOR)
        powers = powers * shrink * shrink + tl.sum(p * p, 1)
        largest = grown
    return 1.0 / largest, squares, powers


@triton.jit
def focus_gradient(
    y: tl.tensor,
    p: tl.tensor,
    dp: tl.tensor,
    along_y: tl.tensor,
    along_p: tl.tensor,
    FACTOR: tl.constexpr,
) -> tl.tensor:
    """The gradient of a row divided by its largest entry, from that of the focused map.

    ``dp`` is length * dphi; ``along_y`` and ``along_p`` are dphi . phi over the squared norms of y and of p. The
    gradient of the undivided row is this over the largest entry, which itself carries none.
    """
    slope = dp - along_p[:, None] * p
    if FACTOR == 3:
        slope *= 3.0 * y * y
    elif FACTOR == 2:
        slope *= 2.0 * y
    elif FACTOR != 1:
        slope *= FACTOR * tl.exp2(tl.log2(y) * (FACTOR - 1))
    return along_y[:, None] * y + slope
