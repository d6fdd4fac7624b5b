"""What the classes of a data set are called, and how its files hold them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from flatten_dense.structures.colours import Colour, unpack_colour

_NUM_VALUES, _NUM_COLOURS = 2**16, 2**24  # a mask file holds at most 16 bits a pixel, or 8 bits a channel
_OUTSIDE = -1


@dataclass(frozen=True)
class LabelSpace:
    """What the integers of a semantic mask mean, enough to read a mask and to write one back.

    Inside the package classes are 0..K-1. On disk they are 0..K-1 too; or 1..K when ``reduce_zero_label`` is set,
    then 0 on disk is unlabelled and becomes ``ignore_index``; or what ``label_map`` says.

    Attributes:
        class_names: K names, in the order of the class indices.
        palette: K colours, 8-bit RGB.
        reduce_zero_label: whether 0 on disk means "not labelled" and classes start at 1.
        ignore_index: the index that neither loss nor metric counts, the same on disk and inside.
        label_map: (value on disk, class index or ``ignore_index``) pairs. Several values may mean one class; the first
            of them is the one that is written.
        ignore_unmapped: whether values that ``label_map`` does not name are ignored, instead of being wrong.
        colour_masks: whether masks are colour pictures; the values on disk are then 0xRRGGBB.
    """

    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    reduce_zero_label: bool = False
    ignore_index: int = 255
    label_map: tuple[tuple[int, int], ...] | None = None
    ignore_unmapped: bool = False
    colour_masks: bool = False

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("a label space needs at least one class, got none")
        if len(self.palette) != self.num_classes:
            raise ValueError(f"the palette has {len(self.palette)} colours for {self.num_classes} classes")
        if self.num_classes > self.ignore_index:
            raise ValueError(
                f"{self.num_classes} classes do not fit below ignore_index={self.ignore_index}; "
                "8-bit masks hold at most 255"
            )
        if self.label_map is not None:
            self._check_map(self.label_map)
        elif self.colour_masks or self.ignore_unmapped:
            raise ValueError("colour_masks and ignore_unmapped need a label_map, got none")

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def disk_palette(self) -> tuple[Colour, ...] | None:
        """256 colours that turn the values of :meth:`to_disk` into the data set's own; None unless masks are colours.

        A pixel without label gets the first colour that the map ignores, black without one.
        """
        if not self.colour_masks:
            return None
        written = self._written_values()
        return tuple(unpack_colour(written.get(index, 0)) for index in range(256))

    def from_disk(self, mask: Tensor) -> Tensor:
        """Turn the values of a mask file into class indices, int64, any shape.

        Values that are no class come out below 0 or from K on, never as ``ignore_index``.
        """
        mask = mask.to(torch.int64)
        if self.label_map is not None:
            unmapped = self.ignore_index if self.ignore_unmapped else _OUTSIDE
            # A number that is ignored inside is so on disk too; of a colour nothing is known.
            pairs = self.label_map if self.colour_masks else ((self.ignore_index, self.ignore_index), *self.label_map)
            table = _lookup_table(pairs, unmapped, _NUM_COLOURS if self.colour_masks else _NUM_VALUES)
            return table.to(mask.device).take(mask).to(torch.int64)
        if not self.reduce_zero_label:
            return mask
        unlabelled = (mask == 0) | (mask == self.ignore_index)
        return torch.where(unlabelled, self.ignore_index, mask - 1)

    def to_disk(self, mask: Tensor) -> Tensor:
        """Turn class indices into the values of a mask file of one channel, any shape: :meth:`from_disk` undone.

        Of several values that mean one class the first is written. Where masks are colours, these are class indices
        still, and :attr:`disk_palette` goes into the file with them.

        Returns:
            uint8; uint16 if the label map has values above 255.
        """
        mask = mask.to(torch.int64)
        if self.label_map is not None and not self.colour_masks:
            written = self._written_values()
            table = _lookup_table(tuple((index, value) for index, value in written.items()), 0, 256)
            dtype = torch.uint8 if max(written.values()) < 256 else torch.uint16
            return table.to(mask.device).take(mask).to(dtype)
        if self.reduce_zero_label:
            mask = torch.where(mask == self.ignore_index, 0, mask + 1)
        return mask.to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for a checkpoint read with ``weights_only=True``."""
        return {
            **asdict(self),
            "class_names": list(self.class_names),
            "palette": [list(colour) for colour in self.palette],
            "label_map": self.label_map and [list(pair) for pair in self.label_map],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSpace:
        """The inverse of :meth:`to_dict`; fields that an older file lacks take their defaults."""
        palette = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
        pairs = values.get("label_map")
        label_map = pairs and tuple((int(value), int(index)) for value, index in pairs)
        names = tuple(values["class_names"])
        return cls(**{**values, "class_names": names, "palette": palette, "label_map": label_map})

    def _written_values(self) -> dict[int, int]:
        """For each class, and for what is ignored, the value that stands for it on disk."""
        assert self.label_map is not None
        written: dict[int, int] = {}
        for value, index in self.label_map:
            written.setdefault(index, value)
        if not self.colour_masks:
            written.setdefault(self.ignore_index, self.ignore_index)
        return written

    def _check_map(self, pairs: tuple[tuple[int, int], ...]) -> None:
        if self.reduce_zero_label:
            raise ValueError("reduce_zero_label and a label map exclude each other: the map says what 0 means")
        if self.ignore_index > 255:
            raise ValueError(f"with a label map ignore_index must be at most 255, got {self.ignore_index}")
        values, targets = [value for value, _ in pairs], {index for _, index in pairs}
        limit = _NUM_COLOURS if self.colour_masks else _NUM_VALUES
        if len(set(values)) != len(values) or not all(0 <= value < limit for value in values):
            raise ValueError(f"a label map needs different values from 0 to {limit - 1}, got {values}")
        if targets - {self.ignore_index} != set(range(self.num_classes)):
            raise ValueError(
                f"a label map must lead to each of the {self.num_classes} classes, and to nothing else but "
                f"ignore_index={self.ignore_index}; it leads to {sorted(targets)}"
            )


@dataclass(frozen=True)
class DetectionLabels:
    """What the classes of objects are called; inside the package they are 0..K-1.

    Attributes:
        class_names: K names, in the order of the class indices.
        palette: K colours, 8-bit RGB.
        category_ids: K numbers that the data set's own files give the classes; results leave with them.
    """

    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    category_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("detection needs at least one class, got none")
        if not len(self.class_names) == len(self.palette) == len(self.category_ids):
            raise ValueError(
                f"{len(self.class_names)} classes, {len(self.palette)} colours and {len(self.category_ids)} category "
                "ids do not fit together"
            )
        if len(set(self.category_ids)) != len(self.category_ids):
            raise ValueError(f"category ids must differ, got {self.category_ids}")

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for a checkpoint read with ``weights_only=True``."""
        return {
            "class_names": list(self.class_names),
            "palette": [list(colour) for colour in self.palette],
            "category_ids": list(self.category_ids),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetectionLabels:
        """The inverse of :meth:`to_dict`."""
        palette = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
        return cls(tuple(values["class_names"]), palette, tuple(int(number) for number in values["category_ids"]))


@dataclass(frozen=True)
class ClassLabels:
    """What the classes of whole images are called; inside the package they are 0..K-1.

    Attributes:
        class_names: K names, in the order of the class indices.
    """

    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise ValueError(f"classification needs at least 2 classes to tell apart, got {list(self.class_names)}")
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"class names must differ, got {list(self.class_names)}")

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for a checkpoint read with ``weights_only=True``."""
        return {"class_names": list(self.class_names)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassLabels:
        """The inverse of :meth:`to_dict`."""
        return cls(tuple(values["class_names"]))


# The one with the fewest fields first: jsonargparse takes a dictionary for the first class that knows all its keys.
Labels: TypeAlias = ClassLabels | LabelSpace | DetectionLabels


@lru_cache(maxsize=4)
def _lookup_table(pairs: tuple[tuple[int, int], ...], otherwise: int, size: int) -> Tensor:
    """What each number from 0 to size - 1 turns into; later pairs win."""
    # Of colours there are 16 million: in 16 bits, which hold a class index, the table takes 32 MiB.
    dtype = torch.int16 if size == _NUM_COLOURS else torch.int32
    table = torch.full((size,), otherwise, dtype=dtype)
    for value, result in pairs:
        table[value] = result
    return table
