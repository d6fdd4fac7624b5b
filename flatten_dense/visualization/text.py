"""Text in pictures, and the colours that are no class's."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

INK = (34, 34, 34)
FAINT = (110, 110, 110)
WRONG = (214, 24, 31)


@cache
def font_of(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font of all pictures, in this many pixels."""
    # matplotlib's own font is there on every machine and has more alphabets than Pillow's.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def shorten(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Cut a text to this many pixels, with three dots if something is lost."""
    if font.getlength(text) <= width:
        return text
    longest = bisect_right(range(len(text)), width, key=lambda length: font.getlength(text[:length] + "…")) - 1
    return text[: max(0, longest)] + "…"
