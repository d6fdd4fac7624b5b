"""Anchors: the boxes that a dense detector starts from, at every cell of every map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flatten_dense.heads.detection.conventions import Conventions
from flatten_dense.layers import ceil_div
from flatten_dense.structures import ImageBatch

_RATIOS = (0.5, 1.0, 2.0)


class Anchors(nn.Module):
    """Anchors of one area in three shapes, or of several areas, around every cell of each map.

    Args:
        strides: of the maps.
        sizes: of each map, the sides of the square anchors; others have the same area.
        conventions: how they are rounded and spaced.

    Attributes:
        per_cell: anchors of one cell, the same in all maps.
    """

    def __init__(self, strides: Sequence[int], sizes: Sequence[Sequence[float]], conventions: Conventions) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.strides_of_image = conventions.strides_of_image
        self.per_cell = len(_RATIOS) * len(sizes[0])
        for level, own in enumerate(sizes):
            self.register_buffer(f"cell_{level}", _around_origin(own, conventions.rounded_anchors), persistent=False)

    def forward(self, maps: Sequence[Tensor], images: ImageBatch) -> list[Tensor]:
        """Anchors ``[H_i * W_i * A, 4]`` of each map ``[B, C, H_i, W_i]``, in pixels: by row, column and shape."""
        levels = []
        for level, (feature, own_stride) in enumerate(zip(maps, self.strides, strict=True)):
            cell: Tensor = getattr(self, f"cell_{level}")
            grid = (feature.shape[-2], feature.shape[-1])
            steps = [own_stride, own_stride]
            if self.strides_of_image:
                steps = [side // cells for side, cells in zip(images.padded_size, grid, strict=True)]
            y, x = (torch.arange(n, device=cell.device) * step for n, step in zip(grid, steps, strict=True))
            y, x = torch.meshgrid(y, x, indexing="ij")
            corners = torch.stack([x, y, x, y], -1)
            levels.append((corners[:, :, None] + cell).reshape(-1, 4))
        return levels

    def rows(self, outputs: Tensor) -> Tensor:
        """What a head says of each anchor: maps ``[B, A * D, H, W]`` as ``[B, H * W * A, D]``, float32."""
        width = outputs.shape[1] // self.per_cell
        return outputs.permute(0, 2, 3, 1).reshape(len(outputs), -1, width).float()

    def inside(self, maps: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Which anchors of each map belong to cells of an image of this size: bool ``[H_i * W_i * A]``."""
        levels = []
        for feature, stride in zip(maps, self.strides, strict=True):
            height, width = ceil_div(size, stride)
            mask = torch.zeros(feature.shape[-2:], dtype=torch.bool, device=feature.device)
            mask[:height, :width] = True
            levels.append(mask.flatten().repeat_interleave(self.per_cell))
        return levels


def _around_origin(sizes: Sequence[float], rounded: bool) -> Tensor:
    """Anchors ``[A, 4]``, each shape in all sizes."""
    roots = torch.tensor(_RATIOS).sqrt()  # a ratio is height / width
    sides = torch.tensor([float(size) for size in sizes])
    widths, heights = (1 / roots)[:, None] * sides, roots[:, None] * sides
    half = torch.stack([widths.flatten(), heights.flatten()], 1) / 2
    anchors = torch.cat([-half, half], 1)
    return anchors.round() if rounded else anchors
