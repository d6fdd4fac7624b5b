"""Reading a whole detection data set for what would disturb a training; nothing is ever changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from flatten_dense.data.base import Split
from flatten_dense.data.data_report import Problem
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.detection_report import DetectionReport, count_objects
from flatten_dense.data.detection.faults import SplitReading, as_problems
from flatten_dense.data.detection.object_checks import box_format_problems, crowd_problems, object_faults
from flatten_dense.data.detection.photo_checks import photo_faults, unnamed_photos
from flatten_dense.data.images import DataError
from flatten_dense.data.inspection import PhotoInspection, read_all
from flatten_dense.data.split_checks import SPLITS, repeated_photos, unlearned_classes


class DetectionSource(Protocol):
    """What a check asks of a data module."""

    root: Path
    num_workers: int

    def inspect_split(self, split: Split) -> SplitReading:
        """Read the annotations of a split with their faults; raises a DataError if there are none to be read."""


def check_detection(
    data: DetectionSource, progress: Callable[[int, int], object] = lambda done, total: None
) -> DetectionReport:
    """Read every annotation and every photo of every split.

    Splits of the same files are read once.

    Args:
        data: reads the annotations; its ``num_workers`` processes read the photos if there are many.
        progress: called with the photos read and all photos.
    """
    problems: list[Problem] = []
    readings = _readings(data, problems)
    annotations: dict[str, DetectionAnnotations] = {split: r.annotations for split, r in readings.items()}
    paths = {split: [a.image_folder / image["file_name"] for image in a.images] for split, a in annotations.items()}
    different = list(dict.fromkeys(path for own in paths.values() for path in own))
    photos = {}
    for photo in read_all(PhotoInspection(different), data.num_workers):
        photos[photo.path] = photo
        progress(len(photos), len(different))
    names = dict.fromkeys(str(c["name"]) for a in annotations.values() for c in _by_id(a))
    report = DetectionReport(str(data.root), tuple(names))
    for split, reading in readings.items():
        faults = [*reading.faults, *photo_faults(reading.annotations, photos), *object_faults(split, reading)]
        problems += as_problems(split, faults)
        problems += box_format_problems(split, reading.annotations)
        problems += crowd_problems(split, reading.annotations)
        report.splits[split] = count_objects(reading.annotations, report.class_names)
    problems += _different_classes(report, annotations)
    problems += unnamed_photos(annotations)
    problems += repeated_photos(
        (split, str(path), photos[str(path)].digest) for split, own in paths.items() for path in dict.fromkeys(own)
    )
    class_images = {split: counts.class_images for split, counts in report.splits.items()}
    problems += unlearned_classes(report.class_names, class_images)
    report.problems = sorted(problems, key=lambda problem: problem.severity)
    return report


def _readings(data: DetectionSource, problems: list[Problem]) -> dict[Split, SplitReading]:
    readings: dict[Split, SplitReading] = {}
    read: set[tuple[Path, Path, tuple[str, ...]]] = set()
    for split in SPLITS:
        try:
            reading = data.inspect_split(split)
        except DataError as error:
            if all(str(error) != problem.message for problem in problems):  # one about the classes is every split's
                problems.append(Problem("folder", "error", split, str(error)))
            continue
        own = reading.annotations
        files = (own.source, own.image_folder, tuple(image["file_name"] for image in own.images))
        if files not in read:
            readings[split] = reading
            read.add(files)
    return readings


def _by_id(annotations: DetectionAnnotations) -> list[dict[str, Any]]:
    return sorted(annotations.categories, key=lambda category: int(category["id"]))


def _different_classes(report: DetectionReport, annotations: Mapping[str, DetectionAnnotations]) -> Iterator[Problem]:
    """Classes that a split names and train does not; classes go by their names, so their ids may differ."""
    names = {split: {str(category["name"]) for category in own.categories} for split, own in annotations.items()}
    first = next(iter(names), "")
    for split, own in names.items():
        files = tuple(
            (str(annotations[split].source), f"{name}: {report.splits[split].class_objects[index]} objects")
            for index, name in enumerate(report.class_names)
            if name in own - names[first]
        )
        if files:
            message = f"{len(files)} categories that {first} does not name; write each class in the same way everywhere"
            yield Problem("classes differ", "error", split, message, files)
