"""Tables with one row per cell of a grid, brought to another grid: whole, or a band of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_table(table: Tensor, from_size: Sequence[int], to_size: Sequence[int]) -> Tensor:
    """Stretch a table bilinearly (align_corners=False).

    Args:
        table: ``[E, h * w, C]``, cells in row-major order.
        from_size: (h, w), the table's own grid.
        to_size: (H, W) wanted.

    Returns:
        ``[E, H * W, C]``, the table itself where the sizes are equal.
    """
    if tuple(from_size) == tuple(to_size):
        return table
    # Split before turning: the other way round, torch takes a single table for one of another layout, and copies.
    grid = table.reshape(table.shape[0], *from_size, table.shape[2]).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=tuple(to_size), mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2)


class BandResizer:
    """The same for a band of wanted rows at a time, so that no table of the wanted size exists.

    Args:
        from_size: (h, w), the table's own grid.
        to_size: (H, W) wanted.
    """

    def __init__(self, from_size: Sequence[int], to_size: Sequence[int]) -> None:
        self.from_size = from_size
        self.width = to_size[1]
        height = from_size[0]
        position = ((torch.arange(to_size[0], dtype=torch.float64) + 0.5) * (height / to_size[0]) - 0.5).clamp(min=0)
        self.upper = position.floor().long().clamp(max=height - 1)
        self.lower = (self.upper + 1).clamp(max=height - 1)
        self.weight = (position - self.upper).view(-1, 1, 1)

    def band(self, table: Tensor, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of the wanted grid: ``[1, h * w, C]`` to ``[(stop - start) * W, C]``."""
        grid = table.view(*self.from_size, -1)
        upper, lower, weight = self._rows(grid, start, stop)
        rows = torch.lerp(grid[upper], grid[lower], weight)
        if self.width == self.from_size[1]:
            return rows.flatten(0, 1)
        # One row stays one row: the height is as wanted, and only columns are interpolated.
        maps = F.interpolate(rows.unsqueeze(0).permute(0, 3, 1, 2), size=(stop - start, self.width), mode="bilinear")
        return maps.squeeze(0).permute(1, 2, 0).reshape(-1, grid.shape[-1])

    def add_band_gradient(self, grad: Tensor, start: int, stop: int, into: Tensor) -> None:
        """The adjoint: add the gradient ``[(stop - start) * W, C]`` of a band to the table's, ``[1, h * w, C]``."""
        rows, (height, width), channels = stop - start, self.from_size, grad.shape[-1]
        grid = grad.view(rows, self.width, channels)
        if self.width != width:
            maps = grid.unsqueeze(0).permute(0, 3, 1, 2)
            maps = torch.ops.aten.upsample_bilinear2d_backward(
                maps, [rows, self.width], [1, channels, rows, width], False, None, None
            )
            grid = maps.squeeze(0).permute(1, 2, 0)
        table = into.view(height, width, channels)
        upper, lower, weight = self._rows(grid, start, stop)
        table.index_add_(0, upper, grid * (1 - weight))
        table.index_add_(0, lower, grid * weight)

    def _rows(self, like: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        upper, lower, weight = (x[start:stop].to(like.device) for x in (self.upper, self.lower, self.weight))
        return upper, lower, weight.to(like.dtype)
