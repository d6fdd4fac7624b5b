"""Photos with their true and their predicted class in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw
from torch import Tensor

from flatten_dense.visualization.text import INK, WRONG, font_of, shorten

_COLUMNS, _CELL, _GAP, _LINE, _MARGIN = 6, 220, 14, 20, 16
_MOST = 36
_RIGHT = (23, 120, 60)


class ClassifiedPhoto(NamedTuple):
    """A photo and what a model says of it.

    Attributes:
        photo: uint8 ``[3, h, w]``.
        truth: the true class; None if it is not known.
        guesses: (class, probability), the most probable first.
        name: what the photo is called.
    """

    photo: Tensor
    truth: str | None
    guesses: Sequence[tuple[str, float]]
    name: str


def classification_sheet(photos: Sequence[ClassifiedPhoto]) -> Image.Image:
    """Draw photos in a grid; below each its name, its predicted class, and where that is wrong, in red, the true one.

    Args:
        photos: at least one; the first 36 are drawn.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not photos:
        raise ValueError("a sheet needs at least one photo, got none")
    photos = photos[:_MOST]
    columns = min(_COLUMNS, len(photos))
    rows = -(-len(photos) // columns)
    height = _CELL + 3 * _LINE + _GAP
    size = (2 * _MARGIN + columns * (_CELL + _GAP) - _GAP, 2 * _MARGIN + rows * height - _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, item in enumerate(photos):
        x = _MARGIN + number % columns * (_CELL + _GAP)
        y = _MARGIN + number // columns * height
        sheet.paste(*_fitted(item.photo, x, y))
        guess, probability = item.guesses[0]
        is_wrong = item.truth is not None and item.truth != guess
        colour = INK if item.truth is None else WRONG if is_wrong else _RIGHT
        lines = [(item.name, INK, False), (f"{guess}  {100 * probability:.0f} %", colour, True)]
        if is_wrong:
            share = dict(item.guesses).get(str(item.truth))
            lines.append((f"is {item.truth}" + (f"  {100 * share:.0f} %" if share is not None else ""), INK, False))
        for line, (text, ink, bold) in enumerate(lines):
            font = font_of(14, bold)
            draw.text((x, y + _CELL + line * _LINE + 2), shorten(text, _CELL, font), fill=ink, font=font)
    return sheet


def _fitted(photo: Tensor, x: int, y: int) -> tuple[Image.Image, tuple[int, int]]:
    """A photo at the size of a cell, and where it goes."""
    picture = Image.fromarray(photo.permute(1, 2, 0).contiguous().numpy())
    scale = _CELL / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    kind = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BILINEAR
    return picture.resize((width, height), kind), (x + (_CELL - width) // 2, y + (_CELL - height) // 2)
