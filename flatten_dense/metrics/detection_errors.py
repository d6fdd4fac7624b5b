"""What kinds of mistakes a detector makes, and what each kind costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flatten_dense.metrics.detection_matching import Matches, match_detections

ERROR_KINDS = ("localisation", "confusion", "both", "duplicate", "background", "missed")
"""What :func:`detection_errors` tells apart, beside "correct"."""

_FOUND, _NEAR = 0.5, 0.1  # IoU of a hit, and of what is not mere background


class DetectionErrors(NamedTuple):
    """The mistakes of a detector at IoU 0.5.

    Attributes:
        counts: for "correct" and each of ``ERROR_KINDS``, int64 ``[K]``: detections by their own class, missed truths
            by theirs.
        ap50: AP at IoU 0.5 of all detections, as COCOeval has it.
        cost: for each of ``ERROR_KINDS``, how much ``ap50`` would gain if all mistakes of that kind were put right.
        confusion: int64 ``[K + 1, K + 1]``, by true class (row) and predicted class (column). Each truth is in one
            place, the last column if nothing was taken for it; so is each detection, the last row if it is no truth's.
        class_names: K names.
        score_threshold: the least score of the detections in ``counts`` and ``confusion``.
    """

    counts: dict[str, NDArray[np.int64]]
    ap50: float
    cost: dict[str, float]
    confusion: NDArray[np.int64]
    class_names: tuple[str, ...]
    score_threshold: float


def detection_errors(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
    iou_type: str = "bbox",
    score_threshold: float = 0.3,
    image_ids: Iterable[int] | None = None,
) -> DetectionErrors:
    """Sort the mistakes among detections into kinds.

    Detections are matched as COCOeval does at IoU 0.5. One that found no truth of its class is, by the first line that
    holds,

    ============  =====================================================================
    localisation  its best IoU with a truth of its class is from 0.1 to below 0.5
    confusion     its best IoU with a truth of another class is 0.5 or more
    duplicate     its best IoU with a truth of its class, found already, is 0.5 or more
    both          its best IoU with a truth of another class is from 0.1 to below 0.5
    background    it is near no truth
    ============  =====================================================================

    and a truth that no detection found is missed, unless one of the first two kinds was meant for it. Detections that
    lie in a crowd of their class do not count.

    The cost of a kind comes from putting it right among all detections, whatever their score: the best detection of
    the first two kinds that was meant for a truth finds it, if nothing else did; other detections of the kind go away.
    Missed truths go away; a class of which no truth is left does not count.

    Args:
        annotations: content of a COCO annotation file.
        results: content of a COCO result file.
        category_ids: the number of each class index in both.
        iou_type: "bbox" or "segm".
        score_threshold: detections below this score are not in ``counts`` and ``confusion``.
        image_ids: the images to look at; all by default.

    Source: Bolya et al., TIDE, ECCV 2020, without its two special kinds; the table of confusions is ours.
    """
    matches = match_detections(annotations, results, category_ids, iou_type, image_ids, _FOUND)
    kinds, meant = _kinds(matches)
    sure = matches.scores >= score_threshold
    names = {category["id"]: str(category.get("name", category["id"])) for category in annotations["categories"]}
    num_classes = len(category_ids)
    counts = {
        kind: np.bincount(matches.classes[(kinds == kind) & sure], minlength=num_classes)
        for kind in ("correct", *ERROR_KINDS)
    }
    missed = _missed(matches, kinds, meant, sure)
    counts["missed"] = np.bincount(matches.truth_classes[missed], minlength=num_classes)
    ap50, cost = _costs(matches, kinds, meant, num_classes)
    return DetectionErrors(
        counts,
        ap50,
        cost,
        confusion=_confusion(matches, kinds, meant, sure, num_classes),
        class_names=tuple(names.get(category_id, str(category_id)) for category_id in category_ids),
        score_threshold=score_threshold,
    )


def _kinds(matches: Matches) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The kind of each detection ("ignored" in a crowd), and the truth it found or was meant for, -1 if none."""
    own, other = matches.own_iou, matches.other_iou
    rules = {
        "correct": matches.truth >= 0,
        "ignored": matches.ignored,
        "localisation": (own >= _NEAR) & (own < _FOUND),
        "confusion": other >= _FOUND,
        "duplicate": own >= _FOUND,
        "both": other >= _NEAR,
    }
    kinds = np.select(list(rules.values()), list(rules), "background")
    truths = [matches.truth, matches.own_truth, matches.other_truth]
    meant = np.select([kinds == kind for kind in ("correct", "localisation", "confusion")], truths, -1)
    return kinds, meant


def _missed(
    matches: Matches, kinds: NDArray[np.str_], meant: NDArray[np.int64], among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which truths no detection among these found, or was meant for."""
    missed = np.ones(len(matches.truth_classes), dtype=np.bool_)
    missed[meant[among & (meant >= 0)]] = False
    return missed


def _confusion(
    matches: Matches, kinds: NDArray[np.str_], meant: NDArray[np.int64], sure: NDArray[np.bool_], num_classes: int
) -> NDArray[np.int64]:
    rows = np.full(len(kinds), num_classes)  # a detection is no truth's, until it is
    columns = np.full(len(matches.truth_classes), num_classes)  # a truth is missed, until it is not
    for kind in ("correct", "confusion"):
        takers = np.flatnonzero((kinds == kind) & sure)
        takers = takers[columns[meant[takers]] == num_classes]
        takers = takers[_first_of_each(meant[takers])]
        rows[takers] = matches.truth_classes[meant[takers]]
        columns[meant[takers]] = matches.classes[takers]
    counted = sure & (kinds != "ignored")
    table = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(table, (rows[counted], matches.classes[counted]), 1)
    lost = matches.truth_classes[columns == num_classes]
    table[:-1, -1] = np.bincount(lost, minlength=num_classes)
    return table


def _costs(
    matches: Matches, kinds: NDArray[np.str_], meant: NDArray[np.int64], num_classes: int
) -> tuple[float, dict[str, float]]:
    """AP50, and what it gains by each kind put right."""
    counted, right = kinds != "ignored", kinds == "correct"
    truths = np.bincount(matches.truth_classes, minlength=num_classes)
    found = np.zeros(len(matches.truth_classes), dtype=np.bool_)
    found[meant[right]] = True
    ap50 = _ap(matches.scores, matches.classes, right, counted, truths)
    fixed = {}
    for kind in ERROR_KINDS[:-1]:
        wrong = np.flatnonzero(kinds == kind)
        kept, hits, classes = counted.copy(), right.copy(), matches.classes.copy()
        kept[wrong] = False
        if kind in ("localisation", "confusion"):
            mended = wrong[~found[meant[wrong]]]
            mended = mended[np.argsort(-matches.scores[mended], kind="stable")]
            mended = mended[_first_of_each(meant[mended])]
            kept[mended] = hits[mended] = True
            classes[mended] = matches.truth_classes[meant[mended]]
        fixed[kind] = _ap(matches.scores, classes, hits, kept, truths)
    missed = _missed(matches, kinds, meant, counted)
    left = truths - np.bincount(matches.truth_classes[missed], minlength=num_classes)
    fixed["missed"] = _ap(matches.scores, matches.classes, right, counted, left) if left.any() else 1.0
    return ap50, {kind: value - ap50 for kind, value in fixed.items()}


def _first_of_each(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions at which a value occurs for the first time, rising."""
    return np.sort(np.unique(values, return_index=True)[1])


def _ap(
    scores: NDArray[np.float64],
    classes: NDArray[np.int64],
    hits: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    truths: NDArray[np.int64],
) -> float:
    """Mean over the classes with truths of the precision at 101 recalls, as COCOeval takes it."""
    order = np.flatnonzero(kept)[np.argsort(-scores[kept], kind="stable")]
    order = order[np.argsort(classes[order], kind="stable")]
    ends = np.searchsorted(classes[order], np.arange(len(truths)), side="right")
    precisions = []
    for own, count in zip(np.split(hits[order], ends), truths, strict=False):
        if count:
            found = own.cumsum()
            precision = np.maximum.accumulate((found / np.arange(1, len(own) + 1))[::-1])[::-1]
            reached = np.searchsorted(found / count, np.linspace(0, 1, 101))
            precisions.append(np.r_[precision, 0][reached.clip(max=len(own))].mean())
    return float(np.mean(precisions)) if precisions else float("nan")
