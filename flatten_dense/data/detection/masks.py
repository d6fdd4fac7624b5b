"""Masks of objects as annotation files hold them: polygons or run lengths."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from pycocotools import mask as coco_mask

from flatten_dense.structures import RLE

Segmentation: TypeAlias = list[list[float]] | dict[str, Any]
"""Polygons ``[x, y, x, y, ...]`` of at least three points each, whose union is the mask; or a compressed RLE."""

FEWEST_NUMBERS = 6
"""Of a polygon: three points."""


def read_segmentation(value: object, height: int, width: int) -> Segmentation | None:
    """Bring a ``segmentation`` of a COCO file into a form that is sound and that pycocotools takes.

    Polygons of fewer than three points are left out: they cover nothing, and pycocotools would take one of two points
    for a box. A single polygon need not stand in a list. Run lengths are compressed, as a string.

    Args:
        value: list of polygons, run lengths in either form, or something empty.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        None where there is no mask, or no polygon is left.

    Raises:
        ValueError: if it is none of these; the message says why.
    """
    if not value:
        return None
    if isinstance(value, dict):
        return _read_run_lengths(value, height, width)
    if not isinstance(value, list):
        raise ValueError(f"expected polygons or run lengths, got {_shown(value)}")
    parts = value if isinstance(value[0], list) else [value]
    for part in parts:
        try:
            sound = len(part) % 2 == 0 and math.isfinite(sum(part))
        except (TypeError, OverflowError):
            sound = False
        if not sound:
            raise ValueError(f"a polygon is a list of finite numbers x, y, x, y, ...; got {_shown(part)}")
    return [part for part in parts if len(part) >= FEWEST_NUMBERS] or None


def encode(segmentation: Segmentation, height: int, width: int) -> RLE:
    """The mask in pixels, as pycocotools rasterises polygons.

    Args:
        segmentation: as :func:`read_segmentation` returns it; polygons may reach beyond the image.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    if isinstance(segmentation, list):
        rle: RLE = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        return rle
    return {"size": segmentation["size"], "counts": segmentation["counts"].encode()}


def _read_run_lengths(value: dict[str, Any], height: int, width: int) -> Segmentation:
    size, counts = value.get("size"), value.get("counts")
    if size != [height, width]:
        raise ValueError(f"run lengths of size {_shown(size)}; the image's [height, width] is {[height, width]}")
    try:
        runs = _decompress(counts) if isinstance(counts, str) else counts
        # pycocotools checks neither, and writes or reads beyond its memory.
        sound = isinstance(runs, list) and min(runs) >= 0 and sum(runs) == height * width
        if sound and not isinstance(counts, str):
            counts = coco_mask.frPyObjects({"size": size, "counts": runs}, height, width)["counts"].decode()
    except (TypeError, ValueError, IndexError, OverflowError):
        sound = False
    if not sound:
        raise ValueError(f"run lengths that do not add up to the image's {height}x{width} pixels: {_shown(counts)}")
    return {"size": size, "counts": counts}


def _decompress(counts: str) -> list[int]:
    """Run lengths from their string.

    Source: rleFrString in pycocotools: numbers in groups of 5 bits, from the third on as differences to the one two
    before; bit 5 says that more groups follow, bit 4 of the last is the sign.
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts.encode("ascii"):
        group = character - 48
        if not 0 <= group < 64:
            raise ValueError
        number |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                number -= 1 << shift
            runs.append(number + runs[-2] if len(runs) > 2 else number)
            number = shift = 0
    if shift:
        raise ValueError
    return runs


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
