"""Masks of single objects on a picture: a tint with an outline, or hatching."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle_masks

from flatten_dense.structures import RLE, Colour

_TINT, _OUTLINE, _HATCHING = 0.38, 0.9, 0.75


def paint_mask(picture: NDArray[np.uint8], mask: RLE, colour: Colour, line: int) -> None:
    """Tint an object and draw its outline, in place.

    Args:
        picture: ``[h, w, 3]``, to which the mask is scaled.
        mask: of any size.
        colour: of the object.
        line: width of the outline in pixels.
    """
    left, top, inside = _cut_out(mask, picture.shape)
    outline = inside & ~_eroded(inside, line)
    _blend(picture, left, top, inside & ~outline, colour, _TINT)
    _blend(picture, left, top, outline, colour, _OUTLINE)


def hatch_mask(picture: NDArray[np.uint8], mask: RLE, colour: Colour, line: int) -> None:
    """Draw diagonal lines over a region, in place; arguments as for :func:`paint_mask`."""
    left, top, inside = _cut_out(mask, picture.shape)
    _hatch(picture, left, top, inside, colour, line)


def hatch_box(picture: NDArray[np.uint8], box: tuple[int, int, int, int], colour: Colour, line: int) -> None:
    """Draw diagonal lines over the pixels of a box (left, top, right, bottom), in place."""
    left, top, right, bottom = box
    _hatch(picture, left, top, np.ones((max(0, bottom - top), max(0, right - left)), dtype=bool), colour, line)


def _cut_out(mask: RLE, shape: tuple[int, ...]) -> tuple[int, int, NDArray[np.bool_]]:
    """Where the object's part of the picture begins, and which of its pixels are the object's."""
    height, width = mask["size"]
    down, across = shape[0] / height, shape[1] / width
    x, y, w, h = (int(side) for side in rle_masks.toBbox(mask))
    left, top = int(x * across), int(y * down)
    right, bottom = min(shape[1], math.ceil((x + w) * across)), min(shape[0], math.ceil((y + h) * down))
    if w == 0 or h == 0 or right <= left or bottom <= top:
        return 0, 0, np.zeros((0, 0), dtype=bool)
    first_x, first_y, last_x, last_y = left / across, top / down, right / across, bottom / down
    x, y = int(first_x), int(first_y)
    inside = rle_masks.decode(mask)[y : math.ceil(last_y), x : math.ceil(last_x)]
    if (down, across) == (1, 1):
        return left, top, inside.astype(bool)
    part = Image.fromarray(np.ascontiguousarray(inside) * np.uint8(255))
    source = (first_x - x, first_y - y, min(part.width, last_x - x), min(part.height, last_y - y))
    resized = part.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=source)
    return left, top, np.asarray(resized) >= 128


def _eroded(inside: NDArray[np.bool_], line: int) -> NDArray[np.bool_]:
    """What is left of a mask without a rim of this many pixels, next to the picture's border too."""
    shrunk = inside
    for _ in range(line):
        padded = np.pad(shrunk, 1)
        shrunk = shrunk & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    return shrunk


def _hatch(
    picture: NDArray[np.uint8], left: int, top: int, inside: NDArray[np.bool_], colour: Colour, line: int
) -> None:
    rows, columns = np.ogrid[top : top + inside.shape[0], left : left + inside.shape[1]]
    stripes = (rows + columns) % (8 * line) < line
    _blend(picture, left, top, inside & stripes, colour, _HATCHING)


def _blend(
    picture: NDArray[np.uint8], left: int, top: int, where: NDArray[np.bool_], colour: Colour, share: float
) -> None:
    part = picture[top : top + where.shape[0], left : left + where.shape[1]]
    part[where] = np.round(part[where] * (1 - share) + np.array(colour) * share).astype(np.uint8)
