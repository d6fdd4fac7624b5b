"""Sheets of photos with their truth, prediction and errors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from flatten_dense.structures import LabelSpace
from flatten_dense.visualization.layout import Row, lay_out
from flatten_dense.visualization.legend import swatches
from flatten_dense.visualization.masks import colorize
from flatten_dense.visualization.text import WRONG

_IGNORED = (120, 120, 120)
_COLUMNS = ("photo", "truth", "prediction", "errors")
_MOST_ROWS = 8
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
    for _, truth, prediction in samples:
        if prediction.shape != truth.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in size")
    key = _sheet_legend([mask for _, *masks in samples for mask in masks], labels)
    rows = [
        Row(
            (truth.shape[0], truth.shape[1]),
            partial(_panels, image, truth, prediction, labels),
            names[number],
            notes[number] if notes else describe_errors(truth, prediction, labels.ignore_index),
        )
        for number, (image, truth, prediction) in enumerate(samples)
    ]
    return lay_out(_COLUMNS, rows, key)


def describe_errors(truth: Tensor, prediction: Tensor, ignore_index: int) -> str:
    """How many of the labelled pixels of one image are wrong, in words; masks as for :func:`prediction_sheet`."""
    labelled = truth != ignore_index
    total = int(labelled.sum())
    wrong = int(((prediction != truth) & labelled).sum())
    return f"{wrong / total:.1%} wrong" if total else "not labelled"


def _panels(
    image: Tensor, truth: Tensor, prediction: Tensor, labels: LabelSpace, cell: tuple[int, int]
) -> list[Image.Image]:
    """The four pictures of a row, at the masks' own size whatever the cell's."""
    if image.shape[-2:] != truth.shape:
        resized = F.interpolate(image[None].float(), size=truth.shape, mode="bilinear", antialias=True)
        image = resized[0].round().clamp(0, 255).to(torch.uint8)
    ignored = truth == labels.ignore_index
    wrong = (prediction != truth) & ~ignored
    pale = 255 - (255 - image.float().mean(0, keepdim=True).expand(3, -1, -1)) * 0.25
    errors = torch.where(ignored, torch.tensor(_IGNORED).view(3, 1, 1), pale)
    errors = torch.where(wrong, torch.tensor(WRONG).view(3, 1, 1), errors).to(torch.uint8)
    pictures = (image, colorize(truth, labels), colorize(prediction, labels), errors)
    return [Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pictures]


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
    return swatches([*entries, ((0, 0, 0), "ignored (truth)"), (_IGNORED, "ignored (errors)"), (WRONG, "wrong")])
