"""The state of all heads: summed over chunks of tokens, and in the form that kernels read."""

from __future__ import annotations

from torch import Tensor

from flatten_dense.ops.triton_kernels.forward_kernels import sum_chunks_kernel
from flatten_dense.ops.triton_kernels.launching import Tiles, launch

SPAN = 64  # numbers per program
CHUNKS = 64  # that it reads at once


def sum_chunks(
    partial: Tensor, tiles: Tiles, num_keys: int, key_padding_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Add up the parts of a state and divide by the number of keys that count.

    Args:
        partial: ``[B, G, chunks, D, D + 1]``, float32.
        tiles: constants.
        num_keys: M.
        key_padding_mask: ``[B, M]`` bool, True = ignore.

    Returns:
        The context ``[B, G, D, D + 1]``, and apart its first D columns, ``[1, B, G, D, D]`` in float32 or
        ``[2, B, G, D, D]`` as two narrow numbers each, and its last, ``[B, G, D]``.
    """
    batch, num_heads, chunks, head_dim, _ = partial.shape
    context = partial.new_empty(batch, num_heads, head_dim, head_dim + 1)
    planes = 2 if tiles.precision == "split" else 1
    state = partial.new_empty(planes, batch, num_heads, head_dim, head_dim, dtype=tiles.state_dtype)
    mean = partial.new_empty(batch, num_heads, head_dim)
    masked = key_padding_mask is not None
    counts = (~key_padding_mask).sum(1) if key_padding_mask is not None else partial
    launch(
        sum_chunks_kernel,
        batch * num_heads * -(-head_dim * (head_dim + 1) // SPAN),
        (partial, counts, context, state, mean, num_keys, chunks, batch * num_heads),
        G=num_heads,
        D=head_dim,
        BLOCK_CHUNKS=CHUNKS,
        BLOCK_S=SPAN,
        MASKED=masked,
        PRECISION=tiles.precision,
        num_warps=4,
    )
    return context, state, mean


def state_of(context: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor]:
    """The same two parts of a context that exists."""
    _, state, mean = sum_chunks(context.contiguous().unsqueeze(2), tiles, 1)
    return state, mean
