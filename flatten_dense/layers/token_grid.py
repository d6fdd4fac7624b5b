"""The map that tokens lie on, and which part of it belongs to each image of a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Size = tuple[int, int]


def ceil_div(size: Size, stride: int) -> Size:
    """Cells of side ``stride`` that cover ``size``."""
    return -(-size[0] // stride), -(-size[1] // stride)


def as_size(value: object) -> Size | None:
    """(H, W) from a side or a pair of sides, None for anything else."""
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        return None
    height, width = sides
    valid = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides)
    return (height, width) if valid else None


class TokenGrid(NamedTuple):
    """A row-major map of tokens.

    Attributes:
        size: (H, W) of the map, H * W = N.
        own_sizes: (h, w) of each image's own part, at the top left; None when every image fills the map.
        padding: ``[B, H, W]`` bool, True outside the own parts; None as above.
    """

    size: Size
    own_sizes: tuple[Size, ...] | None = None
    padding: Tensor | None = None

    @staticmethod
    def of(maps: Tensor, own_sizes: Sequence[Size] | None = None) -> TokenGrid:
        """The grid of ``[B, C, H, W]``."""
        size = (maps.shape[2], maps.shape[3])
        return TokenGrid(size) if own_sizes is None else _padded(size, tuple(own_sizes), maps.device)

    def shrink(self, stride: int) -> TokenGrid:
        """The grid of cells of side ``stride``; a cell belongs to an image that owns any of it."""
        size = ceil_div(self.size, stride)
        if self.own_sizes is None or self.padding is None:
            return TokenGrid(size)
        return _padded(size, tuple(ceil_div(own, stride) for own in self.own_sizes), self.padding.device)

    @property
    def key_padding_mask(self) -> Tensor | None:
        """``[B, N]`` bool, True = padding; None where there is none."""
        return None if self.padding is None else self.padding.flatten(1)

    def clear(self, maps: Tensor) -> Tensor:
        """Put zeros outside the images' own parts of ``[B, C, H, W]``, so that no convolution reads across."""
        return maps if self.padding is None else maps.masked_fill(self.padding.unsqueeze(1), 0)

    def to_map(self, tokens: Tensor) -> Tensor:
        """View ``[B, N, C]`` as ``[B, C, H, W]``, in channels-last memory."""
        # Split before turning: the other way round, torch takes the strides of a single image for another layout, and
        # copies at every convolution.
        return tokens.reshape(tokens.shape[0], *self.size, tokens.shape[2]).permute(0, 3, 1, 2)

    @staticmethod
    def to_tokens(maps: Tensor) -> Tensor:
        """View ``[B, C, H, W]`` as ``[B, N, C]``."""
        return maps.flatten(2).transpose(1, 2)


def own_grids(
    maps: Sequence[Tensor], strides: Sequence[int], image_sizes: Sequence[Size] | None = None
) -> list[TokenGrid]:
    """The grid of each map ``[B, C, H_i, W_i]``, of which an image of the batch owns as much as its pixels reach.

    Args:
        maps: of one batch.
        strides: at least as many.
        image_sizes: (h, w) of each image in pixels; None when every image fills the maps.
    """
    grids = []
    for x, stride in zip(maps, strides, strict=False):
        own = [ceil_div(size, stride) for size in image_sizes or ()]
        is_filled = all(size == x.shape[-2:] for size in own)
        grids.append(TokenGrid.of(x, None if is_filled else own))
    return grids


def _padded(size: Size, own_sizes: tuple[Size, ...], device: torch.device) -> TokenGrid:
    heights, widths = torch.tensor(own_sizes, device=device).unbind(1)
    rows = torch.arange(size[0], device=device) >= heights[:, None]
    columns = torch.arange(size[1], device=device) >= widths[:, None]
    return TokenGrid(size, own_sizes, rows[:, :, None] | columns[:, None, :])
