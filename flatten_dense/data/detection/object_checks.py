"""What may be wrong with the boxes and masks of a split, as far as the annotations alone can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from flatten_dense.data.base import Split
from flatten_dense.data.data_report import Problem, Severity
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.faults import Fault, SplitReading

_BORDER = 1.0  # pixels that rounding, or counting from 1, may put a box beyond the border
_MOST_AREA, _LEAST_AREA = 1.5, 0.01  # of the box
_LEAST_OVERLAP = 0.5  # IoU of a box with the one around its mask
_MANY_CROWDS = 0.2  # of the objects
_FAR = 1e9  # pixels; beyond it sums overflow
_OUTSIDE_TO_ASK = 0.05  # of the boxes, before their format is doubted


def object_faults(split: Split, reading: SplitReading) -> Iterator[Fault]:
    """Boxes without area or outside their photo, areas and masks that do not fit them, objects that repeat."""
    annotations = reading.annotations
    # Training leaves such a box out; in evaluation it is an object that cannot be found.
    severity: Severity = "warning" if split == "train" else "error"
    images = {image["id"]: image for image in annotations.images}
    paths = {number: str(annotations.image_folder / image["file_name"]) for number, image in images.items()}
    names = {category["id"]: category["name"] for category in annotations.categories}
    seen: Counter[tuple[Any, ...]] = Counter()
    for annotation in annotations.annotations:
        image, box = images[annotation["image_id"]], annotation["bbox"]
        path = paths[annotation["image_id"]]
        number = f"annotation {annotation['id']}, " if reading.own_ids else ""
        place = f"{number}{names[annotation['category_id']]} {_numbers(box)}"
        left, top, width, height = box
        beyond = max(-left, -top, left + width - image["width"], top + height - image["height"])
        if width <= 0 or height <= 0:
            what = "box(es) without area; training leaves them out, in evaluation they cannot be found"
            yield Fault("degenerate box", what, path, place, severity)
            continue
        if left >= image["width"] or top >= image["height"] or left + width <= 0 or top + height <= 0:
            what = "box(es) outside their photo"
            yield Fault("box outside", what, path, f"{place} in {image['width']}x{image['height']}", severity)
        elif beyond > _BORDER:
            what = "box(es) that reach beyond their photo by more than a pixel"
            yield Fault("box beyond", what, path, f"{place} in {image['width']}x{image['height']}", "warning")
        yield from _mask_faults(annotation, path, place)
        key = (annotation["image_id"], annotation["category_id"], *box)
        seen[key] += 1
        if seen[key] == 2:
            what = "object(s) that are there more than once: equal class and box in one photo"
            yield Fault("same object", what, path, place, "warning")


def box_format_problems(split: str, annotations: DetectionAnnotations) -> Iterator[Problem]:
    """Boxes that as a whole look as if their numbers meant something else than [x, y, width, height] in pixels."""
    if not annotations.annotations:
        return
    sizes = {image["id"]: (image["width"], image["height"]) for image in annotations.images}
    boxes = np.array([annotation["bbox"] for annotation in annotations.annotations], dtype=np.float64)
    boxes = boxes.clip(-_FAR, _FAR)
    size = np.array([sizes[annotation["image_id"]] for annotation in annotations.annotations], dtype=np.float64)
    first, second = boxes[:, :2], boxes[:, 2:]
    outside = (first + second > size + _BORDER).any(1).mean()
    as_corners = ((second >= first) & (second <= size + _BORDER)).all()
    expected = "expected [x, y, width, height] in pixels"
    if boxes.max() <= 1:
        message = f"all {len(boxes)} boxes hold numbers up to 1, so they seem to be shares of the sides; {expected}"
        yield Problem("box format", "error", split, message, ((str(annotations.source), ""),))
    elif outside > _OUTSIDE_TO_ASK and as_corners:
        message = (
            f"{outside:.0%} of the {len(boxes)} boxes reach beyond their photos, but all fit in if they are read as "
            f"[left, top, right, bottom]; {expected}"
        )
        yield Problem("box format", "error", split, message, ((str(annotations.source), ""),))


def crowd_problems(split: str, annotations: DetectionAnnotations) -> Iterator[Problem]:
    """Many crowds: training leaves them out, and evaluation ignores what is found there."""
    crowds = sum(annotation["iscrowd"] for annotation in annotations.annotations)
    total = len(annotations.annotations)
    if crowds > _MANY_CROWDS * total:
        message = f"{crowds / total:.0%} of the {total} objects are crowds, or difficult: neither learned nor scored"
        yield Problem("crowds", "warning", split, message)


def _mask_faults(annotation: dict[str, Any], path: str, place: str) -> Iterator[Fault]:
    box, area = annotation["bbox"], annotation["area"]
    box_area = box[2] * box[3]
    if not _LEAST_AREA * box_area <= area <= _MOST_AREA * box_area:
        what = "area(s) far from that of their box; sizes S, M and L are scored by the area"
        yield Fault("area", what, path, f"{place}: area {area:.6g}, box {box_area:.6g}", "warning")
    segmentation = annotation.get("segmentation")
    if segmentation is None:
        return
    around = _box_around(segmentation)
    if _overlap(box, around) < _LEAST_OVERLAP:
        what = "box(es) far from that around their mask"
        yield Fault("box and mask", what, path, f"{place}, around the mask {_numbers(around)}", "warning")


def _box_around(segmentation: list[list[float]] | dict[str, Any]) -> list[float]:
    if isinstance(segmentation, dict):
        box: list[float] = coco_mask.toBbox(segmentation).tolist()
        return box
    xs = [value for polygon in segmentation for value in polygon[::2]]
    ys = [value for polygon in segmentation for value in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """IoU; that of boxes of a pixel's width or less counts as full, because rounding moves them apart."""
    if min(*one[2:], *other[2:]) <= 1:
        return 1.0
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def _numbers(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{round(value, 1):g}' for value in values)}]"
