"""What the annotation files of a split say, in COCO's terms whatever their format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flatten_dense.structures import DetectionLabels, vivid_palette


@dataclass(frozen=True)
class DetectionAnnotations:
    """One split, read from a COCO json file or translated from another format.

    Attributes:
        source: the file or folder it was read from, for messages.
        image_folder: what ``file_name`` is relative to.
        images: ``id``, ``file_name``, ``height``, ``width`` each.
        annotations: ``id``, ``image_id``, ``category_id``, ``bbox`` [x, y, width, height], ``area``, ``iscrowd``, and
            ``segmentation`` (polygons or RLE) where there is one.
        categories: ``id`` and ``name`` each.
    """

    source: Path
    image_folder: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]

    @property
    def labels(self) -> DetectionLabels:
        """The classes: categories by rising id."""
        categories = sorted(self.categories, key=lambda category: int(category["id"]))
        names = tuple(str(category["name"]) for category in categories)
        return DetectionLabels(names, vivid_palette(len(names)), tuple(int(c["id"]) for c in categories))

    def to_coco(self) -> dict[str, Any]:
        """The content of a COCO annotation file; the parts are shared, not copied."""
        return {"images": self.images, "annotations": self.annotations, "categories": self.categories}
