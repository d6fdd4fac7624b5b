"""Cutting a map into cells and making each a token: by a strided convolution, or by merging four tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.token_grid import TokenGrid


def pad_to_whole_cells(x: Tensor, cell: int) -> Tensor:
    """Pad ``[B, C, H, W]`` with zeros at the right and bottom to multiples of ``cell``."""
    bottom, right = (-(-side // cell) * cell - side for side in x.shape[2:])
    # Padding by nothing copies, but a recorded program must not depend on whether this size needs padding.
    return F.pad(x, (0, right, 0, bottom)) if torch.compiler.is_compiling() or bottom or right else x


class PatchEmbed(nn.Module):
    """One token per cell: a strided convolution, then LayerNorm (eps 1e-5).

    Args:
        in_channels: channels of the map.
        dim: channels of the tokens.
        stride: side of a cell, in pixels of the map.
        kernel_size: of the convolution; None for the stride itself, cells that do not overlap.
        padding: zeros around the map, such that H becomes ceil(H / stride).
        norm: whether the LayerNorm is there.

    Source: Pyramid Vision Transformer, arXiv 2102.12122; overlapping cells as in PVTv2, arXiv 2106.13797, and CSWin,
    arXiv 2107.00652. Padded here to whole cells instead of losing the last pixels.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        stride: int,
        kernel_size: int | None = None,
        padding: int = 0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Conv2d(in_channels, dim, kernel_size or stride, stride, padding)
        self.norm = nn.LayerNorm(dim, eps=1e-5) if norm else nn.Identity()

    def forward(self, x: Tensor, grid: TokenGrid) -> tuple[Tensor, TokenGrid]:
        """Turn ``[B, in_channels, H, W]`` of ``grid`` into tokens ``[B, N, dim]`` and their grid."""
        x = pad_to_whole_cells(grid.clear(x), self.stride)
        if x.device.type == "cpu":
            x = x.contiguous(memory_format=torch.channels_last)  # then so is the result, whose tokens lie in one piece
        return self.norm(TokenGrid.to_tokens(self.proj(x))), grid.shrink(self.stride)


class PatchMerging(nn.Module):
    """One token per 2 x 2 cell: the four are concatenated, normalised (eps 1e-5) and projected.

    Args:
        in_channels: channels of the map.
        dim: channels of the tokens.

    Source: Swin Transformer, arXiv 2103.14030; (row, column) in the order (0, 0), (1, 0), (0, 1), (1, 1).
    """

    stride = 2

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels, eps=1e-5)
        self.reduction = nn.Linear(4 * in_channels, dim, bias=False)

    def forward(self, x: Tensor, grid: TokenGrid) -> tuple[Tensor, TokenGrid]:
        """Turn ``[B, in_channels, H, W]`` of ``grid`` into tokens ``[B, N, dim]`` and their grid."""
        x = pad_to_whole_cells(grid.clear(x), 2).permute(0, 2, 3, 1)
        cells = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(cells, dim=-1).flatten(1, 2))), grid.shrink(2)
