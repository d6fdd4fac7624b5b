"""Annotations held against the photos they are about: sizes, rotations, files that are missing or not named."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from flatten_dense.data.data_report import Problem
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.faults import Fault
from flatten_dense.data.images import IMAGE_SUFFIXES
from flatten_dense.data.inspection import PhotoFacts

_SIDEWAYS = 5  # from this EXIF orientation on the sides are swapped


def photo_faults(annotations: DetectionAnnotations, photos: Mapping[str, PhotoFacts]) -> Iterator[Fault]:
    """What does not fit, of a split's images and their files.

    Args:
        annotations: the split.
        photos: each file that it names, by its path, and what it holds.
    """
    filled = {annotation["image_id"] for annotation in annotations.annotations}
    named: set[str] = set()
    for image in annotations.images:
        path = str(annotations.image_folder / image["file_name"])
        if path in named:
            what = "photo(s) that several images name; each counts again in training and scores"
            yield Fault("same photo", what, path, f"image {image['id']}")
        named.add(path)
        if image["id"] not in filled:
            what = "photo(s) without an object; are they meant to show none?"
            yield Fault("no objects", what, path, "", "warning")
        photo = photos[path]
        if photo.error:
            missing = not os.path.lexists(path)
            kind, what = ("no photo", "photo(s) missing") if missing else ("unreadable", "photo(s) cannot be read")
            yield Fault(kind, what, path, "" if missing else photo.error)
        else:
            yield from _size_faults((image["width"], image["height"]), photo)


def unnamed_photos(annotations: Mapping[str, DetectionAnnotations]) -> Iterator[Problem]:
    """Photos beside those of a data set that no split names.

    Args:
        annotations: of each split.
    """
    splits_of: dict[Path, list[str]] = defaultdict(list)
    named: set[Path] = set()
    for split, own in annotations.items():
        paths = [own.image_folder / image["file_name"] for image in own.images]
        named.update(paths)
        for folder in sorted({path.parent for path in paths}):
            splits_of[folder].append(split)
    found: dict[str, list[Path]] = defaultdict(list)
    for folder, splits in splits_of.items():
        found[" and ".join(splits)] += sorted(set(_photos_in(folder)) - named)
    for names, unnamed in found.items():
        if unnamed:
            message = f"{len(unnamed)} photo(s) beside the others that no annotation names: not used"
            yield Problem("not named", "warning", names, message, tuple((str(path), "") for path in unnamed))


def _size_faults(said: tuple[int, int], photo: PhotoFacts) -> Iterator[Fault]:
    assert photo.size is not None
    sizes = f"{photo.size[0]}x{photo.size[1]}, by its annotations {said[0]}x{said[1]}"
    if photo.size == said:
        if photo.orientation != 1:
            what = "photo(s) that an EXIF tag turns: they are read upright, so boxes must be the upright photo's"
            yield Fault("turned by EXIF", what, photo.path, f"orientation {photo.orientation}", "warning")
    elif photo.size != said[::-1]:
        yield Fault("size", "photo(s) of another size than their annotations say", photo.path, sizes)
    elif photo.orientation < _SIDEWAYS:
        yield Fault("swapped sides", "photo(s) whose annotations have width and height swapped", photo.path, sizes)
    else:
        what = (
            "photo(s) that an EXIF tag turns, but whose annotations have the sides as stored: photos are read upright, "
            "so size and boxes must be the upright photo's; or take the tag out of the file"
        )
        yield Fault("swapped sides", what, photo.path, sizes)


def _photos_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in IMAGE_SUFFIXES and not entry.name.startswith(".") and entry.is_file():
                yield folder / entry.name
