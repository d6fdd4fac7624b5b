"""Figures from tensors and tables: no logger, no Lightning."""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

import matplotlib
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from flatten_dense.structures import LabelSpace

_Curves: TypeAlias = dict[str, tuple[list[float], list[float]]]

_IS_RATE = re.compile(r"(^|/)lr\b")
_WRONG = (214, 24, 31)
_IGNORED = (120, 120, 120)
_INK = (34, 34, 34)
_FAINT = (110, 110, 110)

_COLUMNS = ("photo", "truth", "prediction", "errors")
_LARGEST_SIDE = 2000
_CELL_WIDTH = (256, 420)
_TALLEST_CELL = 1.5
_MOST_ROWS = 8
_MARGIN, _GAP, _HEADER, _CAPTION = 16, 8, 30, 24

_LEGEND_LINE, _LEGEND_SWATCH, _LEGEND_TEXT_WIDTH, _LEGEND_ENTRIES = 24, 16, 170, 40


def colorize(mask: Tensor, labels: LabelSpace) -> Tensor:
    """Paint each class in its colour: int64 ``[H, W]`` -> uint8 ``[3, H, W]``, ignored pixels black.

    Raises:
        ValueError: if the mask holds anything but the classes and the ignored index.
    """
    is_class = (mask >= 0) & (mask < labels.num_classes)
    strange = mask[~is_class & (mask != labels.ignore_index)]
    if strange.numel():
        raise ValueError(
            f"the mask holds {int(strange[0])}, expected 0..{labels.num_classes - 1} or {labels.ignore_index} (ignored)"
        )
    colours = torch.tensor([*labels.palette, (0, 0, 0)], dtype=torch.uint8, device=mask.device)
    return colours[torch.where(is_class, mask, labels.num_classes)].permute(2, 0, 1)


def overlay(image: Tensor, mask: Tensor, labels: LabelSpace, alpha: float = 0.5) -> Tensor:
    """Lay the colours of a mask over its photo; where the mask is ignored the photo stays as it is.

    Args:
        image: uint8 ``[3, H, W]``.
        mask: int64 ``[H, W]``, of the same size.
        labels: meaning and colour of the mask's values.
        alpha: 0 shows the photo alone, 1 the colours alone.

    Returns:
        uint8 ``[3, H, W]``.

    Raises:
        ValueError: if the sizes differ or ``alpha`` is outside 0..1.
    """
    if image.shape[-2:] != mask.shape:
        raise ValueError(f"image {tuple(image.shape)} and mask {tuple(mask.shape)} differ in size")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, got {alpha}")
    blend = (image * (1 - alpha) + colorize(mask, labels) * alpha).round().to(torch.uint8)
    return torch.where(mask == labels.ignore_index, image, blend)


def legend(labels: LabelSpace, classes: Sequence[int] | None = None) -> Image.Image:
    """A column of colour swatches with class names, for all classes or the given ones."""
    chosen = range(labels.num_classes) if classes is None else classes
    return _legend([(labels.palette[index], labels.class_names[index]) for index in chosen])


def prediction_sheet(
    images: Sequence[Tensor],
    truths: Sequence[Tensor],
    predictions: Sequence[Tensor],
    labels: LabelSpace,
    titles: Sequence[str] | None = None,
    max_rows: int = 4,
) -> Image.Image:
    """One row per image: photo, truth, prediction, and what is wrong in red; beside them a legend.

    Args:
        images: photos, uint8 ``[3, h, w]`` of any size; each is brought to its truth's size.
        truths: int64 ``[H, W]``, ignored pixels included.
        predictions: int64 ``[H, W]``, of the truth's size.
        labels: names and colours; of more than 40 classes the legend names those that cover most pixels shown.
        titles: a caption for each row, such as the file's name.
        max_rows: how many of the images to show, 8 at most.

    Returns:
        A picture of at most 2000 pixels a side.

    Raises:
        ValueError: if there is nothing to show, the sequences differ in length, or a prediction in size from its truth.
    """
    names = [""] * len(images) if titles is None else titles
    if not images or not len(images) == len(truths) == len(predictions) == len(names):
        raise ValueError(
            f"a sheet needs as many truths, predictions and titles as images, and at least one; got {len(images)} "
            f"images, {len(truths)} truths, {len(predictions)} predictions, {len(names)} titles"
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
        draw.text((x + width / 2, _MARGIN), name, fill=_INK, font=_font(17, bold=True), anchor="ma")
    sheet.paste(key, (left[-1] + width + _MARGIN, _MARGIN))
    top = _MARGIN + _HEADER
    for (image, truth, prediction), name, height in zip(samples, names, heights, strict=False):
        panels, wrong = _panels(image, truth, prediction, labels)
        caption = _shorten(name, 3 * width, _font(14))
        draw.text((left[0], top), caption, fill=_FAINT, font=_font(14), anchor="la")
        draw.text(
            (left[-1] + width, top),
            "not labelled" if math.isnan(wrong) else f"{wrong:.1%} wrong",
            fill=_FAINT,
            font=_font(14),
            anchor="ra",
        )
        for x, panel in zip(left, panels, strict=True):
            _paste_fitting(sheet, panel, (x, top + _CAPTION, width, height))
        top += _CAPTION + height + _GAP
    return sheet


def plot_curves(rows: Sequence[Mapping[str, str | float]] | str | Path, path: str | Path) -> None:
    """Draw loss, validation mIoU and learning rate against the step into one PNG.

    Columns are found by name: losses contain ``loss``, the score ends in ``mIoU``, learning rates are called ``lr``, as
    in ``train/lr`` or ``lr-AdamW``.
    Blank and non-finite cells are passed over; where a resumed run repeats a step, its later row counts.

    Args:
        rows: a run's ``metrics.csv``, or its rows, each with a ``step``.
        path: the PNG to write.
    """
    if isinstance(rows, str | Path):
        with Path(rows).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    curves = _curves(rows)
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    _draw_losses(loss, {name: points for name, points in curves.items() if "loss" in name.lower()})
    _draw_scores(score, {name: points for name, points in curves.items() if name.lower().endswith("miou")})
    _draw_rates(rate, {name: points for name, points in curves.items() if _IS_RATE.search(name.lower())})
    rate.set_xlabel("step")
    for axes, title in ((loss, "loss"), (score, "mIoU"), (rate, "learning rate")):
        axes.set_title(title, loc="left", fontweight="bold")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False)
        else:
            axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", va="center", color="grey")
    figure.savefig(path, format="png", dpi=110)


def _panels(
    image: Tensor, truth: Tensor, prediction: Tensor, labels: LabelSpace
) -> tuple[tuple[Image.Image, ...], float]:
    """The four pictures of a row, and the fraction of labelled pixels that are wrong (NaN where none is labelled)."""
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
    labelled = int((~ignored).sum())
    fraction = int(wrong.sum()) / labelled if labelled else math.nan
    return tuple(Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()) for picture in pictures), fraction


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
    return _legend([*entries, ((0, 0, 0), "ignored (truth)"), (_IGNORED, "ignored (errors)"), (_WRONG, "wrong")])


def _legend(entries: Sequence[tuple[tuple[int, int, int], str]]) -> Image.Image:
    font = _font(14)
    names = [_shorten(name, _LEGEND_TEXT_WIDTH, font) for _, name in entries]
    indent = _LEGEND_SWATCH + _GAP
    width = indent + max((math.ceil(font.getlength(name)) for name in names), default=0) + 1
    picture = Image.new("RGB", (width, max(1, _LEGEND_LINE * len(entries))), "white")
    draw = ImageDraw.Draw(picture)
    for line, (name, (colour, _)) in enumerate(zip(names, entries, strict=True)):
        top = line * _LEGEND_LINE + (_LEGEND_LINE - _LEGEND_SWATCH) // 2
        swatch = (0, top, _LEGEND_SWATCH - 1, top + _LEGEND_SWATCH - 1)
        draw.rectangle(swatch, fill=colour, outline=_FAINT)
        draw.text((indent, line * _LEGEND_LINE + _LEGEND_LINE / 2), name, fill=_INK, font=font, anchor="lm")
    return picture


def _shorten(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= width:
        return text
    longest = bisect_right(range(len(text)), width, key=lambda length: font.getlength(text[:length] + "…")) - 1
    return text[: max(0, longest)] + "…"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib's own font is there on every machine and has more alphabets than Pillow's.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _curves(rows: Sequence[Mapping[str, str | float]]) -> _Curves:
    """Every column as (steps, values), in order of steps."""
    columns: dict[str, dict[float, float]] = {}
    for row in rows:
        step = _number(row.get("step"))
        if step is None:
            continue
        for name, cell in row.items():
            value = _number(cell)
            if value is not None:
                columns.setdefault(name, {})[step] = value
    ordered = {name: sorted(points.items()) for name, points in columns.items()}
    return {name: ([s for s, _ in points], [v for _, v in points]) for name, points in ordered.items()}


def _number(cell: str | float | None) -> float | None:
    try:
        value = float(cell) if cell is not None else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _draw_losses(axes: Axes, curves: _Curves) -> None:
    for name, (steps, values) in curves.items():
        noisy = len(values) > 40
        style = {"alpha": 0.3} if noisy else {"marker": ".", "label": name}
        (line,) = axes.plot(steps, values, linewidth=1, **style)
        if noisy:
            axes.plot(steps, _smooth(values), color=line.get_color(), linewidth=1.8, label=f"{name} (smoothed)")


def _draw_scores(axes: Axes, curves: _Curves) -> None:
    for name, (steps, values) in curves.items():
        best = max(range(len(values)), key=values.__getitem__)
        label = f"{name}: best {values[best]:.3f} at step {steps[best]:.0f}"
        (line,) = axes.plot(steps, values, marker=".", label=label)
        axes.plot(steps[best], values[best], marker="o", color=line.get_color(), markersize=8)
    if curves:
        axes.set_ylim(0, 1.1 * max(max(values) for _, values in curves.values()) or 1)


def _draw_rates(axes: Axes, curves: _Curves) -> None:
    drawn: list[tuple[list[float], list[float]]] = []
    for name, points in curves.items():
        # Parameter groups that differ only in weight decay share one curve.
        if points not in drawn:
            axes.plot(*points, label=name)
            drawn.append(points)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a twentieth of the curve: no lag, and shorter at the ends."""
    reach = max(1, len(values) // 40)
    sums = [0.0, *accumulate(values)]
    windows = ((max(0, index - reach), min(len(values), index + reach + 1)) for index in range(len(values)))
    return [(sums[end] - sums[start]) / (end - start) for start, end in windows]
