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
SMALLEST = tl.constexpr(1e-30)  # below any entry of a row

# How the encoding is added: not at all (queries), row by row, or stretched bilinearly from a grid of its own.
NO_ENCODING = tl.constexpr(0)
SAME_GRID = tl.constexpr(1)
STRETCHED = tl.constexpr(2)


@triton.jit
def load_tile(
    source: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    row_ok: tl.tensor | None,
    columns: tl.tensor,
    column_ok: tl.tensor | None,
) -> tl.tensor:
    """A tile, zero outside; without a mask where nothing is outside. Rows count in 64 bits: N * C may pass 2^31."""
    pointers = source + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if row_ok is None:
        if column_ok is None:
            return tl.load(pointers)
        else:
            return tl.load(pointers, mask=column_ok[None, :], other=0.0)
    elif column_ok is None:
        return tl.load(pointers, mask=row_ok[:, None], other=0.0)
    else:
        return tl.load(pointers, mask=row_ok[:, None] & column_ok[None, :], other=0.0)


@triton.jit
def store_tile(
    value: tl.tensor,
    target: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    row_ok: tl.tensor,
    columns: tl.tensor,
    column_ok: tl.tensor | None,
) -> None:
    """Store in the target's type; float16 saturates."""
    dtype = target.dtype.element_ty
    if dtype == tl.float16:
        value = tl.minimum(value, FLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
        value = tl.maximum(value, -FLOAT16_MAX, propagate_nan=tl.PropagateNan.ALL)
    pointers = target + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if column_ok is None:
        tl.store(pointers, value.to(dtype), mask=row_ok[:, None])
    else:
        tl.store(pointers, value.to(dtype), mask=row_ok[:, None] & column_ok[None, :])


@triton.jit
def table_corners(
    tokens: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    table_height: tl.tensor,
    table_width: tl.tensor,
    ENCODING: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Of each token of a grid the four rows of the table around it, and how far it is from the upper and left ones."""
    if ENCODING == STRETCHED:
        # Division in float32, corrected: several times cheaper than that of integers.
        y = ((tokens + 0.5) * (1.0 / width)).to(tl.int32)
        y = tl.where(tokens < y * width, y - 1, y)
        y = tl.where(tokens >= (y + 1) * width, y + 1, y)
        row = tl.maximum((y + 0.5) * (table_height / height) - 0.5, 0.0)
        column = tl.maximum((tokens - y * width + 0.5) * (table_width / width) - 0.5, 0.0)
        top = tl.minimum(row.to(tl.int32), table_height - 1)  # tokens after the last row, too, find one
        left = column.to(tl.int32)
        upper = top * table_width
        lower = tl.minimum(top + 1, table_height - 1) * table_width
        right = tl.minimum(left + 1, table_width - 1)
        return upper + left, upper + right, lower + left, lower + right, row - top, column - left
    else:
        return tokens, tokens, tokens, tokens, tokens, tokens


@triton.jit
def load_encoded(
    x: tl.tensor,
    stride: tl.tensor,
    table: tl.tensor,
    upper_left: tl.tensor,
    upper_right: tl.tensor,
    lower_left: tl.tensor,
    lower_right: tl.tensor,
    down: tl.tensor,
    across: tl.tensor,
    tokens: tl.tensor,
    row_ok: tl.tensor,
    columns: tl.tensor,
    column_ok: tl.tensor | None,
    C: tl.constexpr,
    ENCODING: tl.constexpr,
) -> tl.tensor:
    """A tile in float32 with its encoding: of the table's own row, or of the four rows around where grids differ."""
    tile = load_tile(x, stride, tokens, row_ok, columns, column_ok).to(tl.float32)
    if ENCODING == SAME_GRID:
        tile += load_tile(table, C, tokens, row_ok, columns, column_ok).to(tl.float32)
    elif ENCODING == STRETCHED:
        corner = load_tile(table, C, upper_left, None, columns, column_ok).to(tl.float32)
        tile += corner * ((1 - down) * (1 - across))[:, None]
        corner = load_tile(table, C, upper_right, None, columns, column_ok).to(tl.float32)
        tile += corner * ((1 - down) * across)[:, None]
        corner = load_tile(table, C, lower_left, None, columns, column_ok).to(tl.float32)
        tile += corner * (down * (1 - across))[:, None]
        corner = load_tile(table, C, lower_right, None, columns, column_ok).to(tl.float32)
        tile += corner * (down * across)[:, None]
    return tile


@triton.jit
def fold_rows(x: tl.tensor, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, FOLD: tl.constexpr) -> tl.tensor:
    """Sums of every FOLD-th row: with FOLD rows held by different threads, a running sum in few registers."""
    return tl.sum(tl.reshape(x, (BLOCK_T // FOLD, FOLD, BLOCK_D)), 0)


@triton.jit
def split(x: tl.tensor, DTYPE: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """Two bf16 numbers whose sum is ``x`` to 16 digits: the upper half of its bits, and what they leave."""
    high = (x.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)
    return high.to(DTYPE), (x - high).to(DTYPE)


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
    if D == BLOCK_D:
        high = load_tile(state + head * (D * D), D, d, None, d, None)
    else:
        high = load_tile(state + head * (D * D), D, d, d < D, d, d < D)
    low = high
    if PRECISION == "split":
        state += (heads + head) * (D * D)
        low = load_tile(state, D, d, None, d, None) if D == BLOCK_D else load_tile(state, D, d, d < D, d, d < D)
    return high, low


@triton.jit
def load_vector(source: tl.tensor, columns: tl.tensor, column_ok: tl.tensor | None) -> tl.tensor:
    """Some numbers of a row, zero outside."""
    if column_ok is None:
        return tl.load(source + columns)
    else:
        return tl.load(source + columns, mask=column_ok, other=0.0)


@triton.jit
def positive_map(x: tl.tensor, inverse_scale: tl.tensor) -> tl.tensor:
    """The row y; zero in columns that are none, where the inverse scale is."""
    return (tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + EPS) * inverse_scale[None, :]


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
    inverse_scales: tl.tensor,
    table: tl.tensor,
    upper_left: tl.tensor,
    upper_right: tl.tensor,
    lower_left: tl.tensor,
    lower_right: tl.tensor,
    down: tl.tensor,
    across: tl.tensor,
    tokens: tl.tensor,
    row_ok: tl.tensor,
    BLOCK_T: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    FACTOR: tl.constexpr,
    ENCODING: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Per token, over all channels: 1 / largest, |y / largest|^2 and |p|^2; by blocks of channels, in one pass.

    Groups of channels that one thread holds have sums of their own, relative to their own largest entry so far; they
    meet at the end.
    """
    GROUP: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth  # what one load brings
    largest = tl.zeros([BLOCK_T, BLOCK_C // GROUP], tl.float32)
    squares = tl.zeros([BLOCK_T, BLOCK_C // GROUP], tl.float32)
    powers = tl.zeros([BLOCK_T, BLOCK_C // GROUP], tl.float32)
    for first in range(0, C, BLOCK_C):
        columns = first + tl.arange(0, BLOCK_C)
        column_ok = None if C % BLOCK_C == 0 else columns < C
        tile = load_encoded(
            x,
            stride,
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
            column_ok,
            C,
            ENCODING,
        )
        y = positive_map(tile, load_vector(inverse_scales, columns, column_ok))
        y = tl.reshape(y, (BLOCK_T, BLOCK_C // GROUP, GROUP))
        grown = tl.maximum(largest, tl.max(y, 2), propagate_nan=tl.PropagateNan.ALL)
        if C % BLOCK_C != 0:
            grown = tl.maximum(grown, SMALLEST)  # a group may lie outside
        inverse = 1.0 / grown
        shrink = largest * inverse
        y *= inverse[:, :, None]
        p = power(y, FACTOR)
        squares = squares * shrink * shrink + tl.sum(y * y, 2)
        shrink = power(shrink, FACTOR)
        powers = powers * shrink * shrink + tl.sum(p * p, 2)
        largest = grown
    row_largest = tl.max(largest, 1)
    shrink = largest / row_largest[:, None]
    squares = tl.sum(squares * shrink * shrink, 1)
    shrink = power(shrink, FACTOR)
    return 1.0 / row_largest, squares, tl.sum(powers * shrink * shrink, 1)


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
