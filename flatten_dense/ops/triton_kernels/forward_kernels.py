# mypy: disable-error-code="untyped-decorator, import-untyped, import-not-found"
"""Forward: lengths of the keys, state phi(K)^T V of each head by chunks of tokens, sum of the chunks, queries.

The state of all heads is too large for one program, and norms run over all heads: so the keys' lengths take a pass of
their own over k. Queries find theirs in the cache: the same program reads its tile a second time, head by head.
"""

from __future__ import annotations

import triton
import triton.language as tl

from flatten_dense.ops.triton_kernels.device_functions import (
    EPS,
    NO_ENCODING,
    add_outer,
    fold_rows,
    load_encoded,
    load_state,
    load_tile,
    load_vector,
    map_times_state,
    positive_map,
    power,
    row_norms,
    split,
    store_tile,
    table_corners,
)


@triton.jit
def key_lengths_kernel(
    k: tl.tensor,
    mask: tl.tensor,
    inverse_scales: tl.tensor,
    table: tl.tensor,
    inverses: tl.tensor,
    lengths: tl.tensor,
    k_batch_stride: tl.tensor,
    k_stride: tl.tensor,
    table_batch_stride: tl.tensor,
    M: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    table_height: tl.tensor,
    table_width: tl.tensor,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
    FACTOR: tl.constexpr,
    ENCODING: tl.constexpr,
    MASKED: tl.constexpr,
) -> None:
    """Per key 1 / largest and length, ``[B, M]``; an ignored key has length 0."""
    blocks = tl.cdiv(M, BLOCK_T)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    tokens = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    row_ok = tokens < M
    if MASKED:
        row_ok &= tl.load(mask + image * M + tokens, mask=row_ok, other=1) == 0
    upper_left, upper_right, lower_left, lower_right, down, across = table_corners(
        tokens, height, width, table_height, table_width, ENCODING
    )
    inverse, squares, powers = row_norms(
        k + image * k_batch_stride,
        k_stride,
        inverse_scales,
        table + image * table_batch_stride,
        upper_left,
        upper_right,
        lower_left,
        lower_right,
        down,
        across,
        tokens,
        row_ok,
        BLOCK_T,
        C,
        BLOCK_C,
        FACTOR,
        ENCODING,
    )
    length = tl.where(row_ok, tl.sqrt(squares / powers) / inverse, 0.0)
    tl.store(inverses + image * M + tokens, inverse, mask=tokens < M)
    tl.store(lengths + image * M + tokens, length, mask=tokens < M)


@triton.jit
def key_state_kernel(
    k: tl.tensor,
    v: tl.tensor,
    inverse_scales: tl.tensor,
    table: tl.tensor,
    inverses: tl.tensor,
    lengths: tl.tensor,
    partial: tl.tensor,
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
    chunks: tl.tensor,
    chunk_tokens: tl.tensor,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
    FOLD: tl.constexpr,
    FACTOR: tl.constexpr,
    ENCODING: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Sums of phi(k)^T v and of phi(k), its last column, over a chunk of tokens: ``[B, G, chunks, D, D + 1]``."""
    # Heads are the fastest index: they share the lines of k and v.
    head = tl.program_id(0) % G
    chunk = tl.program_id(0) // G % chunks
    image = (tl.program_id(0) // G // chunks).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    d_ok = None if D == BLOCK_D else d < D
    columns = head * D + d
    inverse_scale = load_vector(inverse_scales, columns, d_ok)
    k += image * k_batch_stride
    v += image * v_batch_stride
    table += image * table_batch_stride
    inverses += image * M
    lengths += image * M
    state = tl.zeros([BLOCK_D, BLOCK_D], tl.float32)
    total = tl.zeros([FOLD, BLOCK_D], tl.float32)
    start = chunk * chunk_tokens
    for first in range(start, tl.minimum(start + chunk_tokens, M), BLOCK_T):
        tokens = first + tl.arange(0, BLOCK_T)
        length = tl.load(lengths + tokens, mask=tokens < M, other=0.0)
        inverse = tl.load(inverses + tokens, mask=tokens < M, other=0.0)
        row_ok = length != 0  # also keeps NaN, which must show
        upper_left, upper_right, lower_left, lower_right, down, across = table_corners(
            tokens, height, width, table_height, table_width, ENCODING
        )
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
        p = power(positive_map(x, inverse_scale) * inverse[:, None], FACTOR)
        values = load_tile(v, v_stride, tokens, row_ok, columns, d_ok)
        total += fold_rows(p * length[:, None], BLOCK_T, BLOCK_D, FOLD)
        # Ignored keys have length 0 already. Without a select the compiler finds it cheaper to compute p in several
        # threads than to move it between them, and is wrong: twice the instructions on Hopper.
        phi = tl.where((tokens < M)[:, None], p * length[:, None], 0.0)
        state = add_outer(state, phi, values, PRECISION)
    partial += ((image * G + head) * chunks + chunk) * (D + 1) * D
    tl.store(partial + d[:, None] * (D + 1) + d[None, :], state, mask=(d < D)[:, None] & (d < D)[None, :])
    tl.store(partial + d * (D + 1) + D, tl.sum(total, 0), mask=d < D)


@triton.jit
def sum_chunks_kernel(
    partial: tl.tensor,
    counts: tl.tensor,
    context: tl.tensor,
    state: tl.tensor,
    mean: tl.tensor,
    count: tl.tensor,
    chunks: tl.tensor,
    heads: tl.tensor,
    G: tl.constexpr,
    D: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """A span of a head's sums over its count of keys: the context, and apart the two things that kernels read of it.

    These are the state, ``[B, G, D, D]`` or twice that where it is split, and the mean key ``[B, G, D]``.
    """
    size = (D + 1) * D
    spans = tl.cdiv(size, BLOCK_S)
    head = (tl.program_id(0) // spans).to(tl.int64)
    index = tl.program_id(0) % spans * BLOCK_S + tl.arange(0, BLOCK_S)
    index_ok = index < size
    partial += head * chunks * size
    total = tl.zeros([BLOCK_CHUNKS, BLOCK_S], tl.float32)
    for first in range(0, chunks, BLOCK_CHUNKS):
        parts = first + tl.arange(0, BLOCK_CHUNKS)
        total += load_tile(partial, size, parts, parts < chunks, index, index_ok)
    if MASKED:
        count = tl.maximum(tl.load(counts + head // G).to(tl.int32), 1)
    value = tl.sum(total, 0) / count
    tl.store(context + head * size + index, value, mask=index_ok)
    row = index // (D + 1)
    column = index % (D + 1)
    tl.store(mean + head * D + row, value, mask=index_ok & (column == D))
    place = head * (D * D) + row * D + column
    index_ok &= column < D
    if PRECISION == "split":
        high, low = split(value, state.dtype.element_ty)
        tl.store(state + place, high, mask=index_ok)
        tl.store(state + tl.cast(heads, tl.int64) * (D * D) + place, low, mask=index_ok)
    else:
        tl.store(state + place, value, mask=index_ok)


@triton.jit
def query_kernel(
    q: tl.tensor,
    inverse_scales: tl.tensor,
    state: tl.tensor,
    mean: tl.tensor,
    out: tl.tensor,
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
    """phi(q) KV / (phi(q) . m + 1e-6), with the query's length moved into the 1e-6; ``out`` is contiguous."""
    blocks = tl.cdiv(N, BLOCK_T)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    tokens = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    row_ok = tokens < N
    q += image * q_batch_stride
    out += image * N * (G * D)
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
    floor = EPS * inverse * tl.sqrt(powers / squares)
    d = tl.arange(0, BLOCK_D)
    d_ok = None if D == BLOCK_D else d < D
    for head in range(0, G):
        columns = head * D + d
        x = load_tile(q, q_stride, tokens, row_ok, columns, d_ok).to(tl.float32)
        y = positive_map(x, load_vector(inverse_scales, columns, d_ok))
        p = power(y * inverse[:, None], FACTOR)
        high, low = load_state(state, image * G + head, heads, D, BLOCK_D, PRECISION)
        mean_key = load_vector(mean + (image * G + head) * D, d, d_ok)
        normaliser = tl.sum(p * mean_key[None, :], 1) + floor
        if BLOCK_D > 64:
            p = tl.where(row_ok[:, None], p, 0.0)  # for the compiler, as above
        result = map_times_state(p, high, low, PRECISION) * (1.0 / normaliser)[:, None]
        store_tile(result, out, G * D, tokens, row_ok, columns, d_ok)
