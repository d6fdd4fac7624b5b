"""The objects of one photo, and what becomes of them when the photo is transformed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from flatten_dense.data.detection.masks import Segmentation, encode
from flatten_dense.data.detection.pixel_map import PixelMap
from flatten_dense.structures import RLE

_NOTHING: Segmentation = [[0.0] * 6]


@dataclass(frozen=True)
class Instances:
    """N objects in the pixels of a photo as it was read.

    Attributes:
        boxes: float32 ``[N, 4]``, (left, top, right, bottom).
        labels: int64 ``[N]``, class indices.
        area: float32 ``[N]``, as annotated.
        iscrowd: bool ``[N]``.
        segmentations: N masks; None for an object without one.
        photo_size: (height, width).
    """

    boxes: Tensor
    labels: Tensor
    area: Tensor
    iscrowd: Tensor
    segmentations: list[Segmentation | None]
    photo_size: tuple[int, int]

    def training_target(self, pixel_map: PixelMap, with_masks: bool) -> dict[str, Tensor]:
        """What is left of the objects in the transformed photo of (h, w) pixels.

        Boxes are clipped, objects whose box is empty then are left out.

        Returns:
            ``boxes``, ``labels``, ``area``, ``iscrowd`` as above but in the pixels of the transformed photo, where the
            area is that of the whole object; with masks also ``masks``, bool ``[N, h, w]``, empty where there is none.
        """
        boxes = pixel_map.map_boxes(self.boxes)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        target = {
            "boxes": boxes[kept],
            "labels": self.labels[kept],
            "area": self.area[kept] * pixel_map.area_factor,
            "iscrowd": self.iscrowd[kept],
        }
        if with_masks:
            left = (self.segmentations[index] for index in kept.nonzero().flatten().tolist())
            target["masks"] = pixel_map.map_masks([item or _NOTHING for item in left], self.photo_size)
        return target

    def evaluation_target(self, with_masks: bool) -> dict[str, Any]:
        """All objects as they are annotated, in the pixels of the photo, to be drawn.

        Returns:
            ``boxes``, ``labels``, ``area``, ``iscrowd``; with masks also ``masks``, a list of RLEs, where an object
            without a mask has an empty one.
        """
        target: dict[str, Any] = {
            "boxes": self.boxes,
            "labels": self.labels,
            "area": self.area,
            "iscrowd": self.iscrowd,
        }
        if with_masks:
            masks: list[RLE] = [encode(item or _NOTHING, *self.photo_size) for item in self.segmentations]
            target["masks"] = masks
        return target
