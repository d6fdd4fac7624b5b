"""Which regions a step of a second stage learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flatten_dense.heads.detection.matching import match, sample

_POSITIVE_SHARE = 0.25


class SampledRegions(NamedTuple):
    """Regions of one image that a step learns from, those that stand for an object first.

    Attributes:
        boxes: ``[R, 4]``.
        labels: ``[R]``, classes from 0; K for background.
        objects: ``[P]``, the index of the object of each of the first P regions.
        is_object: ``[R]`` bool, the region is an object's own box.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    is_object: Tensor

    @property
    def positive(self) -> Tensor:
        """Boxes ``[P, 4]`` of those that stand for an object."""
        return self.boxes[: len(self.objects)]


def sample_regions(
    proposals: Sequence[Tensor],
    targets: Sequence[dict[str, Any]],
    num_classes: int,
    iou: float,
    number: int,
    low_quality: bool = False,
) -> list[SampledRegions]:
    """Match the regions of each image, add the objects' own boxes, and draw.

    Args:
        proposals: ``[N, 4]`` of each image.
        targets: ``boxes`` ``[G, 4]`` and ``labels`` ``[G]`` of each image.
        num_classes: K.
        iou: from which on a region stands for an object.
        number: regions of an image, a quarter of them on objects at most.
        low_quality: whether an object is given the regions that overlap it most, even if they overlap another more.
    """
    drawn = []
    for boxes, target in zip(proposals, targets, strict=True):
        objects, labels = target["boxes"], target["labels"]
        matched = match(boxes, objects, iou, iou, low_quality_floor=iou if low_quality else None)
        numbers = torch.arange(len(objects), device=boxes.device)
        candidates, matched = torch.cat([objects, boxes]), torch.cat([numbers, matched])
        positive, negative = sample(matched, number, _POSITIVE_SHARE)
        chosen = torch.cat([positive, negative])
        background = labels.new_full((len(negative),), num_classes)
        own_labels = torch.cat([labels[matched[positive]], background])
        drawn.append(SampledRegions(candidates[chosen], own_labels, matched[positive], chosen < len(objects)))
    return drawn
