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
        self.height, self.width = to_size
        # [H, h]: what each row of the table gives to each wanted row, two numbers that are not zero in a row.
        identity = torch.eye(from_size[0], dtype=torch.float64, device="cpu")
        self.rows = F.interpolate(identity.unsqueeze(0), size=self.height, mode="linear")[0].T

    def band(self, table: Tensor, start: int, stop: int) -> Tensor:
        """Rows ``start`` to ``stop`` of the wanted grid: ``[1, h * w, C]`` to ``[(stop - start) * W, C]``."""
        weights, sources = self._sources(start, stop, table)
        grid = (weights @ table.view(self.from_size[0], -1)[sources]).view(stop - start, self.from_size[1], -1)
        if self.width != self.from_size[1]:
            # A height as wanted already: only columns are interpolated.
            grid = _to_grid(F.interpolate(_to_maps(grid), size=(stop - start, self.width), mode="bilinear"))
        return grid.flatten(0, 1)

    def add_band_gradient(self, grad: Tensor, start: int, stop: int, into: Tensor) -> None:
        """The adjoint: add the gradient ``[(stop - start) * W, C]`` of a band to the table's, ``[1, h * w, C]``."""
        rows, (height, width), channels = stop - start, self.from_size, grad.shape[-1]
        grid = grad.view(rows, self.width, channels)
        if self.width != width:
            sizes = [rows, self.width], [1, channels, rows, width]
            grid = _to_grid(torch.ops.aten.upsample_bilinear2d_backward(_to_maps(grid), *sizes, False))
        weights, sources = self._sources(start, stop, grad)
        into.view(height, -1)[sources].addmm_(weights.T, grid.reshape(rows, -1))

    def _sources(self, start: int, stop: int, like: Tensor) -> tuple[Tensor, slice]:
        """The weights for a band, of those rows of the table that it is made of, and which these are."""
        scale = self.from_size[0] / self.height
        first, last = int((start + 0.5) * scale - 0.5), int((stop - 0.5) * scale - 0.5)
        sources = slice(max(0, first - 1), last + 2)  # a row to spare for rounding
        return self.rows[start:stop, sources].to(like), sources


def _to_maps(grid: Tensor) -> Tensor:
    """``[h, w, C]`` as ``[1, C, h, w]`` in what is known as channels-last memory, for which the kernels are fast."""
    return grid.unsqueeze(0).permute(0, 3, 1, 2)


def _to_grid(maps: Tensor) -> Tensor:
    """The inverse of :func:`_to_maps`."""
    return maps.permute(0, 2, 3, 1).squeeze(0)
