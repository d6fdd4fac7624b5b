"""What a check of photos with a class each found."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from flatten_dense.data.data_report import CountTable, DataReport

_MOST_CLASSES = 100  # rows of the table; of more classes the rarest


@dataclass(frozen=True)
class ClassificationCounts:
    """What a split holds.

    Attributes:
        images: number of photos.
        class_images: number of photos of each of the K classes.
        short_sides: of the photos that could be read, in pixels.
    """

    images: int
    class_images: list[int]
    short_sides: list[int]

    @property
    def sizes(self) -> tuple[int, int, int] | None:
        """Least, median and greatest shorter side in pixels; None if no photo could be read."""
        sides = self.short_sides
        return (min(sides), round(median(sides)), max(sides)) if sides else None


class ClassificationReport(DataReport[ClassificationCounts]):
    """What a check of photos with a class each found."""

    def amount(self) -> str:
        """Number of photos."""
        return f"{sum(counts.images for counts in self.splits.values())} photos"

    def tables(self) -> list[CountTable]:
        """A row per class, two columns per split, and a row per split."""
        if not self.splits:
            return []
        return [*([self._table_of_classes()] if self.class_names else []), self._table_of_sizes()]

    def split_dict(self, counts: ClassificationCounts) -> dict[str, Any]:
        """Photos of each class, and their sizes."""
        return {
            "images": counts.images,
            "short_side": counts.sizes and dict(zip(("least", "median", "greatest"), counts.sizes, strict=True)),
            "classes": dict(zip(self.class_names, counts.class_images, strict=True)),
        }

    def _table_of_classes(self) -> CountTable:
        columns, total = ["class"], ["all"]
        for split, counts in self.splits.items():
            columns += [f"{split} photos", "share"]
            total += [str(counts.images), ""]
        order = list(range(len(self.class_names)))
        title = "Photos of each class"
        if len(order) > _MOST_CLASSES:
            first = next(iter(self.splits.values()))
            order = sorted(order, key=lambda index: first.class_images[index])[:_MOST_CLASSES]
            title += f": the {_MOST_CLASSES} rarest of {len(self.class_names)} (--json has all)"
        rows = []
        for index in order:
            row = [self.class_names[index]]
            for counts in self.splits.values():
                number = counts.class_images[index]
                row += [str(number), f"{number / counts.images:.1%}" if number else "-"]
            rows.append(tuple(row))
        return CountTable(title, tuple(columns), rows, [tuple(total)])

    def _table_of_sizes(self) -> CountTable:
        rows = []
        for split, counts in self.splits.items():
            sizes = [str(side) for side in counts.sizes] if counts.sizes else ["-"] * 3
            rows.append((split, str(counts.images), *sizes))
        return CountTable("Shorter side of the photos in pixels", ("split", "photos", "least", "median", "most"), rows)
