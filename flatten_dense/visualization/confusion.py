"""A confusion matrix as a picture, beside the worst confusions in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from flatten_dense.structures import Colour, LabelSpace
from flatten_dense.visualization.text import FAINT, INK, font_of, shorten

_RIGHT, _WRONG, _ABSENT = (8, 81, 156), (190, 18, 30), (226, 226, 226)
_MATRIX_SIDE, _LARGEST_CELL = 1500, 84
_NUMBERED_CELL, _NAMED_CELL = 36, 9
_NAME_WIDTH, _NAME_SIZE = 190, 15
_MARGIN, _HEADER, _LINE = 20, 66, 24
_MOST_ABSENT = 40
_MOST_LISTED, _LIST_WIDTH, _RATE_WIDTH, _COUNT_WIDTH = 60, 580, 80, 120
_KEY = (0.0, 0.01, 0.1, 0.5, 1.0)


class _Confusion(NamedTuple):
    rate: float
    number: int
    truth: int
    predicted: int


def confusion_picture(confusion: Tensor, labels: LabelSpace) -> Image.Image:
    """Draw how many pixels of each class were taken for which, as :func:`draw_confusion` does.

    Args:
        confusion: counted pixels, integers ``[K, K]``, or ``[K, K + 1]`` with a last column for pixels without a
            predicted class, which is drawn if it is not empty.
        labels: names of the K classes.

    Raises:
        ValueError: if the matrix does not fit the number of classes.
    """
    count = labels.num_classes
    if confusion.shape not in ((count, count), (count, count + 1)):
        raise ValueError(
            f"the confusion matrix is {tuple(confusion.shape)}, expected ({count}, {count} or {count + 1})"
        )
    columns = list(labels.class_names)
    if confusion.shape[1] > count and confusion[:, count].any():
        columns.append("(no class)")
    return draw_confusion(confusion[:, : len(columns)], labels.class_names, columns, "px")


def detection_confusion_picture(confusion: Tensor, class_names: Sequence[str]) -> Image.Image:
    """Draw how many objects of each class were taken for which or missed, as :func:`draw_confusion` does.

    Args:
        confusion: counted objects, integers ``[K + 1, K + 1]``: the last column for objects that were missed, the last
            row for detections where there is no object. More than 40 classes are drawn without those that occur
            neither in the truth nor in a detection.
        class_names: of the K classes.

    Raises:
        ValueError: if the matrix does not fit the number of classes.
    """
    count = len(class_names)
    if confusion.shape != (count + 1, count + 1):
        raise ValueError(f"the confusion matrix is {tuple(confusion.shape)}, expected {(count + 1, count + 1)}")
    kept = list(range(count))
    if count > _MOST_ABSENT:
        occurs = confusion.sum(0)[:count] + confusion.sum(1)[:count] > 0
        kept = occurs.nonzero().flatten().tolist()
    names = [class_names[index] for index in kept]
    drawn = confusion[[*kept, count]][:, [*kept, count]]
    return draw_confusion(drawn, [*names, "(no object)"], [*names, "(missed)"], "")


def draw_confusion(confusion: Tensor, rows: Sequence[str], columns: Sequence[str], unit: str) -> Image.Image:
    """Draw how much of each class was taken for which.

    A row is a true class, a column what was predicted, a cell's colour the share of the row: blue on the diagonal
    (right), red beside it (wrong). The scale is the square root of the share, so that a confusion of 1 % is still seen.
    Rows of classes without truth are grey. Beside the matrix stand the confusions with the largest shares.

    Args:
        confusion: counts, integers ``[N, M]``.
        rows: N names.
        columns: M names, the first of them the rows'.
        unit: of the counts.

    Returns:
        A picture about 2400 pixels wide at most. Every class is named up to about 160 classes, every n-th beyond.
    """
    confusion = confusion.cpu()
    shares = confusion.double() / confusion.sum(1, keepdim=True)

    cell = max(1, min(_LARGEST_CELL, _MATRIX_SIDE // len(rows)))
    matrix = _matrix(shares, cell)
    rows_names, columns_names = _names(rows, cell), _names(columns, cell).rotate(90, expand=True)
    left, top = _MARGIN + rows_names.width, _MARGIN + _HEADER
    height = max(top + matrix.height + columns_names.height, top + 12 * _LINE) + _MARGIN
    most = (height - top - _MARGIN) // _LINE - 1
    listed = _listed(_worst(confusion, shares), rows, columns, unit, most)
    picture = Image.new("RGB", (left + matrix.width + 2 * _MARGIN + listed.width + _MARGIN, height), "white")
    picture.paste(rows_names, (_MARGIN, top))
    picture.paste(matrix, (left, top))
    picture.paste(columns_names, (left, top + matrix.height))
    picture.paste(listed, (left + matrix.width + 2 * _MARGIN, top))
    _header(ImageDraw.Draw(picture))
    return picture


def _matrix(shares: Tensor, cell: int) -> Image.Image:
    diagonal = torch.eye(*shares.shape, dtype=torch.bool)[..., None]
    colours = torch.where(diagonal, _tint(shares, _RIGHT), _tint(shares, _WRONG))
    absent = shares.isnan().any(1)
    colours[absent] = torch.tensor(_ABSENT, dtype=torch.uint8)
    height, width = shares.shape
    picture = Image.fromarray(colours.numpy()).resize((width * cell, height * cell), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    if cell >= _NUMBERED_CELL:
        for row, column in (shares >= 0.005).nonzero().tolist():
            share = float(shares[row, column])
            draw.text(
                ((column + 0.5) * cell, (row + 0.5) * cell),
                f"{100 * share:.0f}",
                fill="white" if share > 0.3 else INK,
                font=font_of(14),
                anchor="mm",
            )
    draw.rectangle((0, 0, picture.width - 1, picture.height - 1), outline=FAINT)
    return picture


def _tint(shares: Tensor, colour: Colour) -> Tensor:
    strength = shares.nan_to_num(nan=0.0).sqrt()[..., None]
    return (255 + (torch.tensor(colour) - 255) * strength).round().to(torch.uint8)


def _names(names: Sequence[str], cell: int) -> Image.Image:
    """The names below one another, a cell's height apart; only every n-th where they would not fit."""
    every = -(-_NAMED_CELL // cell)
    font = font_of(min(_NAME_SIZE, max(cell, _NAMED_CELL) - 1))
    shown = [shorten(name, _NAME_WIDTH, font) for name in names[::every]]
    width = int(max(font.getlength(name) for name in shown)) + 8
    picture = Image.new("RGB", (width, cell * len(names)), "white")
    draw = ImageDraw.Draw(picture)
    for index, name in enumerate(shown):
        draw.text((width - 5, (index * every + 0.5) * cell), name, fill=INK, font=font, anchor="rm")
    return picture


def _worst(confusion: Tensor, shares: Tensor) -> list[_Confusion]:
    """Pairs of different classes that were confused, the largest share of the true class first."""
    wrong = confusion.clone()
    wrong.fill_diagonal_(0)
    pairs = [
        _Confusion(float(shares[truth, predicted]), int(wrong[truth, predicted]), truth, predicted)
        for truth, predicted in wrong.nonzero().tolist()
    ]
    return sorted(pairs, reverse=True)[:_MOST_LISTED]


def _listed(
    worst: Sequence[_Confusion], rows: Sequence[str], columns: Sequence[str], unit: str, most: int
) -> Image.Image:
    shown = worst[: max(1, most)]
    picture = Image.new("RGB", (_LIST_WIDTH, _LINE * (len(shown) + 1)), "white")
    draw, font = ImageDraw.Draw(picture), font_of(14)
    title = "largest confusions: truth → prediction" if shown else "nothing is confused"
    draw.text((0, _LINE / 2), title, fill=INK, font=font_of(15, bold=True), anchor="lm")
    for line, pair in enumerate(shown, start=1):
        middle = (line + 0.5) * _LINE
        text = f"{rows[pair.truth]} → {columns[pair.predicted]}"
        room = _LIST_WIDTH - _RATE_WIDTH - _COUNT_WIDTH
        draw.text((_RATE_WIDTH - 12, middle), f"{100 * pair.rate:.1f} %", fill=INK, font=font, anchor="rm")
        draw.text((_RATE_WIDTH, middle), shorten(text, room, font), fill=INK, font=font, anchor="lm")
        draw.text((_LIST_WIDTH, middle), f"{pair.number:,} {unit}".rstrip(), fill=FAINT, font=font, anchor="rm")
    return picture


def _header(draw: ImageDraw.ImageDraw) -> None:
    x, y = _MARGIN, _MARGIN
    draw.text((x, y), "rows: truth   columns: prediction   % of the row", fill=INK, font=font_of(15, bold=True))
    y += 30
    for meaning, colour in (("right", _RIGHT), ("wrong", _WRONG)):
        for share in _KEY:
            tint = tuple(_tint(torch.tensor(share), colour).tolist())
            draw.rectangle((x, y, x + 15, y + 15), fill=tint, outline=FAINT)
            x += 15
        draw.text((x + 6, y + 8), meaning, fill=INK, font=font_of(13), anchor="lm")
        x += 58
    draw.text((x, y + 8), "(0, 1, 10, 50, 100 %)", fill=FAINT, font=font_of(13), anchor="lm")
