"""The photos of a split, each with its objects: what a dataset keeps of the annotations."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.instances import Instances
from flatten_dense.data.detection.masks import Segmentation
from flatten_dense.structures import DetectionLabels

_SHORTEST_SIDE = 32
_SHORTEST_BOX_SIDE = 1


class ObjectRecord(NamedTuple):
    """One object as annotated: box (x, y, width, height), class index, area, and its mask if it has one."""

    box: list[float]
    label: int
    area: float
    iscrowd: int
    segmentation: Segmentation | None

    def is_trainable(self, photo_size: tuple[int, int], with_mask: bool) -> bool:
        """Whether it is no crowd, at least a pixel wide and high inside the photo, and has a mask if that is asked."""
        x, y, box_width, box_height = self.box
        height, width = photo_size
        return (
            not self.iscrowd
            and min(x + box_width, width) - max(x, 0) >= _SHORTEST_BOX_SIDE
            and min(y + box_height, height) - max(y, 0) >= _SHORTEST_BOX_SIDE
            and (self.segmentation is not None or not with_mask)
        )


class PhotoRecord(NamedTuple):
    """One photo, with the id and the size, (height, width), that the annotations give it."""

    image_id: int
    file_name: str
    size: tuple[int, int]
    objects: list[ObjectRecord]

    def instances(self) -> Instances:
        """The objects as tensors."""
        boxes = torch.tensor([item.box for item in self.objects], dtype=torch.float32).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return Instances(
            boxes=boxes,
            labels=torch.tensor([item.label for item in self.objects], dtype=torch.int64),
            area=torch.tensor([item.area for item in self.objects], dtype=torch.float32),
            iscrowd=torch.tensor([item.iscrowd for item in self.objects], dtype=torch.bool),
            segmentations=[item.segmentation for item in self.objects],
            photo_size=self.size,
        )


def photo_records(annotations: DetectionAnnotations, labels: DetectionLabels) -> list[PhotoRecord]:
    """All photos in the order of the file.

    Args:
        annotations: of a split.
        labels: with this file's category ids.
    """
    index_of = {category: index for index, category in enumerate(labels.category_ids)}
    photos = {
        image["id"]: PhotoRecord(image["id"], image["file_name"], (image["height"], image["width"]), [])
        for image in annotations.images
    }
    for entry in annotations.annotations:
        label, mask = index_of[entry["category_id"]], entry.get("segmentation")
        item = ObjectRecord(entry["bbox"], label, entry["area"], entry["iscrowd"], mask)
        photos[entry["image_id"]].objects.append(item)
    return list(photos.values())


def trainable_records(records: list[PhotoRecord], with_masks: bool, keep_empty: bool) -> list[PhotoRecord]:
    """The photos to train on, with those of their objects that can be learnt.

    Photos with a side below 32 pixels are left out, and those without an object to learn unless ``keep_empty``.
    """
    kept = []
    for photo in records:
        objects = [item for item in photo.objects if item.is_trainable(photo.size, with_masks)]
        if min(photo.size) >= _SHORTEST_SIDE and (objects or keep_empty):
            kept.append(photo._replace(objects=objects))
    return kept


def missing_photos(annotations: DetectionAnnotations) -> list[Path]:
    """The photos that a split names and that are not there; each folder is listed once."""
    wanted: dict[Path, list[str]] = defaultdict(list)
    for image in annotations.images:
        path = annotations.image_folder / image["file_name"]
        wanted[path.parent].append(path.name)
    missing = []
    for folder, names in wanted.items():
        present = set(os.listdir(folder)) if folder.is_dir() else set()
        missing += [folder / name for name in names if name not in present]
    return missing
