"""How images are given to a model: as a whole, in windows, in tiles; and test-time augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ALIGNMENT = 32
"""Tiles start at multiples of this many pixels, so that the cells of every stride up to it coincide."""

_MODES = ("auto", "whole", "slide", "tiled")


@dataclass(frozen=True)
class Inference:
    """How images are given to the model.

    Attributes:
        mode: `whole` gives it each image as a whole. `slide` averages the logits of square windows, as mmseg's
            evaluation does. `tiled` blends overlapping tiles and lets their masks go strip by strip, in memory that
            does not grow with the image's height and holds one row of tiles. `auto` is `whole` up to `max_pixels`, and
            `tiled` above.
        max_pixels: the largest image, as the model receives it, that `auto` takes as a whole; `predict` reads a TIFF
            with more pixels than this in windows. The default is 2048 x 2048: FLatten-PVT-T with Semantic FPN and 150
            classes then needs about 1.4 GiB beside its weights.
        tile_size: side of a tile in pixels, a multiple of 32.
        overlap: pixels of `tiled`, see :func:`flatten_dense.inference.tiles.tiled_rows`. Where it covers the model's
            receptive field, tiles change nothing.
        window: side of a window of `slide` in pixels.
        stride: pixels from one window of `slide` to the next.
        scales: factors on the size of the image as the model would receive it; with several, their softmaxes are
            averaged at the original size. Memory is that of all of them together.
        flip: whether to average over the mirrored image too.

    Raises:
        ValueError: if an option is out of its range.
    """

    mode: Literal["auto", "whole", "slide", "tiled"] = "auto"
    max_pixels: int = 2048 * 2048
    tile_size: int = 1024
    overlap: int = 128
    window: int = 512
    stride: int = 341
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ValueError(f"inference.mode must be one of {', '.join(_MODES)}, got {self.mode!r}")
        if self.max_pixels < 1:
            raise ValueError(f"inference.max_pixels must be at least 1, got {self.max_pixels}")
        if self.tile_size < ALIGNMENT or self.tile_size % ALIGNMENT:
            raise ValueError(f"inference.tile_size must be a positive multiple of {ALIGNMENT}, got {self.tile_size}")
        if self.overlap < 0:
            raise ValueError(f"inference.overlap must not be negative, got {self.overlap}")
        if shared_pixels(self.overlap) >= self.tile_size:
            raise ValueError(
                f"inference.tile_size {self.tile_size} is too small for overlap {self.overlap}: neighbours share "
                f"{shared_pixels(self.overlap)} pixels, for blending too; take tiles larger than that, or less overlap"
            )
        if not 1 <= self.stride <= self.window:
            raise ValueError(
                f"inference.stride must be from 1 to the window of {self.window} pixels, so that windows leave nothing "
                f"out; got {self.stride}"
            )
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"inference.scales must be positive factors, at least one; got {self.scales}")

    @property
    def passes(self) -> list[tuple[float, bool]]:
        """Scale of each pass over an image, and whether it is mirrored."""
        return [(scale, mirrored) for scale in self.scales for mirrored in ((False, True) if self.flip else (False,))]

    def mode_for(self, size: tuple[int, int]) -> Literal["whole", "slide", "tiled"]:
        """What is done with an image of this (height, width), as the model receives it, at every scale."""
        if self.mode in ("whole", "slide"):
            return self.mode
        height, width = (side * max(self.scales) for side in size)
        is_small = max(height, width) <= self.tile_size or (self.mode == "auto" and height * width <= self.max_pixels)
        return "whole" if is_small else "tiled"


def shared_pixels(overlap: int) -> int:
    """Pixels that neighbouring tiles share at least: the overlap, and where they are blended; aligned."""
    return -(-(overlap + max(64, overlap // 2)) // ALIGNMENT) * ALIGNMENT if overlap else 0
