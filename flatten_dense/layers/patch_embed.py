"""Cutting a map into non-overlapping cells."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def pad_to_whole_cells(x: Tensor, cell: int) -> Tensor:
    """Pad ``[B, C, H, W]`` with zeros at the right and bottom to multiples of ``cell``."""
    bottom, right = (-(-side // cell) * cell - side for side in x.shape[2:])
    return F.pad(x, (0, right, 0, bottom))


class PatchEmbed(nn.Module):
    """One token per cell: a convolution with kernel = stride, then LayerNorm (eps 1e-5).

    Args:
        in_channels: channels of the map.
        dim: channels of the tokens.
        patch_size: side of a cell, in pixels of the map.

    Source: Pyramid Vision Transformer, arXiv 2102.12122; padded here instead of losing the last pixels.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn ``[B, in_channels, H, W]`` into tokens ``[B, N, dim]`` and their (ceil(H / size), ceil(W / size))."""
        x = self.proj(pad_to_whole_cells(x, self.patch_size))
        size = (x.shape[2], x.shape[3])
        return self.norm(x.flatten(2).transpose(1, 2)), size
