"""Sheets of photos with the objects they show beside those that were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from flatten_dense.structures import DetectionLabels, Detections
from flatten_dense.visualization.boxes import MIN_SCORE, draw_detections, draw_truth
from flatten_dense.visualization.layout import Row, lay_out
from flatten_dense.visualization.legend import swatches
from flatten_dense.visualization.text import WRONG

_COLUMNS = ("truth   (✗ missed)", "prediction   (✗ no such object there)")
_CELL_WIDTH, _TALLEST, _LARGEST_SIDE = (400, 720), 1.1, 2600
_LEGEND_ENTRIES = 40


class DetectionSample(NamedTuple):
    """A photo, its objects, and what was found.

    Attributes:
        photo: uint8 ``[3, h, w]``.
        image_size: (H, W) that boxes and masks refer to.
        truth: as :func:`flatten_dense.visualization.draw_truth` takes it.
        detections: by falling score.
        missed: for each object of the truth, whether it was not found.
        wrong: for each detection, whether there is no such object.
        title: such as the file's name.
    """

    photo: Tensor
    image_size: tuple[int, int]
    truth: Mapping[str, Any]
    detections: Detections
    missed: Sequence[bool]
    wrong: Sequence[bool]
    title: str


def detection_sheet(
    samples: Sequence[DetectionSample], labels: DetectionLabels, min_score: float = MIN_SCORE
) -> Image.Image:
    """One row per image: its objects, and beside them what was found, with scores; missed and wrong ones marked.

    Args:
        samples: at least one.
        labels: names and colours; the legend names the classes shown, at most 40.
        min_score: detections below are not drawn.

    Returns:
        A picture of at most 2600 pixels a side.
    """
    rows = []
    for sample in samples:
        height, width = sample.image_size
        note = describe_detections(sample, min_score)
        rows.append(Row((height, width), partial(_panels, sample, labels, min_score), sample.title, note))
    return lay_out(_COLUMNS, rows, _legend(samples, labels, min_score), _CELL_WIDTH, _TALLEST, _LARGEST_SIDE)


def describe_detections(sample: DetectionSample, min_score: float = MIN_SCORE) -> str:
    """How many objects were found, and how many of those drawn are wrong, in words."""
    crowds = sample.truth["iscrowd"].tolist()
    objects = len(crowds) - sum(crowds)
    missed = sum(bool(miss) for miss, crowd in zip(sample.missed, crowds, strict=True) if not crowd)
    scores = sample.detections.scores.tolist()
    drawn = sum(score >= min_score for score in scores)
    wrong = sum(bool(mistake) for mistake in sample.wrong[:drawn])
    found = f"{objects - missed} of {objects} found" if objects else "no objects"
    if scores and not drawn:
        return f"{found}, no score reaches {min_score:.2f}, the best is {scores[0]:.2f}"
    return f"{found}, {wrong} wrong"


def _panels(
    sample: DetectionSample, labels: DetectionLabels, min_score: float, cell: tuple[int, int]
) -> list[Image.Image]:
    """Both pictures, drawn at the size at which they are shown: text and lines are not scaled."""
    height, width = sample.image_size
    scale = min(cell[0] / height, cell[1] / width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    truth = draw_truth(sample.photo, sample.truth, labels, sample.image_size, size, sample.missed)
    detections = draw_detections(
        sample.photo, sample.detections, labels, min_score, sample.image_size, size, sample.wrong
    )
    return [truth, detections]


def _legend(samples: Sequence[DetectionSample], labels: DetectionLabels, min_score: float) -> Image.Image:
    counts = [0] * labels.num_classes
    for sample in samples:
        drawn = sample.detections.labels[sample.detections.scores >= min_score]
        for label in [*sample.truth["labels"].tolist(), *drawn.tolist()]:
            counts[label] += 1
    most = sorted(range(labels.num_classes), key=lambda label: -counts[label])[:_LEGEND_ENTRIES]
    entries = [(labels.palette[label], labels.class_names[label]) for label in sorted(most) if counts[label]]
    return swatches([*entries, (WRONG, "✗ missed or wrong")])
