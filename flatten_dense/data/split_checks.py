"""What may be wrong between the splits of any data set: photos that repeat, classes that are never learned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flatten_dense.data.base import Split
from flatten_dense.data.data_report import Problem
from flatten_dense.data.images import first_few

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def repeated_photos(photos: Iterable[tuple[str, str, str]]) -> Iterator[Problem]:
    """Photos of the same pixels, whatever files they lie in.

    Args:
        photos: split, file and digest of each; one that could not be read has the digest "".
    """
    same: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for split, path, digest in photos:
        if digest:
            same[digest].append((split, path))
    across: dict[str, list[tuple[str, str]]] = defaultdict(list)
    within: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for (first_split, first_path), *others in same.values():
        for split, path in others:
            splits = dict.fromkeys((first_split, split))
            group = within if len(splits) == 1 else across
            group[" and ".join(splits)].append((path, f"the same pixels as {first_path}"))
    for names, files in across.items():
        message = f"{len(files)} photo(s) are in both {names}: scores there are not those of unseen photos"
        yield Problem("in two splits", "error", names, message, tuple(files))
    for name, files in within.items():
        yield Problem("twice", "warning", name, f"{len(files)} photo(s) repeat another of the split", tuple(files))


def unlearned_classes(class_names: Sequence[str], class_images: Mapping[str, Sequence[int]]) -> Iterator[Problem]:
    """Classes that occur nowhere, or not where they are learned.

    Args:
        class_names: K names.
        class_images: for each split the number of images in which each of the K classes occurs.
    """
    occurs = {split: {i for i, number in enumerate(counts) if number} for split, counts in class_images.items()}
    if not occurs:
        return
    anywhere = set().union(*occurs.values())
    never = [name for index, name in enumerate(class_names) if index not in anywhere]
    if never:
        yield Problem("class absent", "warning", "", f"{len(never)} class(es) occur nowhere: {first_few(never)}")
    learned = occurs.get("train", anywhere)  # a train split that cannot be read is a problem of its own
    for split in occurs:
        unseen = [class_names[index] for index in sorted(occurs[split] - learned)]
        if unseen:
            message = f"{len(unseen)} class(es) never occur in train, so they cannot be learned: {first_few(unseen)}"
            yield Problem("class untrained", "warning", split, message)
