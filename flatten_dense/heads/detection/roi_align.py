"""Features of regions, each read from the map that suits its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from flatten_dense.heads.detection.conventions import Conventions
from flatten_dense.layers import ceil_div
from flatten_dense.structures import ImageBatch

_COARSEST = 32  # stride of the last map that regions are read from
_CELLS = 14  # side of a square region, in cells, from which on it is read from a map


class RegionFeatures(nn.Module):
    """RoIAlign over a pyramid.

    Args:
        strides: of the maps, finest first; those above 32 are not read.
        size: side of the result in cells.
        conventions: how densely and where the maps are sampled.

    Source: He et al., Mask R-CNN (ICCV 2017); levels by Lin et al., Feature Pyramid Networks (CVPR 2017).
    """

    def __init__(self, strides: Sequence[int], size: int, conventions: Conventions) -> None:
        super().__init__()
        self.strides = tuple(stride for stride in strides if stride <= _COARSEST)
        if not self.strides:
            raise ValueError(f"regions are read from maps of stride {_COARSEST} or less, got strides {tuple(strides)}")
        self.size = size
        self.sampling_ratio = conventions.sampling_ratio
        self.aligned = conventions.aligned

    def forward(self, features: Sequence[Tensor], regions: Sequence[Tensor]) -> Tensor:
        """Features ``[R, C, size, size]`` of all regions, from maps and the regions ``[N_b, 4]`` of each image."""
        images = [torch.full_like(own[:, :1], i) for i, own in enumerate(regions)]
        numbered = torch.cat([torch.cat(images), torch.cat(list(regions))], 1)
        level_of = self._levels(numbered[:, 1:])
        # In half precision the corners of a region would be off by pixels.
        precise = torch.promote_types(features[0].dtype, numbered.dtype)
        pooled, order = [], []
        for level, stride in enumerate(self.strides):
            rows = (level_of == level).nonzero()[:, 0]
            own: Tensor = roi_align(
                features[level].to(precise),
                numbered[rows].to(precise),
                self.size,
                spatial_scale=1 / stride,
                sampling_ratio=self.sampling_ratio,
                aligned=self.aligned,
            )
            pooled.append(own.to(features[level].dtype))
            order.append(rows)
        return torch.cat(pooled).index_select(0, torch.cat(order).argsort())

    def _levels(self, boxes: Tensor) -> Tensor:
        """Index of the map that each box is read from."""
        sides = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        levels = (sides / (_CELLS * self.strides[0]) + 1e-6).log2().floor()
        return levels.clamp(0, len(self.strides) - 1).long()


def extend_edges(features: Sequence[Tensor], strides: Sequence[int], images: ImageBatch) -> list[Tensor]:
    """Repeat the last row and column of each image's own part once, beyond it.

    RoIAlign interpolates up to half a cell beyond an image's own part. At the edge of a map it repeats the last cell;
    so it then does at the edge of every image of a padded batch, and a region does not feel how much padding follows.
    """
    extended = []
    for feature, stride in zip(features, strides, strict=True):
        heights, widths = torch.tensor([ceil_div(size, stride) for size in images.sizes]).unbind(1)
        wider = _repeat_last_row(feature.transpose(2, 3), widths).transpose(2, 3)
        extended.append(_repeat_last_row(wider, heights))
    return extended


def _repeat_last_row(maps: Tensor, heights: Tensor) -> Tensor:
    """Copy the last of each map's own rows to the next row, where there is one."""
    (shorter,) = (heights < maps.shape[2]).nonzero(as_tuple=True)
    if len(shorter) == 0:
        return maps
    rows = heights[shorter]
    maps = maps.clone()
    maps[shorter, :, rows] = maps[shorter, :, rows - 1]
    return maps
