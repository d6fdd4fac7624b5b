"""Scores of classification: a confusion matrix, and how often the truth is among the first five."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from flatten_dense.metrics.confusion import confusion_matrix
from flatten_dense.metrics.plain_numbers import number_or_none

_NO_LABEL = -1


class ClassificationScores(NamedTuple):
    """Scores as fractions, 0..1; NaN where there is nothing to divide by.

    Attributes:
        top1: fraction of the images whose most probable class is the true one.
        top5: fraction of the images whose true class is among the five most probable; 1 for five classes or fewer.
        confusion: int64 ``[K, K]``, images by true class (row) and predicted class (column).
    """

    top1: float
    top5: float
    confusion: Tensor

    @property
    def main(self) -> float:
        """The score by which evaluations are compared: top-1."""
        return self.top1

    @property
    def accuracy(self) -> Tensor:
        """float64 ``[K]``, fraction of each class's images that are right; NaN for a class without images."""
        return self.confusion.diagonal().double() / self.confusion.sum(1).double()

    @property
    def precision(self) -> Tensor:
        """float64 ``[K]``, fraction of the images given each class that are right; NaN for a class never given."""
        return self.confusion.diagonal().double() / self.confusion.sum(0).double()


class ClassificationConfusion(Metric):
    """Count images by true and predicted class, and score the sum, exactly and however many processes share the set.

    Args:
        num_classes: K.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor
    among_five: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        empty = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", default=empty, dist_reduce_fx="sum")
        self.add_state("among_five", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add images to the counts.

        Args:
            logits: ``[B, K]``, or probabilities.
            target: ``[B]``, class indices.

        Raises:
            ValueError: if a label is none of the classes, or a logit is not a number.
        """
        if logits.isnan().any():
            raise ValueError("the model gives NaN instead of logits: its training has diverged")
        first = logits.topk(min(5, self.num_classes), dim=1).indices
        counts = confusion_matrix(first[:, 0], target, self.num_classes, ignore_index=_NO_LABEL)
        self.confusion += counts[:, : self.num_classes]
        self.among_five += (first == target[:, None]).sum()

    def compute(self) -> ClassificationScores:
        """Score everything counted since the last reset."""
        confusion = self.confusion.to("cpu", copy=True)
        total = int(confusion.sum())
        top1, top5 = (
            int(right) / total if total else math.nan for right in (confusion.diagonal().sum(), self.among_five)
        )
        return ClassificationScores(top1, top5, confusion)


def classification_rows(scores: ClassificationScores, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class, in their order.

    Returns:
        Rows of ``class``; ``accuracy`` and ``precision`` as fractions, None where there is none; ``images`` of the
        class and ``predicted``, how many were taken for it.
    """
    columns = {
        "class": class_names,
        "accuracy": [*map(number_or_none, scores.accuracy.tolist())],
        "precision": [*map(number_or_none, scores.precision.tolist())],
        "images": scores.confusion.sum(1).tolist(),
        "predicted": scores.confusion.sum(0).tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def classification_as_dict(scores: ClassificationScores, class_names: Sequence[str]) -> dict[str, Any]:
    """The scores as JSON holds them: ``top1``, ``top5``, ``images`` and ``per_class`` by name."""
    rows = classification_rows(scores, class_names)
    per_class = {row["class"]: {key: row[key] for key in row if key != "class"} for row in rows}
    top1, top5 = map(number_or_none, (scores.top1, scores.top5))
    return {"top1": top1, "top5": top5, "images": int(scores.confusion.sum()), "per_class": per_class}


def describe_classification(metrics: dict[str, Any]) -> str:
    """What :func:`classification_as_dict` gives, as a table in percent for a terminal; of many classes the worst."""
    most = 30
    classes = list(metrics["per_class"].items())
    lines = []
    if len(classes) > most:
        classes = sorted(classes, key=lambda item: math.inf if item[1]["accuracy"] is None else item[1]["accuracy"])
        classes = classes[:most]
        lines.append(f"the {most} worst of {len(metrics['per_class'])} classes; per_class.csv has all")
    width = max(len(name) for name, _ in classes)
    lines.append(f"{'':{width}}  accuracy %  precision %  images")
    for name, own in classes:
        accuracy, precision = _percent(own["accuracy"], 10), _percent(own["precision"], 11)
        lines.append(f"{name:{width}}  {accuracy}  {precision}  {own['images']:6}")
    top1, top5 = _percent(metrics["top1"], 0), _percent(metrics["top5"], 0)
    lines.append(f"top-1 {top1} %, top-5 {top5} % of {metrics['images']} images")
    return "\n".join(lines)


def _percent(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(100 * value, '.1f'):>{width}}"
