"""Sheets of photos with their truth, prediction and errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from flatten_dense.structures import LabelSpace
from flatten_dense.visualization.legend import swatches
from flatten_dense.visualization.masks import colorize
from flatten_dense.visualization.text import FAINT, INK, font_of, shorten

_WRONG = (214, 24, 31)
_IGNORED = (120, 120, 120)
_COLUMNS = ("photo", "truth", "prediction", "errors")
_LARGEST_SIDE = 2000
_CELL_WIDTH = (256, 420)
_TALLEST_CELL = 1.5
_MOST_ROWS = 8
_MARGIN, _GAP, _HEADER, _CAPTION = 16, 8, 30, 24
_LEGEND_ENTRIES = 40


def prediction_sheet(
    images: Sequence[Tensor],
    truths: Sequence[Tensor],
    predictions: Sequence[Tensor],
    labels: LabelSpace,
    titles: Sequence[str] | None = None,
    max_rows: int = 4,
    notes: Sequence[str] | None = None,
) -> Image.Image:
    """One row per image: photo, truth, prediction, and what is wrong in red; beside them a legend.

    Args:
        images: photos, uint8 ``[3, h, w]`` of any size; each is brought to its truth's size.
        truths: int64 ``[H, W]``, ignored pixels included.
        predictions: int64 ``[H, W]``, of the truth's size.
        labels: names and colours; of more than 40 classes the legend names those that cover most pixels shown.
        titles: a caption for each row, such as the file's name.
        max_rows: how many of the images to show, 8 at most.
        notes: what to say at the right of each row; None says how many of its labelled pixels are wrong.

    Returns:
        A picture of at most 2000 pixels a side.

    Raises:
        ValueError: if there is nothing to show, the sequences differ in length, or a prediction in size from its truth.
    """
    names = [""] * len(images) if titles is None else titles
    lengths = {len(truths), len(predictions), len(names), len(names if notes is None else notes)}
    if not images or lengths != {len(images)}:
        raise ValueError(
            f"a sheet needs as many truths, predictions, titles and notes as images, and at least one; got "
            f"{len(images)} images, {len(truths)} truths, {len(predictions)} predictions, {len(names)} titles"
        )
    count = max(1, min(max_rows, _MOST_ROWS, len(images)))
    samples = [
        (image.cpu(), truth.cpu(), prediction.cpu())
        for image, truth, prediction in zip(images[:count], truths[:count], predictions[:count], strict=True)
    ]
    key = _sheet_legend([mask for _, *masks in samples for mask in masks], labels)
    aspects = [min(_TALLEST_CELL, truth.shape[0] / truth.shape[1]) for _, truth, _ in samples]
    width = _cell_width(aspects, max(truth.shape[1] for _, truth, _ in samples), key.width)
    heights = [max(1, int(width * aspect)) for aspect in aspects]

    left = [_MARGIN + column * (width + _GAP) for column in range(len(_COLUMNS))]
    rows_height = sum(heights) + count * (_CAPTION + _GAP)
    sheet_height = 2 * _MARGIN + max(_HEADER + rows_height, key.height)
    sheet = Image.new("RGB", (left[-1] + width + 2 * _MARGIN + key.width, sheet_height), "white")
    draw = ImageDraw.Draw(sheet)
    for x, name in zip(left, _COLUMNS, strict=True):
        draw.text((x + width / 2, _MARGIN), name, fill=INK, font=font_of(17, bold=True), anchor="ma")
    sheet.paste(key, (left[-1] + width + _MARGIN, _MARGIN))
    top = _MARGIN + _HEADER
    for row, ((image, truth, prediction), height) in enumerate(zip(samples, heights, strict=True)):
        panels = _panels(image, truth, prediction, labels)
        caption = shorten(names[row], 3 * width, font_of(14))
        draw.text((left[0], top), caption, fill=FAINT, font=font_of(14), anchor="la")
        note = notes[row] if notes else describe_errors(truth, prediction, labels.ignore_index)
        draw.text((left[-1] + width, top), note, fill=FAINT, font=font_of(14), anchor="ra")
        for x, panel in zip(left, panels, strict=True):
            _paste_fitting(sheet, panel, (x, top + _CAPTION, width, height))
        top += _CAPTION + height + _GAP
    return sheet


def describe_errors(truth: Tensor, prediction: Tensor, ignore_index: int) -> str:
    """How many of the labelled pixels of one image are wrong, in words; masks as for :func:`prediction_sheet`."""
    labelled = truth != ignore_index
    total = int(labelled.sum())
    wrong = int(((prediction != truth) & labelled).sum())
    return f"{wrong / total:.1%} wrong" if total else "not labelled"


def _panels(image: Tensor, truth: Tensor, prediction: Tensor, labels: LabelSpace) -> list[Image.Image]:
    """The four pictures of a row."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in size")
    if image.shape[-2:] != truth.shape:
        resized = F.interpolate(image[None].float(), size=truth.shape, mode="bilinear", antialias=True)
        image = resized[0].round().clamp(0, 255).to(torch.uint8)
    ignored = truth == labels.ignore_index
    wrong = (prediction != truth) & ~ignored
    pale = 255 - (255 - image.float().mean(0, keepdim=True).expand(3, -1, -1)) * 0.25
    errors = torch.where(ignored, torch.tensor(_IGNORED).view(3, 1, 1), pale)
    errors = torch.where(wrong, torch.tensor(_WRONG).view(3, 1, 1), errors).to(torch.uint8)
    pictures = (image, colorize(truth, labels), colorize(prediction, labels), errors)
    return [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pictures]


def _cell_width(aspects: Sequence[float], native_width: int, legend_width: int) -> int:
    """The width at which the sheet is neither larger than it may be nor much larger than the pictures are."""
    across = (_LARGEST_SIDE - 3 * _MARGIN - 3 * _GAP - legend_width) / len(_COLUMNS)
    down = (_LARGEST_SIDE - 2 * _MARGIN - _HEADER - len(aspects) * (_CAPTION + _GAP)) / sum(aspects)
    smallest, largest = _CELL_WIDTH
    return int(min(max(smallest, min(native_width, largest)), across, down))


def _paste_fitting(sheet: Image.Image, picture: Image.Image, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Nearest keeps an enlarged mask's pixels crisp; a box average keeps thin things visible when shrinking.
    resized = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    sheet.paste(resized, (x + (width - size[0]) // 2, y + (height - size[1]) // 2))


def _sheet_legend(masks: Sequence[Tensor], labels: LabelSpace) -> Image.Image:
    classes = list(range(labels.num_classes))
    if len(classes) > _LEGEND_ENTRIES:
        pixels = torch.zeros(labels.num_classes, dtype=torch.int64)
        for mask in masks:
            shown = mask[(mask >= 0) & (mask < labels.num_classes)]
            pixels += torch.bincount(shown, minlength=labels.num_classes)
        most = pixels.argsort(descending=True, stable=True)[:_LEGEND_ENTRIES].tolist()
        classes = sorted(index for index in most if pixels[index] > 0)
    entries = [(labels.palette[index], labels.class_names[index]) for index in classes]
    return swatches([*entries, ((0, 0, 0), "ignored (truth)"), (_IGNORED, "ignored (errors)"), (_WRONG, "wrong")])
