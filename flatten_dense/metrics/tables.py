"""Scores as tables: by class, and as what a JSON file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flatten_dense.metrics.plain_numbers import number_or_none
from flatten_dense.metrics.segmentation import SegmentationScores


def per_class_rows(scores: SegmentationScores, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class, in their order.

    Returns:
        Rows of ``class``; ``IoU``, ``Acc`` and ``precision`` as fractions, None where there is none; and
        ``truth_pixels`` and ``predicted_pixels``, counted where there is a true label.
    """
    columns = {
        "class": class_names,
        "IoU": [*map(number_or_none, scores.iou.tolist())],
        "Acc": [*map(number_or_none, scores.acc.tolist())],
        "precision": [*map(number_or_none, scores.precision.tolist())],
        "truth_pixels": scores.truth_pixels.tolist(),
        "predicted_pixels": scores.predicted_pixels.tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def scores_as_dict(scores: SegmentationScores, class_names: Sequence[str]) -> dict[str, Any]:
    """The scores as JSON holds them: ``mIoU``, ``mAcc``, ``aAcc``, ``per_class`` by name, and ``protocol``."""
    m_iou, m_acc, a_acc = map(number_or_none, (scores.mIoU, scores.mAcc, scores.aAcc))
    rows = per_class_rows(scores, class_names)
    per_class = {row["class"]: {key: row[key] for key in row if key != "class"} for row in rows}
    return {"mIoU": m_iou, "mAcc": m_acc, "aAcc": a_acc, "per_class": per_class, "protocol": scores.protocol}


def describe_scores(metrics: dict[str, Any]) -> str:
    """What :func:`scores_as_dict` gives, as a table in percent for a terminal."""
    mean = f"mean ({metrics['protocol']})"
    width = max(len(name) for name in [*metrics["per_class"], "aAcc (pixels)", mean])
    lines = [f"{'':{width}}   IoU %  Acc %"]
    for name, own in metrics["per_class"].items():
        lines.append(f"{name:{width}}   {_percent(own['IoU'])}  {_percent(own['Acc'])}")
    lines.append(f"{mean:{width}}   {_percent(metrics['mIoU'])}  {_percent(metrics['mAcc'])}")
    lines.append(f"{'aAcc (pixels)':{width}}          {_percent(metrics['aAcc'])}")
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "    -" if value is None else f"{100 * value:5.1f}"
