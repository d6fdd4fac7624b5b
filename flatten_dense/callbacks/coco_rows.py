"""Detections as the rows of a COCO result file."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from flatten_dense.structures import Detections


def result_rows(detections: Detections, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """What was found in one image.

    Args:
        detections: to be written.
        image_id: the number of their image.
        category_ids: the number of each class index.
    """
    rows: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for label, box, score in zip(
            detections.labels.tolist(), to_xywh(detections.boxes), detections.scores.tolist(), strict=True
        )
    ]
    for row, mask in zip(rows, detections.masks or (), strict=False):
        row["segmentation"] = mask
    return rows


def to_xywh(boxes: Tensor) -> list[list[float]]:
    """Boxes ``[N, 4]``, (left, top, right, bottom), as COCO has them: [x, y, width, height]."""
    return [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes.tolist()]
