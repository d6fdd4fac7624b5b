"""Scores of semantic segmentation, all read off one confusion matrix, by the protocol of one's choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from flatten_dense.metrics.confusion import confusion_matrix


class SegmentationScores(NamedTuple):
    """Scores as fractions, 0..1; NaN where there is nothing to divide by.

    Attributes:
        mIoU: mean of ``iou`` over the classes that the protocol counts.
        mAcc: mean of ``acc`` over the classes that the protocol counts.
        aAcc: fraction of all labelled pixels that are right.
        iou: float64 ``[K]``, intersection over union of each class; NaN for a class that the protocol does not count.
        acc: float64 ``[K]``, fraction of each class's true pixels that are right; NaN as in ``iou``.
        protocol: name of the protocol, one of ``PROTOCOLS``.
        confusion: int64 ``[K, K + 1]``, pixels by true class (row) and predicted class (column), the last column for
            pixels without a predicted class.
    """

    mIoU: float
    mAcc: float
    aAcc: float
    iou: Tensor
    acc: Tensor
    protocol: str
    confusion: Tensor

    @property
    def main(self) -> float:
        """The score by which evaluations are compared: mIoU."""
        return self.mIoU

    @property
    def truth_pixels(self) -> Tensor:
        """int64 ``[K]``, labelled pixels of each true class."""
        return self.confusion.sum(1)

    @property
    def predicted_pixels(self) -> Tensor:
        """int64 ``[K]``, labelled pixels that were given each class."""
        return self.confusion.sum(0)[:-1]

    @property
    def precision(self) -> Tensor:
        """float64 ``[K]``, fraction of the pixels given each class that are right; NaN for a class never given."""
        return self.confusion.diagonal().double() / self.predicted_pixels.double()


def _in_truth_or_prediction(iou: Tensor, acc: Tensor) -> tuple[Tensor, Tensor]:
    return iou, acc


def _all(iou: Tensor, acc: Tensor) -> tuple[Tensor, Tensor]:
    return iou.nan_to_num(nan=0.0), acc.nan_to_num(nan=0.0)


def _in_truth(iou: Tensor, acc: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(acc.isnan(), acc, iou), acc


PROTOCOLS: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = MappingProxyType(
    {"mmseg": _in_truth_or_prediction, "sceneparsing": _all, "detectron2": _in_truth}
)
"""By name: what becomes of (IoU, Acc) ``[K]`` that are NaN where there is nothing to divide by."""


def check_protocol(name: str) -> str:
    """Give the name back if it is one of ``PROTOCOLS``.

    Raises:
        ValueError: if it is not.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return name


def score_confusion(confusion: Tensor, protocol: str = "mmseg") -> SegmentationScores:
    """Score the pixels counted in a confusion matrix.

    In every protocol pixels are summed over the whole set (there is no mean over images), pixels without a true label
    count nowhere, whatever is predicted there, and

    - IoU of a class = right / (true + predicted - right), Acc = right / true, aAcc = all right / all labelled;
    - mIoU and mAcc are the means over the classes that the protocol counts.

    The protocols differ in those classes only:

    ============  ============================================  ==================================
    protocol      mIoU over                                     mAcc over
    ============  ============================================  ==================================
    mmseg         classes in the truth or in a prediction       classes in the truth
    sceneparsing  all K, 0 for a class that occurs nowhere      all K, 0 for a class not in truth
    detectron2    classes in the truth                          classes in the truth
    ============  ============================================  ==================================

    Where all K classes are in the truth the three agree. A class that is predicted, but is not in the truth, has IoU 0
    in mmseg and sceneparsing, and none in detectron2, where its pixels lower the IoU of their true classes only.

    Args:
        confusion: integers ``[K, K + 1]``, as :func:`flatten_dense.metrics.confusion_matrix` gives it.
        protocol: one of ``PROTOCOLS``.

    Raises:
        ValueError: if there is no such protocol.

    Source: mmseg 1.x, ``IoUMetric``, which drops predictions outside the classes as we count unclassified ones.
        CSAILVision/sceneparsing, ``demoEvaluation.m`` and ``intersectionAndUnion.m``, without the 2e-16 in the
        denominator; the benchmark defines no mAcc (its score is the mean of mIoU and aAcc), ours treats Acc like its
        IoU. detectron2, ``SemSegEvaluator`` since 2021; before, it divided the same sum by the number of classes in
        truth or prediction, which is mmseg's mIoU. It knows no unclassified pixels: its argmax always gives a class.
    """
    classes_of = PROTOCOLS[check_protocol(protocol)]
    confusion = confusion.to("cpu", copy=True)  # a metric goes on counting in its own
    # Sums of int64 are exact whatever their order.
    right, truth, predicted = (
        counts.double() for counts in (confusion.diagonal(), confusion.sum(1), confusion.sum(0)[:-1])
    )
    iou, acc = classes_of(right / (truth + predicted - right), right / truth)
    return SegmentationScores(
        mIoU=iou.nanmean().item(),
        mAcc=acc.nanmean().item(),
        aAcc=(right.sum() / truth.sum()).item(),
        iou=iou,
        acc=acc,
        protocol=protocol,
        confusion=confusion,
    )


class SegmentationConfusion(Metric):
    """Count pixels by true and predicted class, and score the sum.

    Counts are int64, so no data set is too large to be counted exactly. They are summed over processes, and scores are
    read off the sum: neither the batch size nor the number of processes changes a bit of them.

    Args:
        num_classes: K, at least 2.
        ignore_index: the truth's value that is not counted.
        protocol: which classes the means are over, as in :func:`score_confusion`.
        unclassified_index: the prediction's value for "no class", which is wrong, as in
            :func:`flatten_dense.metrics.confusion_matrix`; None refuses such predictions.

    Raises:
        ValueError: if there is nothing to tell apart, the ignored value is a class, or there is no such protocol.

    Source: as :func:`score_confusion`. Unlike there, wrong values raise instead of being dropped.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        protocol: str = "mmseg",
        unclassified_index: int | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"segmentation needs at least 2 classes to tell apart, got {num_classes}; the background is one, too, "
                "unless reduce_zero_label ignores it"
            )
        for name, index in (("ignore_index", ignore_index), ("unclassified_index", unclassified_index)):
            if index is not None and 0 <= index < num_classes:
                raise ValueError(f"{name}={index} is one of the {num_classes} classes 0..{num_classes - 1}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.protocol = check_protocol(protocol)
        self.unclassified_index = unclassified_index
        empty = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self.add_state("confusion", default=empty, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add pixels to the counts.

        Args:
            prediction: class indices 0..K-1 or ``unclassified_index``, integers of any shape.
            target: true class indices 0..K-1 or ``ignore_index``, integers of the same shape.

        Raises:
            ValueError: if shapes differ, values are no integers, or values lie outside the classes.
        """
        self.confusion += confusion_matrix(
            prediction, target, self.num_classes, self.ignore_index, self.unclassified_index
        )

    def compute(self) -> SegmentationScores:
        """Score everything counted since the last reset."""
        return score_confusion(self.confusion, self.protocol)
