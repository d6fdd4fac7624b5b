"""Objects on a photo: boxes, masks, names and scores, of a prediction or of the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from flatten_dense.structures import RLE, Colour, DetectionLabels, Detections
from flatten_dense.visualization.instance_masks import hatch_box, hatch_mask, paint_mask
from flatten_dense.visualization.tags import place_tags
from flatten_dense.visualization.text import WRONG, font_of, shorten

MIN_SCORE = 0.3
"""Detections below are not drawn: a model gives up to a hundred for each image, most of them guesses."""

_SMALLEST_SIDE = 480
_CROSS = "✗"
_SHADES = (0.0, -0.35, 0.35)


class _Object(NamedTuple):
    """What is drawn: box in pixels of the picture, colour of this instance, texts of the tag, longest first."""

    box: tuple[float, float, float, float]
    colour: Colour
    texts: tuple[str, ...]
    mask: RLE | None
    is_marked: bool
    is_crowd: bool = False


def draw_detections(
    image: Tensor,
    detections: Detections,
    labels: DetectionLabels,
    min_score: float = MIN_SCORE,
    image_size: tuple[int, int] | None = None,
    picture_size: tuple[int, int] | None = None,
    wrong: Sequence[bool] | None = None,
) -> Image.Image:
    """Draw what was found in a photo: boxes, translucent masks, names and scores.

    Args:
        image: uint8 ``[3, h, w]``.
        detections: boxes and masks in pixels of an image of ``image_size``.
        labels: names and colours. Objects of one class differ in shade.
        min_score: those below are left out.
        image_size: (H, W) that boxes and masks refer to; None is the photo's own.
        picture_size: (H, W) of the picture; None is the photo's own, a small photo enlarged so that names fit in.
        wrong: for each detection, whether it is marked as wrong.
    """
    shades = _Shades(labels)
    objects = [
        _Object(
            tuple(box),
            shades.of(label),
            (f"{labels.class_names[label]} {score:.2f}", f"{score:.2f}"),
            detections.masks[index] if detections.masks else None,
            bool(wrong and wrong[index]),
        )
        for index, (box, label, score) in enumerate(
            zip(detections.boxes.tolist(), detections.labels.tolist(), detections.scores.tolist(), strict=True)
        )
        if score >= min_score
    ]
    return _draw(image, objects, image_size, picture_size)


def draw_truth(
    image: Tensor,
    truth: Mapping[str, Any],
    labels: DetectionLabels,
    image_size: tuple[int, int] | None = None,
    picture_size: tuple[int, int] | None = None,
    missed: Sequence[bool] | None = None,
) -> Image.Image:
    """Draw the objects of a photo as they are annotated; crowds are hatched, with a dashed box.

    Args:
        image: as for :func:`draw_detections`, like all that is not said here.
        truth: ``boxes`` ``[N, 4]``, ``labels`` ``[N]``, ``iscrowd`` ``[N]`` and, where there are any, N ``masks``.
        labels: names and colours.
        image_size: (H, W) that boxes and masks refer to.
        picture_size: (H, W) of the picture.
        missed: for each object, whether it is marked as missed.
    """
    shades = _Shades(labels)
    masks = truth.get("masks")
    objects = [
        _Object(
            tuple(box),
            shades.of(label),
            (f"{labels.class_names[label]}{' (crowd)' if is_crowd else ''}",),
            masks[index] if masks is not None else None,
            bool(missed and missed[index]),
            bool(is_crowd),
        )
        for index, (box, label, is_crowd) in enumerate(
            zip(truth["boxes"].tolist(), truth["labels"].tolist(), truth["iscrowd"].tolist(), strict=True)
        )
    ]
    return _draw(image, objects, image_size, picture_size)


class _Shades:
    """The class's colour for its first object in an image, a darker and a lighter one for the next."""

    def __init__(self, labels: DetectionLabels) -> None:
        self._labels = labels
        self._seen: dict[int, int] = {}

    def of(self, label: int) -> Colour:
        number = self._seen[label] = self._seen.get(label, -1) + 1
        shade = _SHADES[number % len(_SHADES)]
        red, green, blue = (
            round(channel + shade * (255 - channel if shade > 0 else channel))
            for channel in self._labels.palette[label]
        )
        return red, green, blue


def _draw(
    image: Tensor,
    objects: list[_Object],
    image_size: tuple[int, int] | None,
    picture_size: tuple[int, int] | None,
) -> Image.Image:
    height, width = picture_size or _readable_size(image.shape[-2], image.shape[-1])
    down, across = (side / other for side, other in zip((height, width), image_size or image.shape[-2:], strict=True))
    boxes = np.array([item.box for item in objects]).reshape(-1, 4) * (across, down, across, down)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    photo = Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy())
    if photo.size != (width, height):
        photo = photo.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    # Text that grows less than the picture is readable both in a thumbnail and in a large photo seen whole.
    # Where there are many objects it is smaller.
    crowding = min(1.0, max(0.72, 1.1 - len(objects) / 80))
    text_size = max(9, round(0.23 * crowding * math.sqrt(height * width) ** 0.65))
    line = max(1, round(text_size / 6))

    # The large below the small, which they would hide.
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable").tolist()
    pixels = np.array(photo)
    for index in order:
        _paint(pixels, objects[index], boxes[index], line)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for index in order:
        _frame(draw, objects[index], boxes[index], line)
    _write_tags(draw, objects, boxes, text_size)
    return picture


def _readable_size(height: int, width: int) -> tuple[int, int]:
    factor = max(1, math.ceil(_SMALLEST_SIDE / max(height, width)))
    return height * factor, width * factor


def _paint(pixels: NDArray[np.uint8], item: _Object, box: NDArray[np.float64], line: int) -> None:
    if item.is_crowd and item.mask is not None:
        hatch_mask(pixels, item.mask, item.colour, line)
    elif item.is_crowd:
        left, top, right, bottom = box.round().astype(int).tolist()
        hatch_box(pixels, (left, top, right, bottom), item.colour, line)
    elif item.mask is not None:
        paint_mask(pixels, item.mask, item.colour, line)


def _frame(draw: ImageDraw.ImageDraw, item: _Object, box: NDArray[np.float64], line: int) -> None:
    left, top, right, bottom = box.round().astype(int).tolist()
    # The last row and column of a box are inside of it; a box without area is still seen as a line.
    right, bottom = max(left, right - 1), max(top, bottom - 1)
    if item.is_crowd:
        _dashed(draw, (left, top, right, bottom), item.colour, line)
        return
    if item.is_marked:
        reach = line + 1
        draw.rectangle((left - reach, top - reach, right + reach, bottom + reach), outline=WRONG, width=reach)
    draw.rectangle((left, top, right, bottom), outline=item.colour, width=line)


def _dashed(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour: Colour, line: int) -> None:
    left, top, right, bottom = box
    dash = 5 * line
    for x in range(left, right + 1, 2 * dash):
        for y in (top, max(top, bottom - line + 1)):
            draw.rectangle((x, y, min(x + dash, right), y + line - 1), fill=colour)
    for y in range(top, bottom + 1, 2 * dash):
        for x in (left, max(left, right - line + 1)):
            draw.rectangle((x, y, x + line - 1, min(y + dash, bottom)), fill=colour)


def _write_tags(
    draw: ImageDraw.ImageDraw, objects: Sequence[_Object], boxes: NDArray[np.float64], text_size: int
) -> None:
    picture_width, picture_height = draw.im.size
    font, padding = font_of(text_size), max(1, text_size // 6)
    height = text_size + 2 * padding
    texts = [[shorten(text, 0.5 * picture_width, font) for text in item.texts] for item in objects]
    badges = [height if item.is_marked else 0 for item in objects]
    sizes = [
        [(math.ceil(font.getlength(text)) + 2 * padding + badge, height) for text in forms]
        + [(badge, height)] * bool(badge)
        for forms, badge in zip(texts, badges, strict=True)
    ]
    places = place_tags(boxes, sizes, (picture_height, picture_width))
    for item, forms, badge, size, place in zip(objects, texts, badges, sizes, places, strict=True):
        if place is None:
            continue
        form, x, y = place
        width, _ = size[form]
        if badge:
            draw.rectangle((x, y, x + badge - 1, y + height - 1), fill=WRONG)
            draw.text((x + badge / 2, y + height / 2), _CROSS, fill="white", font=font, anchor="mm")
        if form < len(forms):
            draw.rectangle((x + badge, y, x + width - 1, y + height - 1), fill=item.colour)
            ink = "black" if _is_light(item.colour) else "white"
            draw.text((x + badge + padding, y + height / 2), forms[form], fill=ink, font=font, anchor="lm")


def _is_light(colour: Colour) -> bool:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
