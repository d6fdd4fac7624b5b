"""Reading all photos of a classification data set for what would disturb a training; nothing is ever changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flatten_dense.data.base import Split
from flatten_dense.data.classification.classification_report import ClassificationCounts, ClassificationReport
from flatten_dense.data.data_report import Problem
from flatten_dense.data.images import DataError, first_few
from flatten_dense.data.inspection import PhotoFacts, PhotoInspection, read_all
from flatten_dense.data.split_checks import SPLITS, repeated_photos
from flatten_dense.structures import ClassLabels

_IMBALANCE = 50  # photos of the largest training class to one of the smallest
_ENLARGEMENT = 4  # of a photo's shorter side, up to that of a training image


@dataclass(frozen=True)
class FolderReading:
    """The files of a split, as they lie on disk.

    Attributes:
        root: the split's folder.
        photos: of each class that has a folder; the classes need not be those of training.
        others: files in the class folders that are no images by their names.
        stray: images beside the class folders.
    """

    root: Path
    photos: dict[str, list[Path]]
    others: list[Path]
    stray: list[Path]


class ClassificationSource(Protocol):
    """What a check asks of a data module."""

    root: Path
    num_workers: int

    @property
    def labels(self) -> ClassLabels:
        """The classes; raises a DataError if they cannot be found out."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of training images."""

    def inspect_split(self, split: Split) -> FolderReading:
        """List the files of a split; raises a DataError if it has no folder of a class."""


def check_classification(
    data: ClassificationSource, progress: Callable[[int, int], object] = lambda done, total: None
) -> ClassificationReport:
    """Read every photo of every split.

    Splits that are the same folder are read once.

    Args:
        data: lists the files; its ``num_workers`` processes read them if there are many.
        progress: called with the photos read and all photos.
    """
    problems: list[Problem] = []
    readings = _readings(data, problems)
    report = ClassificationReport(str(data.root), _class_names(data, problems))
    files = [path for reading in readings.values() for own in reading.photos.values() for path in own]
    facts: dict[Path, PhotoFacts] = {}
    for path, photo in zip(files, read_all(PhotoInspection(files), data.num_workers), strict=True):
        facts[path] = photo
        progress(len(facts), len(files))
    for split, reading in readings.items():
        own = [facts[path] for paths in reading.photos.values() for path in paths]
        numbers = [len(reading.photos.get(name, ())) for name in report.class_names]
        report.splits[split] = ClassificationCounts(len(own), numbers, [min(photo.size) for photo in own if photo.size])
        problems += _misplaced(split, reading, report.class_names)
        problems += _unreadable(split, own)
        problems += _small(split, own, data.image_size)
    problems += _missing_photos(report)
    problems += _imbalance(report)
    problems += repeated_photos(
        (split, str(path), facts[path].digest)
        for split, reading in readings.items()
        for paths in reading.photos.values()
        for path in paths
    )
    problems += _two_classes(readings, facts)
    report.problems = sorted(problems, key=lambda problem: problem.severity)
    return report


def _readings(data: ClassificationSource, problems: list[Problem]) -> dict[Split, FolderReading]:
    readings: dict[Split, FolderReading] = {}
    for split in SPLITS:
        try:
            reading = data.inspect_split(split)
        except DataError as error:
            if all(str(error) != problem.message for problem in problems):  # val and test may be one folder
                problems.append(Problem("folder", "warning" if split == "test" else "error", split, str(error)))
            continue
        if all(reading.root != other.root for other in readings.values()):
            readings[split] = reading
    return readings


def _class_names(data: ClassificationSource, problems: list[Problem]) -> tuple[str, ...]:
    try:
        return data.labels.class_names
    except DataError as error:
        if all(str(error) != problem.message for problem in problems):  # a missing train folder is told already
            problems.append(Problem("classes", "error", "", str(error)))
        return ()


def _misplaced(split: str, reading: FolderReading, class_names: Sequence[str]) -> Iterator[Problem]:
    """Files and folders that are not where a photo of a class is looked for."""
    if reading.stray:
        message = f"{len(reading.stray)} image(s) beside the class folders: move each into the folder of its class"
        yield Problem("no class", "error", split, message, _named(reading.stray))
    unknown = [name for name in reading.photos if name not in class_names] if class_names else []
    if unknown:
        files = tuple((str(reading.root / name), f"{len(reading.photos[name])} photos") for name in unknown)
        message = f"{len(unknown)} class folder(s) that train does not have; name each class in the same way everywhere"
        yield Problem("unknown class", "error", split, message, files)
    if reading.others:
        message = f"{len(reading.others)} file(s) in class folders that are no images by their names: not used"
        yield Problem("no image", "warning", split, message, _named(reading.others))


def _unreadable(split: str, photos: Sequence[PhotoFacts]) -> Iterator[Problem]:
    files = tuple((photo.path, photo.error) for photo in photos if photo.error)
    if files:
        yield Problem("unreadable", "error", split, f"{len(files)} photo(s) cannot be read", files)


def _small(split: str, photos: Sequence[PhotoFacts], image_size: tuple[int, int]) -> Iterator[Problem]:
    least = min(image_size) / _ENLARGEMENT
    files = tuple((p.path, f"{p.size[0]}x{p.size[1]}") for p in photos if p.size and min(p.size) < least)
    if files:
        height, width = image_size
        message = (
            f"{len(files)} photo(s) that are enlarged more than {_ENLARGEMENT} times for training at {width}x{height}: "
            "lower --data.augmentation.size and --data.input_format.scale and crop, or take larger photos"
        )
        yield Problem("small", "warning", split, message, files)


def _missing_photos(report: ClassificationReport) -> Iterator[Problem]:
    """Classes without a photo: they cannot be learned, or are not measured."""
    for split, counts in report.splits.items():
        empty = [name for name, number in zip(report.class_names, counts.class_images, strict=True) if not number]
        if not empty:
            continue
        names = f"{len(empty)} class(es) without a photo: {first_few(empty)}"
        if split == "train":
            yield Problem("empty class", "error", split, f"{names}. Add photos, or remove the folders of these classes")
        else:
            yield Problem("class not measured", "warning", split, f"{names}. Scores say nothing about them")


def _imbalance(report: ClassificationReport) -> Iterator[Problem]:
    train = report.splits.get("train")
    filled = {n: i for n, i in zip(report.class_names, train.class_images, strict=True) if i} if train else {}
    if not filled:
        return
    most, least = max(filled, key=filled.__getitem__), min(filled, key=filled.__getitem__)
    if filled[most] >= _IMBALANCE * filled[least]:
        message = (
            f"{most} has {filled[most]} photos, {least} only {filled[least]}: rare classes may never be given; look at "
            "their accuracy in per_class.csv, not at top-1 alone"
        )
        yield Problem("imbalance", "warning", "train", message)


def _two_classes(readings: Mapping[Split, FolderReading], facts: Mapping[Path, PhotoFacts]) -> Iterator[Problem]:
    """Photos of the same pixels that are said to be of several classes."""
    classes: dict[str, dict[str, Path]] = defaultdict(dict)
    for reading in readings.values():
        for name, paths in reading.photos.items():
            for path in paths:
                if facts[path].digest:
                    classes[facts[path].digest].setdefault(name, path)
    contradictions = [places for places in classes.values() if len(places) > 1]
    if contradictions:
        files = []
        for places in contradictions:
            (name, first), *others = places.items()
            files += [(str(path), f"{other}, but {name} by {first}") for other, path in others]
        message = f"{len(contradictions)} photo(s) lie in the folders of several classes: keep the true one"
        yield Problem("two classes", "warning", "", message, tuple(files))


def _named(paths: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    return tuple((str(path), "") for path in paths)
