"""Which detection found which object, at one IoU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle_masks

from flatten_dense.metrics.regions import compress_mask

_MOST_DETECTIONS = 100  # of one class in an image
_NONE = -1


class Matches(NamedTuple):
    """N detections, by image and falling score, and the M truths among which they were matched. Crowds are no truths.

    Attributes:
        scores: float64 ``[N]``.
        classes: int64 ``[N]``, class indices.
        truth: int64 ``[N]``, the truth of the detection's own class that it found, -1 if none.
        ignored: bool ``[N]``, whether the detection lies in a crowd of its class and found nothing else.
        own_iou: float64 ``[N]``, the highest IoU with a truth of its own class, 0 without one.
        own_truth: int64 ``[N]``, that truth.
        other_iou: float64 ``[N]``, the highest IoU with a truth of another class, 0 without one.
        other_truth: int64 ``[N]``, that truth.
        truth_classes: int64 ``[M]``.
    """

    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    truth: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    own_iou: NDArray[np.float64]
    own_truth: NDArray[np.int64]
    other_iou: NDArray[np.float64]
    other_truth: NDArray[np.int64]
    truth_classes: NDArray[np.int64]


def match_detections(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou_type: str = "bbox",
    image_ids: Iterable[int] | None = None,
    iou_threshold: float = 0.5,
) -> Matches:
    """Match detections to truths as COCOeval does: by falling score, each to the best truth of its class that is left.

    Of each class the 100 best detections of an image take part.

    Args:
        annotations: content of a COCO annotation file.
        results: content of a COCO result file.
        category_ids: the number of each class index in both.
        iou_type: "bbox" or "segm".
        image_ids: the images to look at; all by default.
        iou_threshold: from which IoU on a truth is found.
    """
    index = {category_id: number for number, category_id in enumerate(category_ids)}
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in annotations["images"]}
    found, true = _by_image(results), _by_image(annotations["annotations"])
    parts: list[tuple[NDArray[Any], ...]] = [_no_columns()]
    truth_classes, num_truths = [np.zeros(0, dtype=np.int64)], 0
    for image_id in sorted(sizes if image_ids is None else set(image_ids)):
        # Crowds last, so that the others keep their order and are numbered without gaps.
        truths = sorted(true.get(image_id, []), key=lambda truth: bool(truth.get("iscrowd", 0)))
        crowd = [int(truth.get("iscrowd", 0)) for truth in truths]
        own_classes = np.array([index[truth["category_id"]] for truth in truths], dtype=np.int64)
        classes, scores, kept = _best(found.get(image_id, []), index)
        ious = np.zeros((len(kept), len(truths)))
        if kept and truths:
            regions = (_regions(rows, iou_type, sizes[image_id]) for rows in (kept, truths))
            ious = rle_masks.iou(*regions, crowd)
        real = len(truths) - sum(crowd)
        parts.append((scores, classes, *_match(ious, classes, own_classes, real, iou_threshold, num_truths)))
        truth_classes.append(own_classes[:real])
        num_truths += real
    columns: list[NDArray[Any]] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Matches(*columns, *[np.concatenate(truth_classes)])


def _by_image(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    images: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        images[row["image_id"]].append(row)
    return images


def _best(
    rows: list[Mapping[str, Any]], index: Mapping[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[Mapping[str, Any]]]:
    """Classes, scores and rows by falling score, no more of a class than take part."""
    scores = np.array([row["score"] for row in rows], dtype=np.float64)
    classes = np.array([index[row["category_id"]] for row in rows], dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    if len(rows) > _MOST_DETECTIONS:
        by_class = order[np.argsort(classes[order], kind="stable")]
        first = np.r_[0, np.flatnonzero(np.diff(classes[by_class])) + 1]
        rank = np.arange(len(rows)) - np.repeat(first, np.diff(np.r_[first, len(rows)]))
        best = np.zeros(len(rows), dtype=np.bool_)
        best[by_class[rank < _MOST_DETECTIONS]] = True
        order = order[best[order]]
    return classes[order], scores[order], [rows[number] for number in order]


def _regions(rows: Sequence[Mapping[str, Any]], iou_type: str, size: Any) -> Any:  # noqa: ANN401 - boxes or masks
    if iou_type == "bbox":
        return np.array([row["bbox"] for row in rows], dtype=np.float64)
    return [compress_mask(row["segmentation"], size) for row in rows]


def _match(
    ious: NDArray[np.float64],
    classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    real: int,
    threshold: float,
    first: int,
) -> tuple[NDArray[Any], ...]:
    """The columns from ``truth`` to ``other_truth`` for one image, whose truths are numbered from ``first``."""
    own = classes[:, None] == truth_classes
    own_ious, other_ious = np.where(own, ious, 0)[:, :real], np.where(own, 0, ious)[:, :real]
    truth = np.full(len(classes), _NONE)
    free = own_ious >= min(threshold, 1 - 1e-10)
    for detection in np.flatnonzero(free.any(1)):
        candidates = np.flatnonzero(free[detection])
        if len(candidates):
            # Of equally good ones the last, as COCOeval chooses.
            chosen = candidates[::-1][own_ious[detection, candidates[::-1]].argmax()]
            truth[detection] = chosen + first
            free[:, chosen] = False
    in_crowd = ((ious >= threshold) & own)[:, real:].any(1)
    return (truth, in_crowd & (truth == _NONE), *_highest(own_ious, first), *_highest(other_ious, first))


def _highest(ious: NDArray[np.float64], first: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if not ious.size:
        return np.zeros(len(ious)), np.full(len(ious), _NONE)
    return ious.max(1), ious.argmax(1) + first


def _no_columns() -> tuple[NDArray[Any], ...]:
    dtypes = (np.float64, np.int64, np.int64, np.bool_, np.float64, np.int64, np.float64, np.int64)
    return tuple(np.zeros(0, dtype=dtype) for dtype in dtypes)
