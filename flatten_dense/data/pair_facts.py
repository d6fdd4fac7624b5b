"""What reading one photo with its mask tells about them, faults included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flatten_dense.data.images import DataError, read_mask
from flatten_dense.data.inspection import inspect_photo
from flatten_dense.data.label_values import outside_classes, read_label_values
from flatten_dense.structures import LabelSpace

_MOST_VALUES = 1000  # a photo in place of a mask of colours has a hundred thousand


@dataclass
class PairFacts:
    """What a photo and its mask hold; plain data, so that a worker process can hand it over.

    Attributes:
        split: that the pair belongs to.
        photo: its file.
        mask: its file.
        photo_error: why the photo cannot be read; "" if it can.
        mask_error: the same for the mask.
        photo_size: (width, height) in pixels, upright; None if it cannot be read.
        mask_size: the same for the mask.
        digest: of the photo's pixels; equal photos have equal ones, whatever file they lie in.
        class_pixels: number of pixels of each of the K classes; empty if the classes are not known.
        ignored: number of pixels without label.
        outside: for each value on disk that is no class its pixels, and (column, row) of the first; the frequent ones.
    """

    split: str
    photo: str
    mask: str
    photo_error: str = ""
    mask_error: str = ""
    photo_size: tuple[int, int] | None = None
    mask_size: tuple[int, int] | None = None
    digest: str = ""
    class_pixels: list[int] = field(default_factory=list)
    ignored: int = 0
    outside: dict[int, tuple[int, tuple[int, int]]] = field(default_factory=dict)


class PairInspection(Dataset[PairFacts]):
    """Reads pairs whole, for a data loader to spread over processes.

    Args:
        samples: the split, the photo's file and the mask's file of each pair.
        labels: what the masks hold; None if that could not be found out, then their values are not judged.
    """

    def __init__(self, samples: Sequence[tuple[str, Path, Path]], labels: LabelSpace | None) -> None:
        self.samples = samples
        self.labels = labels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> PairFacts:
        """Read one pair; a file that cannot be read is a fact like others."""
        split, photo, mask = self.samples[index]
        facts = PairFacts(split, str(photo), str(mask))
        seen = inspect_photo(photo)
        facts.photo_error, facts.photo_size, facts.digest = seen.error, seen.size, seen.digest
        try:
            values = read_label_values(mask, self.labels) if self.labels else read_mask(mask)
            facts.mask_size = (values.shape[1], values.shape[0])
            if self.labels is not None:
                _count(values, self.labels, facts)
        except DataError as error:
            facts.mask_error = str(error).removeprefix(f"{mask}: ")
        return facts


def _count(values: Tensor, labels: LabelSpace, facts: PairFacts) -> None:
    mask = labels.from_disk(values)
    outside = outside_classes(mask, labels)
    facts.ignored = int((mask == labels.ignore_index).sum())
    classes = mask[(mask != labels.ignore_index) & ~outside]
    facts.class_pixels = torch.bincount(classes, minlength=labels.num_classes).tolist()
    if not outside.any():
        return
    width = values.shape[1]
    places = np.flatnonzero(outside.numpy())
    found, first, counts = np.unique(values.flatten().numpy()[places], return_index=True, return_counts=True)
    for number in np.argsort(-counts, kind="stable")[:_MOST_VALUES].tolist():
        row, column = divmod(int(places[first[number]]), width)
        facts.outside[int(found[number])] = (int(counts[number]), (column, row))
