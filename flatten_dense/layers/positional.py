"""Learned tables of positions at sizes they were not made for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.layers.streaming import add_over, rows_per_piece
from flatten_dense.layers.token_grid import Size
from flatten_dense.ops.plain import full_precision
from flatten_dense.ops.table_resizing import BandResizer, resize_table


def resize_token_table(
    table: Tensor, from_size: Size, to_size: Size, own_sizes: Sequence[Size] | None = None
) -> Tensor:
    """Bring a table with one row per cell from one grid to another, bilinearly (align_corners=False).

    Args:
        table: ``[1, n, C]``, cells in row-major order.
        from_size: (H, W) of the table's own grid, H * W = n.
        to_size: (H, W) wanted.
        own_sizes: for a padded batch, the part of the wanted grid that the table is stretched over for each image.

    Returns:
        ``[1, H * W, C]``, the table itself where the sizes are equal; ``[B, H * W, C]`` with ``own_sizes``, zero
        outside the own parts.
    """
    if own_sizes is not None:
        distinct = sorted(set(own_sizes))
        tables = []
        for height, width in distinct:
            own = resize_token_table(table, from_size, (height, width)).view(height, width, -1)
            tables.append(F.pad(own, (0, 0, 0, to_size[1] - width, 0, to_size[0] - height)).flatten(0, 1))
        which = torch.tensor([distinct.index(own) for own in own_sizes], device=table.device)
        return torch.stack(tables)[which]
    return resize_table(table, from_size, to_size)


def add_table(tokens: Tensor, table: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """``tokens`` and the table brought to their grid, for inference: a large one in bands of rows, so it never exists.

    Args:
        tokens: ``[B, H * W, C]``; perhaps overwritten.
        table: ``[1, n, C]``, as :func:`resize_token_table`.
        from_size: (H, W) of the table's own grid.
        to_size: (H, W) of the tokens.

    Returns:
        ``[B, H * W, C]``, contiguous; perhaps ``tokens``.
    """
    (height, width), channels = to_size, table.shape[2]
    rows = max(1, rows_per_piece(width * channels, tokens.device))
    if rows >= height or from_size == to_size:
        return add_over(tokens, resize_token_table(table, from_size, to_size))
    dtype = torch.promote_types(tokens.dtype, table.dtype)
    out = tokens if tokens.is_contiguous() and tokens.dtype == dtype else tokens.new_empty(tokens.shape, dtype=dtype)
    resizer = BandResizer(from_size, to_size)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        with full_precision(tokens.device):
            positions = resizer.band(table, start, stop)
        band = slice(start * width, stop * width)
        torch.add(tokens[:, band], positions, out=out[:, band])
    return out


def relative_position_bias(table: Tensor, window_size: int, size: Size) -> Tensor:
    """Look up Swin's bias for every pair of tokens of a window, or of the part of one that a small map fills.

    Args:
        table: ``[(2 w - 1)^2, G]`` for a window of side w: a row per offset, row offset first.
        window_size: w.
        size: (h, w) of the tokens' grid, neither above ``window_size``.

    Returns:
        ``[G, n, n]`` with n = h * w; entry [g, i, j] for query i and key j.
    """
    rows = torch.arange(size[0], device=table.device).repeat_interleave(size[1])
    columns = torch.arange(size[1], device=table.device).repeat(size[0])
    row_offsets = rows[:, None] - rows[None, :] + window_size - 1
    column_offsets = columns[:, None] - columns[None, :] + window_size - 1
    return table[row_offsets * (2 * window_size - 1) + column_offsets].permute(2, 0, 1)
