"""Learned tables of positions at sizes they were not made for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize_token_table(table: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """Bring a table with one row per cell from one grid to another, bilinearly (align_corners=False).

    Args:
        table: ``[1, n, C]``, cells in row-major order.
        from_size: (H, W) of the table's own grid, H * W = n.
        to_size: (H, W) wanted.

    Returns:
        ``[1, H * W, C]``; the table itself where the sizes are equal.
    """
    if from_size == to_size:
        return table
    grid = table.transpose(1, 2).reshape(1, -1, *from_size)
    grid = F.interpolate(grid, size=to_size, mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2)
