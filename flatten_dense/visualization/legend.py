"""Which colour means which class."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from flatten_dense.structures import Colour, LabelSpace
from flatten_dense.visualization.text import FAINT, INK, font_of, shorten

_LINE, _SWATCH, _GAP, _TEXT_WIDTH = 24, 16, 8, 170


def legend(labels: LabelSpace, classes: Sequence[int] | None = None) -> Image.Image:
    """A column of colour swatches with class names, for all classes or the given ones."""
    chosen = range(labels.num_classes) if classes is None else classes
    return swatches([(labels.palette[index], labels.class_names[index]) for index in chosen])


def swatches(entries: Sequence[tuple[Colour, str]]) -> Image.Image:
    """A column of (colour, name) entries."""
    font = font_of(14)
    names = [shorten(name, _TEXT_WIDTH, font) for _, name in entries]
    indent = _SWATCH + _GAP
    width = indent + max((math.ceil(font.getlength(name)) for name in names), default=0) + 1
    picture = Image.new("RGB", (width, max(1, _LINE * len(entries))), "white")
    draw = ImageDraw.Draw(picture)
    for line, (name, (colour, _)) in enumerate(zip(names, entries, strict=True)):
        top = line * _LINE + (_LINE - _SWATCH) // 2
        swatch = (0, top, _SWATCH - 1, top + _SWATCH - 1)
        draw.rectangle(swatch, fill=colour, outline=FAINT)
        draw.text((indent, line * _LINE + _LINE / 2), name, fill=INK, font=font, anchor="lm")
    return picture
