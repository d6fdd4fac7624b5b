"""Where the names of objects go in a picture, so that none covers another or leaves it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ALONG_EDGES = (0.0, 1.0, 0.5)
_MOST_HIDDEN = 0.6  # boxes in all: a tag tells less than the object below it shows


def place_tags(
    boxes: NDArray[np.float64], tag_sizes: Sequence[Sequence[tuple[int, int]]], size: tuple[int, int]
) -> list[tuple[int, int, int] | None]:
    """Choose a place beside or in its box for each tag, the first ones first.

    Of the places where a tag covers no earlier one, it takes that where it hides least of the boxes, above the box's
    left end before others. Where there is none, or each would hide small boxes, its next smaller form is tried.

    Args:
        boxes: ``[N, 4]``, (left, top, right, bottom) in pixels of the picture.
        tag_sizes: for each box the forms of its tag, largest first, as (width, height).
        size: (height, width) of the picture.

    Returns:
        For each box the form's index, left and top; None where no form has a place.
    """
    placed: list[tuple[int, int, int] | None] = []
    taken = np.empty((0, 4))
    for box, forms in zip(boxes, tag_sizes, strict=True):
        best = None
        for form, (width, height) in enumerate(forms):
            if height > size[0] or width > size[1]:
                continue
            places = _places(box, width, height, size)
            # Small boxes are hidden by what would only mark the corner of a large one.
            hidden = (_overlaps(places, boxes) / np.maximum(_areas(boxes), 1)).sum(1)
            good = (_overlaps(places, taken).sum(1) == 0) & (hidden <= _MOST_HIDDEN)
            if good.any():
                chosen = places[good][int(hidden[good].round(1).argmin())]
                taken = np.vstack([taken, chosen])
                best = form, int(chosen[0]), int(chosen[1])
                break
        placed.append(best)
    return placed


def _places(box: NDArray[np.float64], width: int, height: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """``[P, 4]``: above, below and inside the box, and at its sides, all within the picture."""
    left, top, right, bottom = box.round()
    across = [left + share * (right - left - width) for share in _ALONG_EDGES]
    corners = [(x, y) for y in (top - height, bottom, top, bottom - height) for x in across]
    corners += [(x, y) for y in (top, bottom - height) for x in (right, left - width)]
    places = np.array(corners).round()
    places[:, 0] = places[:, 0].clip(0, size[1] - width)
    places[:, 1] = places[:, 1].clip(0, size[0] - height)
    return np.hstack([places, places + np.array([width, height])])


def _overlaps(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[N, M]``: pixels that boxes share."""
    begin = np.maximum(first[:, None, :2], second[None, :, :2])
    end = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared: NDArray[np.float64] = (end - begin).clip(0).prod(2)
    return shared


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    return areas
