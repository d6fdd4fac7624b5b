"""Reading a whole data set for what would disturb a training; nothing is ever changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from flatten_dense.data.base import Split
from flatten_dense.data.data_report import Problem
from flatten_dense.data.images import DataError
from flatten_dense.data.inspection import read_all
from flatten_dense.data.label_values import describe_labels
from flatten_dense.data.pair_facts import PairFacts, PairInspection
from flatten_dense.data.pairs import Pairing
from flatten_dense.data.segmentation_report import SegmentationReport, SplitCounts
from flatten_dense.data.split_checks import SPLITS, repeated_photos, unlearned_classes
from flatten_dense.structures import LabelSpace, unpack_colour

_COMMON_ZERO = 0.1  # of the masks
_MUCH_IGNORED = 0.5  # of a split's pixels
_MOST_VALUES = 20  # rows of a table about values or colours that are no class


class SegmentationSource(Protocol):
    """What a check asks of a data module: where the files are, and what they mean."""

    root: Path
    num_workers: int

    @property
    def labels(self) -> LabelSpace:
        """The classes; raises a DataError if they cannot be found out."""

    @property
    def folders(self) -> dict[Split, str]:
        """What each split is called on disk."""

    def find_pairs(self, split: Split) -> Pairing:
        """The files of a split; raises a DataError if a folder is missing or empty."""


def check_data(
    data: SegmentationSource, progress: Callable[[int, int], object] = lambda done, total: None
) -> SegmentationReport:
    """Read every file of every split.

    Splits that are the same folder are read once. A test split that is not there is only worth a warning.

    Args:
        data: says where the files are and what they mean; its ``num_workers`` processes read them if there are many.
        progress: called with the pairs read and all pairs.
    """
    problems: list[Problem] = []
    labels = _labels(data, problems)
    samples = [(split, *pair) for split in _different_splits(data) for pair in _pairs(data, split, problems)]
    facts: list[PairFacts] = []
    for pair in read_all(PairInspection(samples, labels), data.num_workers):
        facts.append(pair)
        progress(len(facts), len(samples))
    report = SegmentationReport(str(data.root), labels.class_names if labels else ())
    for split in dict.fromkeys(pair.split for pair in facts):
        own = [pair for pair in facts if pair.split == split]
        problems += _unreadable(split, own)
        problems += _sizes(split, own)
        report.splits[split] = counts = _counts(own, len(report.class_names))
        if labels is not None:
            problems += _outside(split, own, labels)
            problems += _unlabelled(split, own, counts)
    problems += repeated_photos((pair.split, pair.photo, pair.digest) for pair in facts)
    class_images = {split: counts.class_images for split, counts in report.splits.items()}
    problems += unlearned_classes(report.class_names, class_images)
    report.problems = sorted(problems, key=lambda problem: problem.severity)
    return report


def _labels(data: SegmentationSource, problems: list[Problem]) -> LabelSpace | None:
    try:
        return data.labels
    except ValueError as error:
        problems.append(Problem("classes", "error", "", f"{error}. The values of the masks were not judged"))
        return None


def _different_splits(data: SegmentationSource) -> list[Split]:
    """The splits, without one that only another name stands for."""
    first_of: dict[str, Split] = {}
    for split in SPLITS:
        first_of.setdefault(data.folders[split], split)
    return list(first_of.values())


def _pairs(data: SegmentationSource, split: Split, problems: list[Problem]) -> list[tuple[Path, Path]]:
    try:
        pairing = data.find_pairs(split)
    except DataError as error:
        problems.append(Problem("folder", "warning" if split == "test" else "error", split, str(error)))
        return []
    for (kind, what), items in pairing.problems().items():
        problems.append(Problem(kind, "error", split, f"{len(items)} {what}", tuple((str(item), "") for item in items)))
    return pairing.samples


def _unreadable(split: str, facts: list[PairFacts]) -> Iterator[Problem]:
    photos = tuple((pair.photo, pair.photo_error) for pair in facts if pair.photo_error)
    masks = tuple((pair.mask, pair.mask_error) for pair in facts if pair.mask_error)
    for what, files in (("photo(s)", photos), ("mask(s)", masks)):
        if files:
            yield Problem("unreadable", "error", split, f"{len(files)} {what} cannot be read", files)


def _sizes(split: str, facts: list[PairFacts]) -> Iterator[Problem]:
    swapped: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for pair in facts:
        photo, mask = pair.photo_size, pair.mask_size
        if photo is None or mask is None or photo == mask:
            continue
        detail = f"{photo[0]}x{photo[1]}, its mask {mask[0]}x{mask[1]}"
        (swapped if photo == mask[::-1] else others).append((pair.photo, detail))
    if others:
        yield Problem(
            "size",
            "error",
            split,
            f"{len(others)} photo(s) with a mask of another size; make it the photo's",
            tuple(others),
        )
    if swapped:
        message = (
            f"{len(swapped)} photo(s) with a mask whose sides are swapped: photos are turned upright by their EXIF "
            "tag, so the mask must be upright too"
        )
        yield Problem("swapped sides", "error", split, message, tuple(swapped))


def _counts(facts: list[PairFacts], num_classes: int) -> SplitCounts:
    read = [pair for pair in facts if pair.mask_size]
    classes = range(num_classes)
    return SplitCounts(
        pairs=len(facts),
        pixels=sum(width * height for width, height in (pair.mask_size for pair in read if pair.mask_size)),
        ignored=sum(pair.ignored for pair in read),
        class_pixels=[sum(pair.class_pixels[index] for pair in read) for index in classes],
        class_images=[sum(pair.class_pixels[index] > 0 for pair in read) for index in classes],
    )


def _outside(split: str, facts: list[PairFacts], labels: LabelSpace) -> Iterator[Problem]:
    found: dict[int, list[PairFacts]] = defaultdict(list)
    for pair in facts:
        for value in pair.outside:
            found[value].append(pair)
    pixels = {value: sum(pair.outside[value][0] for pair in pairs) for value, pairs in found.items()}
    # Blended borders give thousands of colours: the frequent ones say enough.
    for value in sorted(found, key=lambda value: -pixels[value])[:_MOST_VALUES]:
        what = f"the colour {unpack_colour(value)}" if labels.colour_masks else f"the value {value}"
        files = []
        for pair in found[value]:
            count, (column, row) = pair.outside[value]
            files.append((pair.mask, f"{count} pixels, first at column {column} of row {row}"))
        message = (
            f"{what} is no class: {pixels[value]} pixels in {len(files)} mask(s); expected {describe_labels(labels)}"
        )
        yield Problem("values", "error", split, message, tuple(files))
    if len(found) > _MOST_VALUES:
        yield Problem("values", "error", split, f"{len(found) - _MOST_VALUES} further values are no class either")
    read = [pair for pair in facts if pair.mask_size]
    with_zero = sum(pair.class_pixels[0] > 0 for pair in read)
    counts_from_one = (
        labels.label_map is None
        and not labels.reduce_zero_label
        and 2 * pixels.get(labels.num_classes, 0) > sum(pixels.values())
    )
    if counts_from_one and with_zero >= _COMMON_ZERO * len(read):
        message = (
            f"the value {labels.num_classes} occurs and 0 is common ({with_zero} of {len(read)} masks): you want "
            "zero-label reduction, --data.reduce_zero_label true"
        )
        yield Problem("zero label", "error", split, message)


def _unlabelled(split: str, facts: list[PairFacts], counts: SplitCounts) -> Iterator[Problem]:
    empty = [pair for pair in facts if pair.mask_size and not any(pair.class_pixels)]
    if empty:
        files = tuple((pair.mask, "") for pair in empty)
        yield Problem("nothing labelled", "warning", split, f"{len(files)} mask(s) without a labelled pixel", files)
    if counts.ignored > _MUCH_IGNORED * counts.pixels:
        share = counts.ignored / counts.pixels
        yield Problem("ignored", "warning", split, f"{share:.0%} of the pixels are ignored: neither learned nor scored")
