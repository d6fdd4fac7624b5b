"""What a check of photos with masks found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flatten_dense.data.data_report import CountTable, DataReport


@dataclass
class SplitCounts:
    """What the masks of a split hold.

    Attributes:
        pairs: photos that have a mask.
        pixels: of all masks that could be read.
        ignored: pixels without label.
        class_pixels: number of pixels of each of the K classes.
        class_images: number of masks in which each class occurs.
    """

    pairs: int
    pixels: int
    ignored: int
    class_pixels: list[int]
    class_images: list[int]


class SegmentationReport(DataReport[SplitCounts]):
    """What a check of photos with masks found."""

    def amount(self) -> str:
        """Number of pairs."""
        return f"{sum(counts.pairs for counts in self.splits.values())} pairs"

    def tables(self) -> list[CountTable]:
        """A row per class, two columns per split."""
        if not self.splits or not self.class_names:
            return []
        columns = ["class"]
        for split in self.splits:
            columns += [f"{split} pixels", "masks"]
        rows = []
        for index, name in enumerate(self.class_names):
            row = [name]
            for counts in self.splits.values():
                share = counts.class_pixels[index] / max(1, sum(counts.class_pixels))
                row += [f"{share:.3%}" if counts.class_images[index] else "-", str(counts.class_images[index])]
            rows.append(tuple(row))
        total = ["ignored, of all pixels and masks"]
        for counts in self.splits.values():
            total += [f"{counts.ignored / counts.pixels:.3%}" if counts.pixels else "-", str(counts.pairs)]
        title = "Share of labelled pixels, and masks that hold the class"
        return [CountTable(title, tuple(columns), rows, [tuple(total)])]

    def split_dict(self, counts: SplitCounts) -> dict[str, Any]:
        """Pairs, pixels, and pixels and images of each class."""
        each = zip(self.class_names, counts.class_pixels, counts.class_images, strict=True)
        return {
            "pairs": counts.pairs,
            "pixels": counts.pixels,
            "ignored_share": counts.ignored / counts.pixels if counts.pixels else None,
            "classes": {name: {"pixels": pixels, "images": images} for name, pixels, images in each},
        }
