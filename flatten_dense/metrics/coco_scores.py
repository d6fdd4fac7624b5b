"""The scores of object detection that COCO defines, read off what COCOeval accumulates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers, in COCO's order."""

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # areas, as COCOeval lists them
_AT_MOST_1, _AT_MOST_10, _AT_MOST_100 = range(3)  # detections of one class in an image
_IOU_50, _IOU_75 = 0, 5


class ClassScores(NamedTuple):
    """What one kind of region (boxes or masks) scores in each class; NaN for a class without truth.

    Attributes:
        ap: float64 ``[K]``, mean over the ten IoU thresholds.
        ap50: float64 ``[K]``, at IoU 0.5.
        precision: float64 ``[K, 101]`` at recall 0, 0.01, ..., 1, mean over the ten IoU thresholds.
        precision50: float64 ``[K, 101]``, the same at IoU 0.5.
    """

    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    precision: NDArray[np.float64]
    precision50: NDArray[np.float64]

    @property
    def mean_precision(self) -> NDArray[np.float64]:
        """float64 ``[101]``, mean of ``precision`` over the classes that have truth."""
        return _mean_curve(self.precision)

    @property
    def mean_precision50(self) -> NDArray[np.float64]:
        """float64 ``[101]``, mean of ``precision50`` over the classes that have truth."""
        return _mean_curve(self.precision50)


class CocoScores(NamedTuple):
    """Scores as fractions, 0..1; NaN where there is nothing to find (COCOeval then says -1).

    Attributes:
        stats: for each kind of region, "bbox" or "segm", the twelve numbers by the names in ``STATS``.
        per_class: for each kind of region, what the K classes score.
        category_ids: K, the data set's own number of each class.
        class_names: K.
        truths: int64 ``[K]``, objects to find in the images that were evaluated, without crowds.
        detections: int64 ``[K]``, detections in them.
        num_images: how many images were evaluated.
    """

    stats: dict[str, dict[str, float]]
    per_class: dict[str, ClassScores]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    truths: NDArray[np.int64]
    detections: NDArray[np.int64]
    num_images: int

    @property
    def main(self) -> float:
        """The number that decides which model is best: AP of boxes, or of masks where only masks were scored."""
        return next(iter(self.stats.values()))["AP"]


def twelve_stats(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    """COCO's twelve numbers, by name.

    Args:
        precision: ``[10, 101, K, 4, 3]`` by IoU, recall, class, area and most detections, -1 where there is no truth.
        recall: ``[10, K, 4, 3]``, likewise.

    Source: pycocotools, ``COCOeval.summarize``, without its prints.
    """
    best, at_most = precision[..., _AT_MOST_100], recall[:, :, _ALL]
    areas = (_SMALL, _MEDIUM, _LARGE)
    values = (
        best[:, :, :, _ALL],
        best[_IOU_50, :, :, _ALL],
        best[_IOU_75, :, :, _ALL],
        *(best[..., area] for area in areas),
        *(at_most[..., most] for most in (_AT_MOST_1, _AT_MOST_10, _AT_MOST_100)),
        *(recall[:, :, area, _AT_MOST_100] for area in areas),
    )
    return {name: _mean(value) for name, value in zip(STATS, values, strict=True)}


def class_scores(precision: NDArray[np.float64]) -> ClassScores:
    """What each class scores.

    Args:
        precision: as :func:`twelve_stats` takes it.
    """
    known = precision[..., _ALL, _AT_MOST_100].transpose(2, 1, 0)  # [K, 101, 10]
    known = np.where(known > -1, known, np.nan)
    over_ious, at_50 = known.mean(2), known[:, :, _IOU_50]
    return ClassScores(over_ious.mean(1), at_50.mean(1), over_ious, at_50)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _mean_curve(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    known = curves[~np.isnan(curves).any(1)]
    mean: NDArray[np.float64] = known.mean(0) if len(known) else np.full(curves.shape[1], np.nan)
    return mean
