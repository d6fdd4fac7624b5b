"""Overlapping tiles of an image, their logits blended row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.inference.images import WindowedImage
from flatten_dense.inference.options import ALIGNMENT, shared_pixels
from flatten_dense.inference.rows import Rows

_ROWS_AT_ONCE = 8


class Axis(NamedTuple):
    """Where tiles lie along one side of an image, and what they weigh.

    Attributes:
        spans: (start, stop) of each tile in pixels, in ascending order.
        weights: of each tile's cells, float32; over all tiles they sum to 1 at each cell.
    """

    spans: list[tuple[int, int]]
    weights: list[Tensor]


def tiled_rows(predict: Callable[[Tensor], Tensor], image: WindowedImage, tile_size: int, overlap: int) -> Rows:
    """Logits of an image from overlapping tiles, at the model's own stride.

    Neighbouring tiles share ``shared_pixels(overlap)`` pixels or more. Of a tile, the outermost half of ``overlap``
    (and half a cell of the logits) counts nothing, except at the image's own border; from there its weight rises until
    it is the only one. So a model whose logits depend on no more than ``overlap`` pixels in height and width gives
    what it gives for the whole image. Tiles start at multiples of 32 and spread evenly; none exceeds ``tile_size``.

    Held in memory are the logits of one row of tiles: ``K * tile_size * width / stride ** 2`` numbers.

    Args:
        predict: images ``[1, 3, h, w]`` -> logits ``[1, K, ceil(h / stride), ceil(w / stride)]``, a stride of 1 to 32;
            logits of another size are resized to the tile's, which costs memory.
        image: larger than a tile in height or width.
        tile_size: in pixels, a multiple of 32.
        overlap: in pixels.
    """
    height, width = image.size
    vertical, horizontal = tile_spans(height, tile_size, overlap), tile_spans(width, tile_size, overlap)
    first_tile = (min(height, tile_size), min(width, tile_size))
    first_logits = [predict(image.read(0, 0, *first_tile)[None])]
    cell = _stride(first_tile, first_logits[0].shape[-2:])
    return blended_rows(
        lambda tile: first_logits.pop() if first_logits else predict(tile),
        image,
        Axis(vertical, _blending_weights(vertical, overlap, cell)),
        Axis(horizontal, _blending_weights(horizontal, overlap, cell)),
        cell,
    )


def blended_rows(
    predict: Callable[[Tensor], Tensor], image: WindowedImage, vertical: Axis, horizontal: Axis, cell: int
) -> Rows:
    """Weighted sum of the logits of tiles, one row of tiles after the other.

    Args:
        predict: images ``[1, 3, h, w]`` -> logits ``[1, K, any, any]``.
        image: the image that the tiles cover.
        vertical: rows of tiles.
        horizontal: columns of tiles.
        cell: side in pixels of what one logit stands for; every tile starts at a multiple of it.
    """
    height, width = (-(-side // cell) for side in image.size)

    def strips() -> Iterator[Tensor]:
        buffer = torch.empty(0)
        starts = [start // cell for start, _ in vertical.spans]
        for (top, bottom), row_weights, finished in zip(
            vertical.spans, vertical.weights, [*starts[1:], height], strict=True
        ):
            for (left, right), column_weights in zip(horizontal.spans, horizontal.weights, strict=True):
                tile = image.read(top, left, bottom - top, right - left)
                cells = (len(row_weights), len(column_weights))
                logits = resize(predict(tile[None]).float(), cells)[0]
                if not buffer.numel():
                    most = max(len(weights) for weights in vertical.weights)
                    buffer = logits.new_zeros(most, logits.shape[0], width)
                weights = row_weights[:, None] * column_weights
                weighted = logits * weights.to(logits.device)
                start = left // cell
                buffer[: cells[0], :, start : start + cells[1]] += weighted.transpose(0, 1)
            done = finished - top // cell
            for first in range(0, done, _ROWS_AT_ONCE):
                yield buffer[first : min(first + _ROWS_AT_ONCE, done)].clone()  # the buffer is used again
            kept = len(buffer) - done
            for row in range(kept):  # one by one, in place: a copy of all of them would be large
                buffer[row] = buffer[done + row]
            buffer[kept:] = 0

    return Rows((height, width), strips())


def tile_spans(length: int, tile_size: int, overlap: int) -> list[tuple[int, int]]:
    """(start, stop) of tiles along a side, in pixels: as few as share enough, spread evenly, at aligned starts."""
    if length <= tile_size:
        return [(0, length)]
    last = -(-(length - tile_size) // ALIGNMENT)
    steps = -(-last // ((tile_size - shared_pixels(overlap)) // ALIGNMENT))
    starts = [index * last // steps * ALIGNMENT for index in range(steps + 1)]
    return [(start, min(start + tile_size, length)) for start in starts]


def normalized(spans: list[tuple[int, int]], weights: list[Tensor], cell: int) -> list[Tensor]:
    """Divide the weights of tiles by their sum at each cell; weights and spans as in :class:`Axis`."""
    total = torch.zeros(-(-spans[-1][1] // cell), dtype=torch.float64)
    for (start, _), own in zip(spans, weights, strict=True):
        total[start // cell : start // cell + len(own)] += own
    return [
        (own / total[start // cell : start // cell + len(own)]).float()
        for (start, _), own in zip(spans, weights, strict=True)
    ]


def resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinearly; ``[B, K, h, w]`` of that size already are returned as they are."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _blending_weights(spans: list[tuple[int, int]], overlap: int, cell: int) -> list[Tensor]:
    length = spans[-1][1]
    ramp = max(shared_pixels(overlap) - overlap - cell, 1)
    weights = []
    for start, stop in spans:
        centres = (torch.arange(-(-(stop - start) // cell), dtype=torch.float64) + 0.5) * cell
        own = torch.ones_like(centres)
        for is_inner, distance in ((start > 0, centres), (stop < length, stop - start - centres)):
            if is_inner and overlap:
                own = torch.minimum(own, ((distance - (overlap + cell) / 2) / ramp).clamp(0, 1))
        weights.append(own)
    return normalized(spans, weights, cell)


def _stride(tile: tuple[int, int], logits: tuple[int, ...]) -> int:
    for stride in (1, 2, 4, 8, 16, 32):
        if tuple(-(-side // stride) for side in tile) == tuple(logits):
            return stride
    return 1
