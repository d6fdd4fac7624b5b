"""What a check of photos with objects found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flatten_dense.data.data_report import CountTable, DataReport
from flatten_dense.data.detection.annotations import DetectionAnnotations

_SIZES = ("small", "medium", "large")
_SMALL, _MEDIUM = 32**2, 96**2  # COCO's bounds of the area


@dataclass(frozen=True)
class DetectionCounts:
    """What the annotations of a split hold.

    Attributes:
        images: number of images.
        empty: images without an object.
        objects: number of objects, without crowds.
        crowds: number of crowd regions.
        masks: objects and crowds that have a mask.
        sizes: objects of an area below 32 x 32 pixels, below 96 x 96, and above.
        class_objects: number of objects of each of the K classes.
        class_images: number of images in which each class occurs as an object.
    """

    images: int
    empty: int
    objects: int
    crowds: int
    masks: int
    sizes: tuple[int, int, int]
    class_objects: list[int]
    class_images: list[int]


def count_objects(annotations: DetectionAnnotations, class_names: Sequence[str]) -> DetectionCounts:
    """Count what a split holds.

    Args:
        annotations: the split.
        class_names: at least the names of its categories.
    """
    index = {name: number for number, name in enumerate(class_names)}
    class_of = {category["id"]: index[category["name"]] for category in annotations.categories}
    sizes, class_objects, crowds, masks = [0, 0, 0], [0] * len(class_names), 0, 0
    images_of: list[set[int]] = [set() for _ in class_names]
    filled: set[int] = set()
    for annotation in annotations.annotations:
        filled.add(annotation["image_id"])
        masks += "segmentation" in annotation
        if annotation["iscrowd"]:
            crowds += 1
            continue
        number = class_of[annotation["category_id"]]
        class_objects[number] += 1
        images_of[number].add(annotation["image_id"])
        sizes[(annotation["area"] >= _SMALL) + (annotation["area"] >= _MEDIUM)] += 1
    return DetectionCounts(
        images=len(annotations.images),
        empty=sum(image["id"] not in filled for image in annotations.images),
        objects=sum(class_objects),
        crowds=crowds,
        masks=masks,
        sizes=(sizes[0], sizes[1], sizes[2]),
        class_objects=class_objects,
        class_images=[len(images) for images in images_of],
    )


class DetectionReport(DataReport[DetectionCounts]):
    """What a check of photos with objects found."""

    def amount(self) -> str:
        """Number of photos and objects."""
        counts = self.splits.values()
        return f"{sum(c.images for c in counts)} photos with {sum(c.objects + c.crowds for c in counts)} objects"

    def tables(self) -> list[CountTable]:
        """A row per class, and a row per split."""
        if not self.splits or not self.class_names:
            return []
        columns, total = ["class"], ["all"]
        for split, counts in self.splits.items():
            columns += [f"{split} objects", "photos"]
            total += [str(counts.objects), str(counts.images)]
        rows = []
        for index, name in enumerate(self.class_names):
            row = [name]
            for counts in self.splits.values():
                row += [str(counts.class_objects[index]), str(counts.class_images[index])]
            rows.append(tuple(row))
        return [
            CountTable("Objects, and photos that hold the class", tuple(columns), rows, [tuple(total)]),
            self._table_of_splits(),
        ]

    def split_dict(self, counts: DetectionCounts) -> dict[str, Any]:
        """Numbers of images, objects, crowds, masks and sizes, and of objects and images of each class."""
        each = zip(self.class_names, counts.class_objects, counts.class_images, strict=True)
        return {
            "images": counts.images,
            "images_without_objects": counts.empty,
            "objects": counts.objects,
            "crowds": counts.crowds,
            "masks": counts.masks,
            "sizes": dict(zip(_SIZES, counts.sizes, strict=True)),
            "classes": {name: {"objects": objects, "images": images} for name, objects, images in each},
        }

    def _table_of_splits(self) -> CountTable:
        columns = ("split", "photos", "without objects", "small <32²", "medium", "large >96²", "crowds", "with mask")
        rows = []
        for split, counts in self.splits.items():
            parts = [*counts.sizes, counts.crowds, counts.masks]
            shares = [_share(part, counts.objects + counts.crowds) for part in parts]
            rows.append((split, str(counts.images), _share(counts.empty, counts.images), *shares))
        return CountTable("Photos without objects, and sizes of objects in pixels", columns, rows)


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if part else "-"
