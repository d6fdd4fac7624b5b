"""Reading COCO json files: any ids, any gaps, boxes with or without masks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from flatten_dense.data.data_report import Severity
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.faults import Fault, SplitReading
from flatten_dense.data.detection.masks import FEWEST_NUMBERS, encode, read_segmentation
from flatten_dense.data.images import DataError, first_few

_SECTIONS = ("images", "annotations", "categories")


def read_coco(path: Path | str, image_folder: Path | str) -> DetectionAnnotations:
    """Read a COCO json file.

    Ids may be sparse, in any order, and start at 0. What a file need not say is filled in: the ``id`` of annotations,
    ``iscrowd`` (0), ``area`` (of the mask, else of the box). Masks may be missing or empty; polygons of fewer than
    three points are left out, run lengths compressed. Boxes without area stay: training leaves them out.

    Args:
        path: the file; it is not changed.
        image_folder: what its ``file_name`` are relative to.

    Returns:
        The parts in the order of the file, with the image and category ids of the file. An annotation whose id is 0
        gets another number, because COCOeval takes a match with 0 for none.

    Raises:
        DataError: if the file or the folder is missing, the file is not JSON, or something in it is not as it must be.
    """
    return inspect_coco(path, image_folder).require()


def inspect_coco(path: Path | str, image_folder: Path | str) -> SplitReading:
    """Read a file as :func:`read_coco` does, and go on where something in it is at fault.

    Raises:
        DataError: if the file or the folder is missing, or the file is not JSON of COCO's three sections.
    """
    path, image_folder = Path(path), Path(image_folder)
    content = _load(path)
    if not image_folder.is_dir():
        raise DataError(f"{image_folder}: no such folder; it should hold the images that {path} names")
    return _Reading(path, image_folder).read(content)


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected the annotations of a split as COCO json") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a COCO json file") from None
    except ValueError as error:  # bad syntax, or not text
        raise DataError(
            f"{path}: not valid JSON ({error}); expected a COCO json file, perhaps it is cut short"
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected an object with {', '.join(_SECTIONS)}")
    missing = [name for name in _SECTIONS if not isinstance(content.get(name), list)]
    if missing:
        message = (
            f"{path}: {' and '.join(missing)} must be a list in a COCO json file; it has {first_few(list(content))}"
        )
        if missing == ["annotations"]:
            message += ". Without annotations there is nothing to learn or to compare with; `predict` takes the images"
        raise DataError(message)
    return content


class _Reading:
    """Goes through the sections of one file and keeps the faults."""

    def __init__(self, path: Path, image_folder: Path) -> None:
        self.path = path
        annotations = DetectionAnnotations(path, image_folder, [], [], [])
        self.result = SplitReading(annotations, own_ids=True)
        self.sizes: dict[int, tuple[int, int]] = {}
        self.categories: set[int] = set()
        self.unusable: set[int] = set()

    def read(self, content: dict[str, list[Any]]) -> SplitReading:
        for name, section in (("image", "images"), ("category", "categories"), ("annotation", "annotations")):
            content[section] = list(self._objects(name, content[section]))
        self._read_categories(content["categories"])
        self._read_images(content["images"])
        self._read_annotations(content["annotations"])
        return self.result

    def _objects(self, section: str, entries: list[Any]) -> Iterator[dict[str, Any]]:
        for number, entry in enumerate(entries):
            if isinstance(entry, dict):
                yield entry
            else:
                self._fault("not an object", "item(s) that are no JSON object", f"{section} number {number}")

    def _fault(self, kind: str, what: str, detail: str, severity: Severity = "error") -> None:
        self.result.faults.append(Fault(kind, what, str(self.path), detail, severity))

    def _read_categories(self, entries: list[dict[str, Any]]) -> None:
        names: set[str] = set()
        for entry in entries:
            identifier, name = _whole(entry.get("id")), entry.get("name")
            if identifier is None or not isinstance(name, str) or not name:
                self._fault("bad category", "categories without a whole number as id and a name", _shown(entry))
            elif identifier in self.categories or name in names:
                self._fault("same category", "categories whose id or name another one has", _shown(entry))
            else:
                self.categories.add(identifier)
                names.add(name)
                entry["id"] = identifier
                self.result.annotations.categories.append(entry)
        if not entries:
            self._fault("no category", "file without categories: it names no class", "")

    def _read_images(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            identifier, name = _whole(entry.get("id")), entry.get("file_name")
            height, width = _whole(entry.get("height")), _whole(entry.get("width"))
            if identifier is None or not isinstance(name, str) or not name:
                self._fault("bad image", "image(s) without a whole number as id and a file_name", _shown(entry))
            elif identifier in self.sizes or identifier in self.unusable:
                self._fault("same image id", "image(s) whose id another one has", f"{name}: id {identifier}")
            elif not height or not width or min(height, width) < 1:
                self.unusable.add(identifier)
                self._fault(
                    "no image size", "image(s) without a height and width in pixels", f"{name}: id {identifier}"
                )
            else:
                self.sizes[identifier] = height, width
                entry.update(id=identifier, height=height, width=width)
                self.result.annotations.images.append(entry)

    def _read_annotations(self, entries: list[dict[str, Any]]) -> None:
        ids: set[int] = set()
        without_id: list[dict[str, Any]] = []
        for number, entry in enumerate(entries):
            given = entry.get("id")
            where = f"annotation number {number}" if given is None else f"annotation {given!r}"
            if given is not None:
                identifier = _whole(given)
                if identifier is None or identifier in ids:
                    what = (
                        "annotation(s) whose id is no whole number" if identifier is None else "annotation(s) of one id"
                    )
                    self._fault("bad annotation id", what, where)
                    continue
                ids.add(identifier)
                entry["id"] = identifier
            if _whole(entry.get("image_id")) in self.unusable or not self._read_annotation(entry, where):
                continue
            if not entry.get("id"):
                without_id.append(entry)
            self.result.annotations.annotations.append(entry)
        for identifier, entry in enumerate(without_id, start=max(ids, default=0) + 1):
            entry["id"] = identifier

    def _read_annotation(self, entry: dict[str, Any], where: str) -> bool:
        """Check and complete one annotation; False if it has a fault."""
        image, category = _whole(entry.get("image_id")), _whole(entry.get("category_id"))
        crowd = entry.get("iscrowd") or 0
        if image not in self.sizes:
            what = "annotation(s) whose image_id is no image's id"
            self._fault("unknown image", what, f"{where}: image_id {entry.get('image_id')!r}")
        elif category not in self.categories:
            what = "annotation(s) whose category_id is no category's id"
            self._fault("unknown category", what, f"{where}: category_id {entry.get('category_id')!r}")
        elif crowd not in (0, 1):
            self._fault("bad iscrowd", "annotation(s) whose iscrowd is neither 0 nor 1", f"{where}: {crowd!r}")
        elif not _is_box(entry.get("bbox")):
            what = "annotation(s) whose bbox is not [x, y, width, height] in finite numbers, the size 0 or more"
            self._fault("bad box", what, f"{where}: {_shown(entry.get('bbox'))}")
        else:
            entry.update(image_id=image, category_id=category, iscrowd=int(crowd))
            return self._read_mask(entry, where, *self.sizes[image])
        return False

    def _read_mask(self, entry: dict[str, Any], where: str, height: int, width: int) -> bool:
        value = entry.pop("segmentation", None)
        try:
            segmentation = read_segmentation(value, height, width)
        except ValueError as error:
            self._fault("bad mask", "annotation(s) whose segmentation cannot be used", f"{where}: {error}")
            return False
        parts = (value if isinstance(value[0], list) else [value]) if isinstance(value, list) and value else []
        if any(0 < len(part) < FEWEST_NUMBERS for part in parts):
            what = "annotation(s) with polygons of fewer than three points; those polygons are left out"
            self._fault("short polygon", what, where, "warning")
        if segmentation is not None:
            entry["segmentation"] = segmentation
        if not _is_number(entry.get("area")) or entry["area"] < 0:
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
            if segmentation is not None:
                entry["area"] = float(coco_mask.area(encode(segmentation, height, width)))
        return True


def _whole(value: object) -> int | None:
    """A whole number, also one written as 7.0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
