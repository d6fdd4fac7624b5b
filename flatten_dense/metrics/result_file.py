"""COCO's files from the disk: anybody's results, and the annotations they are compared with."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from pycocotools import mask as rle_masks

from flatten_dense.data.images import DataError, first_few
from flatten_dense.metrics.regions import compress_mask, mask_fault

_Sizes: TypeAlias = Mapping[int, Any]
"""(height, width) by image id."""
_Fault: TypeAlias = tuple[str, object] | None
"""What such entries are, said after their number, and what stands in this one."""

_ORDER = "name the annotation file first, then the results"


def write_results(results: Iterable[Mapping[str, Any]], path: Path | str) -> None:
    """Write a COCO result file, as :func:`read_results` reads it.

    Args:
        results: as :meth:`flatten_dense.metrics.CocoDetection.results` gives them.
        path: the file; its folder is made.
    """
    rows = []
    for row in results:
        mask = row.get("segmentation")
        if mask is not None and isinstance(mask["counts"], bytes):
            row = {**row, "segmentation": {**mask, "counts": mask["counts"].decode("ascii")}}
        rows.append(row)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")


def read_truth(path: Path | str, iou_type: str) -> dict[str, Any]:
    """Read a COCO annotation file to compare results with.

    An annotation without ``area`` gets that of its box or mask. One of an image that the file does not list is left
    out, as COCOeval does.

    Raises:
        DataError: if it cannot be read or is no such file; with everything that COCOeval would stumble over.
    """
    path = Path(path)
    content = _read_json(path)
    if isinstance(content, list):
        raise DataError(f"{path}: holds a list, as a result file does; {_ORDER}")
    parts = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        raise DataError(
            f"{path}: holds {_describe(content)}; an annotation file holds lists of images, annotations and categories "
            "(the image_info files of a test set have no annotations: their truth is not public)"
        )
    problems: dict[str, list[object]] = defaultdict(list)
    images = _by_id(content["images"], "image", problems)
    categories = _by_id(content["categories"], "category", problems)
    sizes = {}
    for image_id, image in images.items():
        size = image.get("height"), image.get("width")
        if iou_type == "segm" and not all(isinstance(side, int) and side > 0 for side in size):
            problems["image(s) without height and width in whole pixels"].append(image_id)
        sizes[image_id] = size
    annotations = []
    if not problems:
        for number, annotation in enumerate(content["annotations"]):
            if isinstance(annotation, dict) and _unknown(annotation.get("image_id"), images):
                continue
            fault = _region_fault(annotation, iou_type, sizes, categories)
            if fault:
                problems[f"annotation(s) {fault[0]}"].append(_at(number, fault[1]))
            else:
                if "area" not in annotation:
                    annotation["area"] = _area(annotation, iou_type, sizes[annotation["image_id"]])
                annotations.append(annotation)
    if not content["categories"]:
        problems["categories; expected at least one"] = []
    if problems:
        raise DataError(_summary(f"{path}: the annotations cannot be used", problems))
    return {"images": list(images.values()), "annotations": annotations, "categories": list(categories.values())}


def read_results(path: Path | str, truth: Mapping[str, Any], iou_type: str) -> list[dict[str, Any]]:
    """Read a COCO result file, whoever wrote it.

    Args:
        path: the file.
        truth: what :func:`read_truth` gives.
        iou_type: the regions to score; "bbox" needs ``bbox``, "segm" needs ``segmentation`` in each entry, RLE or
            polygons.

    Returns:
        ``image_id``, ``category_id``, ``score`` and ``bbox`` or, as compressed RLE, ``segmentation``, each.

    Raises:
        DataError: if it cannot be read or is no such file; with everything that COCOeval would stumble over.
    """
    path = Path(path)
    content = _read_json(path)
    if not isinstance(content, list):
        swapped = isinstance(content, dict) and "annotations" in content
        raise DataError(
            f"{path}: holds {_describe(content)}; a result file holds one list of the detections of all images"
            + (f". This is an annotation file: {_ORDER}" if swapped else "")
        )
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in truth["images"]}
    categories = {category["id"]: category for category in truth["categories"]}
    key = "bbox" if iou_type == "bbox" else "segmentation"
    problems: dict[str, list[object]] = defaultdict(list)
    results = []
    for number, row in enumerate(content):
        fault = _result_fault(row, iou_type, sizes, categories)
        if fault:
            problems[f"detection(s) {fault[0]}"].append(_at(number, fault[1]))
            continue
        region = row[key] if iou_type == "bbox" else compress_mask(row[key], sizes[row["image_id"]])
        kept = {name: row[name] for name in ("image_id", "category_id", "score")}
        results.append({**kept, key: region})
    if problems:
        hints = _hints(content, sizes, categories, problems)
        raise DataError(_summary(f"{path}: the results cannot be scored", problems) + hints)
    return results


def corners_suspected(results: Sequence[Mapping[str, Any]], truth: Mapping[str, Any]) -> bool:
    """Whether boxes seem to be (left, top, right, bottom): most leave their images as [x, y, width, height]."""
    sizes = {image["id"]: (image.get("width"), image.get("height")) for image in truth["images"]}
    if not results or "bbox" not in results[0] or not all(all(sizes[row["image_id"]]) for row in results):
        return False
    boxes = np.array([row["bbox"] for row in results], dtype=np.float64)
    limits = np.array([sizes[row["image_id"]] for row in results], dtype=np.float64) + 1
    leaving = (boxes[:, :2] + boxes[:, 2:] > limits).any(1)
    corners = (boxes[:, :2] <= boxes[:, 2:]).all(1) & (boxes[:, 2:] <= limits).all(1)
    return bool(leaving.mean() > 0.5 and corners.mean() > 0.95)


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever is in it
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not JSON, it is no text at all; unpack it first if it is an archive") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not JSON: {error.msg} in line {error.lineno}, column {error.colno}; it may have been cut off"
        ) from None


def _by_id(items: list[Any], what: str, problems: dict[str, list[object]]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, item in enumerate(items):
        own = item.get("id") if isinstance(item, dict) else None
        if not isinstance(own, int) or isinstance(own, bool):
            problems[f"{what} entries without an integer id"].append(_at(number, own))
        elif own in found:
            problems[f"{what} entries with the id of another"].append(own)
        else:
            found[own] = item
    return found


def _result_fault(row: Any, iou_type: str, sizes: _Sizes, categories: Mapping[int, Any]) -> _Fault:  # noqa: ANN401
    if isinstance(row, dict):
        if _unknown(row.get("image_id"), sizes):
            return "of images that the annotations do not list", f"image_id {row.get('image_id')!r}"
        if not _is_finite(row.get("score")):
            return "without a finite number as score", f"score {row.get('score')!r}"
        if iou_type == "bbox" and "bbox" not in row and "segmentation" in row:
            return "without a box; --iou-type segm scores masks", "bbox missing"
        if iou_type == "segm" and "segmentation" not in row:
            return "without a mask; --iou-type bbox scores boxes", "segmentation missing"
    return _region_fault(row, iou_type, sizes, categories)


def _region_fault(row: Any, iou_type: str, sizes: _Sizes, categories: Mapping[int, Any]) -> _Fault:  # noqa: ANN401
    if not isinstance(row, dict):
        return "that are no objects with named values", f"{row!r:.50}"
    if _unknown(row.get("category_id"), categories):
        return "of categories that the annotations do not list", f"category_id {row.get('category_id')!r}"
    if iou_type == "bbox":
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
            return "whose bbox is not four finite numbers [x, y, width, height]", f"bbox {box!r:.80}"
        if min(box[2:]) < 0:
            return "whose bbox has a negative width or height; expected [x, y, width, height]", f"bbox {box}"
    if not _is_finite(row.get("area", 0)) or row.get("iscrowd", 0) not in (0, 1):
        return "whose area is no number, or iscrowd neither 0 nor 1", f"{row.get('area')!r}, {row.get('iscrowd')!r}"
    if iou_type == "segm":
        fault = mask_fault(row.get("segmentation"), sizes[row["image_id"]])
        return ("with a mask that cannot be used", fault) if fault else None
    return None


def _hints(
    rows: list[Any], sizes: _Sizes, categories: Mapping[int, Any], problems: Mapping[str, Sequence[object]]
) -> str:
    hints = []
    if any("of images" in what for what in problems):
        hints.append(f"The annotations list {len(sizes)} images, such as {first_few(sorted(sizes))}.")
    if any("of categories" in what for what in problems):
        hints.append(f"The annotations list {len(categories)} categories: {first_few(sorted(categories))}.")
        used = [row.get("category_id") for row in rows if isinstance(row, dict)]
        if all(number in range(len(categories)) for number in used):
            hints.append("If the results count classes from 0, write the categories' own ids instead.")
    return "".join(f"\n{hint}" for hint in hints)


def _summary(what: str, problems: Mapping[str, Sequence[object]]) -> str:
    lines = [f"{len(items)} {kind}: {first_few(items)}" for kind, items in problems.items()]
    return "\n  ".join([f"{what}:", *lines])


def _describe(content: object) -> str:
    return f"an object of {first_few(list(content))}" if isinstance(content, dict) else f"{content!r:.50}"


def _at(number: int, detail: object) -> str:
    return f"entry {number} ({detail})"


def _area(annotation: Mapping[str, Any], iou_type: str, size: Any) -> float:  # noqa: ANN401 - (height, width)
    if iou_type == "segm":
        return float(rle_masks.area(compress_mask(annotation["segmentation"], size)))
    return float(annotation["bbox"][2] * annotation["bbox"][3])


def _unknown(number: object, known: Mapping[int, object]) -> bool:
    return not _is_integer(number) or number not in known


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
