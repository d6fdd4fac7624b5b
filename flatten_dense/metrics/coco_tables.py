"""The scores of detection as tables: by class, and as what a JSON file holds."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flatten_dense.metrics.coco_scores import STATS, CocoScores
from flatten_dense.metrics.plain_numbers import number_or_none


def coco_class_rows(scores: CocoScores) -> list[dict[str, Any]]:
    """One row per class, in their order.

    Returns:
        Rows of ``class``; ``bbox_AP``, ``bbox_AP50`` and the same of "segm", where scored, as fractions, None for a
        class without truth; ``truths``, without crowds; and ``detections``.
    """
    repeated = Counter(scores.class_names)
    rows = []
    for index, (category_id, name) in enumerate(zip(scores.category_ids, scores.class_names, strict=True)):
        row: dict[str, Any] = {"class": name if repeated[name] == 1 else f"{name} (id {category_id})"}
        for iou_type, own in scores.per_class.items():
            row[f"{iou_type}_AP"] = number_or_none(own.ap[index])
            row[f"{iou_type}_AP50"] = number_or_none(own.ap50[index])
        rows.append({**row, "truths": int(scores.truths[index]), "detections": int(scores.detections[index])})
    return rows


def coco_scores_as_dict(scores: CocoScores) -> dict[str, Any]:
    """The scores as JSON holds them: "bbox" and "segm" with twelve numbers each, ``per_class`` by name, ``num_images``.

    null stands for a number that there is not.
    """
    stats = {
        iou_type: {name: number_or_none(value) for name, value in own.items()} for iou_type, own in scores.stats.items()
    }
    per_class = {row["class"]: {key: row[key] for key in row if key != "class"} for row in coco_class_rows(scores)}
    return {**stats, "per_class": per_class, "num_images": scores.num_images}


def describe_coco(metrics: dict[str, Any]) -> str:
    """What :func:`coco_scores_as_dict` gives, as a table in percent for a terminal: means, and AP of each class."""
    kinds = [kind for kind in ("bbox", "segm") if kind in metrics]
    rows = [(name, [metrics[kind][name] for kind in kinds]) for name in STATS]
    classes = [(name, [own[f"{kind}_AP"] for kind in kinds]) for name, own in metrics["per_class"].items()]
    width = max(len(name) for name, _ in rows + classes)
    lines = [" ".join([" " * width, *(f"{kind:>6} %" for kind in kinds)])]
    for title, part in (("", rows), ("AP of", classes)):
        lines += [title] if title else []
        lines += [" ".join([f"{name:{width}}", *map(_percent, values)]) for name, values in part]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{100 * value:8.1f}"
