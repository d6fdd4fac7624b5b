"""Masks in the three forms that COCO's files hold them in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_masks

from flatten_dense.structures import RLE


def compress_mask(segmentation: Any, size: tuple[int, int]) -> RLE:  # noqa: ANN401 - from a file
    """Polygons, uncompressed or compressed RLE as compressed RLE.

    Args:
        segmentation: a list of polygons [x1, y1, x2, y2, ...], or ``{"size": [H, W], "counts": ...}``.
        size: (H, W) of the image.
    """
    rle: RLE = segmentation
    if isinstance(segmentation, list):
        rle = rle_masks.merge(rle_masks.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        rle = rle_masks.frPyObjects(segmentation, *size)
    return rle


def mask_fault(segmentation: Any, size: tuple[int, int]) -> str | None:  # noqa: ANN401 - from a file
    """What makes :func:`compress_mask` or COCOeval fail on a mask, in a few words; None if nothing does.

    pycocotools itself checks little of it: it compares masks of different sizes without complaint, and reads beyond
    the end of damaged runs.
    """
    if isinstance(segmentation, list):
        whole = segmentation and all(_is_polygon(part) for part in segmentation)
        return None if whole else "no polygon, or one that is not 3 or more points [x1, y1, x2, y2, ...]"
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        return "neither polygons nor RLE with size and counts"
    if segmentation["size"] != list(size):
        return f"an RLE of {segmentation['size']} (height, width), the image is {list(size)}"
    try:
        counts = segmentation["counts"]
        lengths = np.array(counts, dtype=np.int64) if isinstance(counts, list) else _run_lengths(counts)
    except (TypeError, ValueError, IndexError, AttributeError):
        return "RLE counts that cannot be read"
    if (lengths < 0).any() or lengths.sum() != size[0] * size[1]:
        return f"a damaged RLE: its runs do not add up to {size[0]} x {size[1]} pixels"
    return None


def _is_polygon(part: object) -> bool:
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        return False
    return all(isinstance(value, int | float) and math.isfinite(value) for value in part)


def _run_lengths(counts: str | bytes) -> NDArray[np.int64]:
    """The lengths that compressed counts stand for.

    Raises:
        ValueError, IndexError: if they are no whole compressed counts.

    Source: pycocotools, ``rleFrString``: 5 bits a character, the lowest first, the last with a sign; from the fourth
        number on, the difference from the last number but one.
    """
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise ValueError("no compressed counts")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.r_[0, ends[:-1] + 1]
    places = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((codes & 31) << 5 * places, starts)
    numbers -= np.where(codes[ends] & 16, 1 << 5 * (ends - starts + 1), 0)
    for parity in (1, 2):  # run 1 and 2 stand for themselves, each later one adds to that two before
        numbers[parity::2] = numbers[parity::2].cumsum()
    return numbers
