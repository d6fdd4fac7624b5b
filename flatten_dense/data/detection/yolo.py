"""YOLO folders: one text file of objects an image, read in place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from flatten_dense.data.base import Split
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.datamodule import DetectionDataModule
from flatten_dense.data.detection.faults import Fault, SplitReading
from flatten_dense.data.detection.yolo_folders import YoloSplit, find_yolo_split, yolo_class_names
from flatten_dense.data.images import DataError, PhotoHeader, read_header

_THREADS = 8  # a file server answers several at a time
_BEYOND = 0.01  # of a side; what the rounding of a tool may add


def read_yolo(root: Path, split: str, class_names: Sequence[str] | None = None) -> DetectionAnnotations:
    """Read a split in the layout of YOLO.

    Photos and label files lie as :func:`flatten_dense.data.detection.yolo_folders.find_yolo_split` says. A line of a
    label file is ``class cx cy w h``, or ``class x1 y1 x2 y2 x3 y3 ...`` for the polygon of an object, as shares of the
    upright photo's sides; classes count from 0. A photo with an empty label file, or none, has no objects.

    Args:
        root: folder of the data set.
        split: its name in ``data.yaml``, or of its folder.
        class_names: the classes, in order; None takes those that the folder names. Category ids are the class numbers.

    Returns:
        Images by rising name, with ids from 1, and sizes from the photos' headers.

    Raises:
        DataError: if files are missing or not as they must be.
    """
    return inspect_yolo(root, split, class_names).require()


def inspect_yolo(root: Path, split: str, class_names: Sequence[str] | None = None) -> SplitReading:
    """Read a split as :func:`read_yolo` does, and go on where a file is at fault.

    Raises:
        DataError: if the split or the classes cannot be found.
    """
    root = Path(root)
    names = yolo_class_names(root) if class_names is None else tuple(class_names)
    files = find_yolo_split(root, split)
    categories = [{"id": index, "name": name} for index, name in enumerate(names)]
    reading = SplitReading(DetectionAnnotations(files.source, files.image_folder, [], [], categories))
    reading.faults += _unpaired(files)
    photos = [files.image_folder / name for name in files.photos]
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(_header, photos))
    for name, photo, header, path in zip(files.photos, photos, headers, files.labels, strict=True):
        if isinstance(header, str):
            reading.faults.append(Fault("unreadable", "photo(s) cannot be read", str(photo), header))
            continue
        image_id = len(reading.annotations.images) + 1
        size = {"width": header.width, "height": header.height}
        reading.annotations.images.append({"id": image_id, "file_name": name, **size})
        for annotation in _objects(path, header, len(names), reading.faults):
            number = len(reading.annotations.annotations) + 1
            reading.annotations.annotations.append({"id": number, "image_id": image_id, **annotation})
    return reading


class YoloDataModule(DetectionDataModule):
    """A data set in the layout of YOLO, as :func:`read_yolo`. Further options are those of DetectionDataModule.

    Args:
        root: folder of the data set; only read, never written to.
        classes: YAML file with ``names``, or text file with a class name per line; by default ``data.yaml`` or
            ``classes.txt`` in ``root``.
        train_split: its name in ``data.yaml``, or of the folder in ``images``.
        val_split: the same of validation.
        test_split: the same of what ``test`` reads; None is that of validation.
    """

    def __init__(
        self,
        root: Path,
        classes: Path | None = None,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str | None = None,
        **options: Any,  # noqa: ANN401 - as CocoDataModule
    ) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()
        self.classes = classes
        self.folders: dict[Split, str] = {"train": train_split, "val": val_split, "test": test_split or val_split}

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """As :func:`flatten_dense.data.detection.yolo_folders.yolo_class_names`, found out at the first use."""
        return yolo_class_names(self.root, self.classes)

    def inspect_split(self, split: Split) -> SplitReading:
        """Read the label files of a split; raises as :func:`inspect_yolo`."""
        return inspect_yolo(self.root, self.folders[split], self.class_names)


def _unpaired(files: YoloSplit) -> Iterator[Fault]:
    photos: dict[Path, list[str]] = {}
    for name, path in zip(files.photos, files.labels, strict=True):
        photos.setdefault(path, []).append(name)
    for path, names in photos.items():
        if len(names) > 1:
            what = "label file(s) that several photos share; give photos different names"
            yield Fault("same name", what, str(path), ", ".join(names))
    photo_folders = {(files.image_folder / name).parent for name in files.photos}
    # Where a list names the photos, the labels beside theirs belong to other splits.
    folders = {path.parent for path in files.labels} - photo_folders if files.folders else set()
    for folder in sorted(folder for folder in folders if folder.is_dir()):
        for path in sorted(folder.glob("*.txt")):
            if path not in photos and path.name != "classes.txt":
                yield Fault("no photo", "label file(s) without a photo", str(path))


def _header(photo: Path) -> PhotoHeader | str:
    try:
        return read_header(photo)
    except DataError as error:
        return str(error).removeprefix(f"{photo}: ")


def _objects(path: Path, header: PhotoHeader, num_classes: int, faults: list[Fault]) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        faults.append(Fault("unreadable", "label file(s) cannot be read", str(path), str(error)))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        category, values = _numbers(line)
        if category is None:
            kind, what = "line", "line(s) that are neither 'class cx cy w h' nor 'class x1 y1 x2 y2 x3 y3 ...'"
        elif category not in range(num_classes):
            kind, what = "unknown category", f"object(s) of an unknown class; expected 0..{num_classes - 1}"
        elif not all(-_BEYOND <= value <= 1 + _BEYOND for value in values):
            kind = "not normalised"
            what = "line(s) with numbers outside 0..1; expected shares of the photo's width and height, not pixels"
        else:
            yield _annotation(int(category), values, header)
            continue
        faults.append(Fault(kind, what, str(path), f"line {number}: {line.strip()[:60]}"))


def _numbers(line: str) -> tuple[float | None, list[float]]:
    """The class and what follows it; no class if the line cannot be understood."""
    try:
        category, *values = (float(word) for word in line.split())
    except ValueError:
        return None, []
    is_shape = len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)
    return (category, values) if is_shape and all(map(math.isfinite, (category, *values))) else (None, [])


def _annotation(category: int, values: Sequence[float], header: PhotoHeader) -> dict[str, Any]:
    sides = (header.width, header.height)
    found: dict[str, Any] = {"category_id": category, "iscrowd": 0}
    if len(values) == 4:
        x, y, w, h = (value * sides[index % 2] for index, value in enumerate(values))
        return {**found, "bbox": [x - w / 2, y - h / 2, w, h], "area": w * h}
    points = [value * sides[index % 2] for index, value in enumerate(values)]
    xs, ys = points[::2], points[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {**found, "bbox": box, "area": _polygon_area(xs, ys), "segmentation": [points]}


def _polygon_area(xs: Sequence[float], ys: Sequence[float]) -> float:
    twice = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return abs(twice) / 2
