"""Scores of semantic segmentation, all read off one confusion matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

PROTOCOL = "mmseg"
"""The protocol's name: pixels summed over the whole set, then the nan-mean over classes (no mean over images)."""


class SegmentationScores(NamedTuple):
    """Scores as fractions, 0..1; NaN where there is nothing to divide by.

    Attributes:
        mIoU: mean of ``iou`` over the classes that occur.
        mAcc: mean of ``acc`` over the classes that occur.
        aAcc: fraction of all counted pixels that are right.
        iou: float64 ``[K]``, intersection over union of each class; NaN for a class in neither truth nor prediction.
        acc: float64 ``[K]``, fraction of each class's true pixels that are right; NaN for a class not in the truth.
    """

    mIoU: float
    mAcc: float
    aAcc: float
    iou: Tensor
    acc: Tensor


class SegmentationConfusion(Metric):
    """Count pixels in one K x K matrix (rows truth, columns prediction) and score the sum.

    Counts are int64, so no data set is too large to be counted exactly; they are summed over processes.

    Args:
        num_classes: K, at least 2.
        ignore_index: the truth's value that is not counted.

    Raises:
        ValueError: if there is nothing to tell apart, or the ignored value is a class.

    Source: the definitions of mmseg's ``IoUMetric``. Unlike there, wrong values raise instead of being dropped.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"segmentation needs at least 2 classes to tell apart, got {num_classes}; the background is one, too, "
                "unless reduce_zero_label ignores it"
            )
        if 0 <= ignore_index < num_classes:
            raise ValueError(f"ignore_index={ignore_index} is one of the {num_classes} classes 0..{num_classes - 1}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        empty = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", default=empty, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pixels to the counts.

        Args:
            prediction: class indices 0..K-1, integers of any shape.
            target: true class indices 0..K-1 or ``ignore_index``, integers of the same shape.

        Raises:
            ValueError: if shapes differ, values are no integers, or values lie outside the classes.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
        for name, values in (("prediction", prediction), ("target", target)):
            if values.is_floating_point():
                raise ValueError(f"{name} must hold integer class indices, got {values.dtype}; take the argmax first")
        self._check_range("prediction", prediction)
        counted = target != self.ignore_index
        true_class = target[counted].long()
        self._check_range("target", true_class)
        pairs = true_class * self.num_classes + prediction[counted].long()
        self.confusion += torch.bincount(pairs, minlength=self.num_classes**2).view(self.num_classes, self.num_classes)

    def compute(self) -> SegmentationScores:
        """Score everything counted since the last reset."""
        counts = self.confusion.cpu().double()
        correct, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        iou = correct / (truth + predicted - correct)
        acc = correct / truth
        return SegmentationScores(
            mIoU=iou.nanmean().item(),
            mAcc=acc.nanmean().item(),
            aAcc=(correct.sum() / truth.sum()).item(),
            iou=iou,
            acc=acc,
        )

    def _check_range(self, name: str, values: Tensor) -> None:
        if values.numel() == 0:
            return
        low, high = (int(bound) for bound in values.aminmax())
        if low < 0 or high >= self.num_classes:
            ignored = f" or {self.ignore_index} (ignored)" if name == "target" else ""
            raise ValueError(
                f"{name} holds values {low}..{high}, expected classes 0..{self.num_classes - 1}{ignored}; "
                "check num_classes and whether the masks need reduce_zero_label"
            )
