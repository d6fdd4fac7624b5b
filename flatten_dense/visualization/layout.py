"""How a sheet is laid out: rows of pictures under named columns, a caption above each row, a legend beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from flatten_dense.visualization.text import FAINT, INK, font_of, shorten

_MARGIN, _GAP, _HEADER, _CAPTION = 16, 8, 30, 24


class Row(NamedTuple):
    """A row of a sheet.

    Attributes:
        size: (height, width) of its pictures; their aspect is kept.
        draw: gives the row's pictures, one a column, for cells of the given (height, width); those of another size are
            scaled.
        caption: what stands above the row at the left.
        note: what stands above the row at the right.
    """

    size: tuple[int, int]
    draw: Callable[[tuple[int, int]], Sequence[Image.Image]]
    caption: str
    note: str


def lay_out(
    columns: Sequence[str],
    rows: Sequence[Row],
    key: Image.Image,
    cell_width: tuple[int, int] = (256, 420),
    tallest: float = 1.5,
    largest_side: int = 2000,
) -> Image.Image:
    """Draw a sheet.

    Args:
        columns: what stands above the columns.
        rows: at least one.
        key: the legend.
        cell_width: least and greatest width of a picture, as far as the sheet's size allows.
        tallest: most height of a picture, in widths.
        largest_side: of the sheet, in pixels.
    """
    aspects = [min(tallest, row.size[0] / row.size[1]) for row in rows]
    smallest, largest = cell_width
    wished = max(smallest, min(max(row.size[1] for row in rows), largest))
    across = (largest_side - 3 * _MARGIN - (len(columns) - 1) * _GAP - key.width) / len(columns)
    down = (largest_side - 2 * _MARGIN - _HEADER - len(rows) * (_CAPTION + _GAP)) / sum(aspects)
    width = int(min(wished, across, down))
    heights = [max(1, int(width * aspect)) for aspect in aspects]

    left = [_MARGIN + column * (width + _GAP) for column in range(len(columns))]
    rows_height = sum(heights) + len(rows) * (_CAPTION + _GAP)
    sheet_height = 2 * _MARGIN + max(_HEADER + rows_height, key.height)
    sheet = Image.new("RGB", (left[-1] + width + 2 * _MARGIN + key.width, sheet_height), "white")
    draw = ImageDraw.Draw(sheet)
    for x, name in zip(left, columns, strict=True):
        heading = shorten(name, width, font_of(17, bold=True))
        draw.text((x + width / 2, _MARGIN), heading, fill=INK, font=font_of(17, bold=True), anchor="ma")
    sheet.paste(key, (left[-1] + width + _MARGIN, _MARGIN))
    top, right = _MARGIN + _HEADER, left[-1] + width
    for row, height in zip(rows, heights, strict=True):
        note = shorten(row.note, right - left[0], font_of(14))
        room = right - left[0] - font_of(14).getlength(note) - 2 * _MARGIN
        draw.text((left[0], top), shorten(row.caption, room, font_of(14)), fill=FAINT, font=font_of(14), anchor="la")
        draw.text((right, top), note, fill=FAINT, font=font_of(14), anchor="ra")
        for x, picture in zip(left, row.draw((height, width)), strict=True):
            _paste_fitting(sheet, picture, (x, top + _CAPTION, width, height))
        top += _CAPTION + height + _GAP
    return sheet


def _paste_fitting(sheet: Image.Image, picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Nearest keeps an enlarged mask's pixels crisp; a box average keeps thin things visible when shrinking.
    resized = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    sheet.paste(resized, (x + (width - size[0]) // 2, y + (height - size[1]) // 2))
