"""RetinaNet: class and box of every anchor, in one go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from flatten_dense.heads.detection.anchors import Anchors
from flatten_dense.heads.detection.base import DetectionHead, RawDetections, init_conv
from flatten_dense.heads.detection.box_head import LEAST_SCORE, non_repeating
from flatten_dense.heads.detection.boxes import Weights, clip_boxes, decode_boxes, encode_boxes, has_sides
from flatten_dense.heads.detection.conventions import ConventionsName
from flatten_dense.heads.detection.matching import IGNORED, match
from flatten_dense.layers import TokenGrid
from flatten_dense.structures import ImageBatch

_UNIT: Weights = (1.0, 1.0, 1.0, 1.0)
_SCALE = 4  # side in cells of the smallest square anchor
_NUM_SCALES = 3
_PRIOR = 0.01
_NUM_CONVS = 4
_BEFORE_NMS = 1000


class RetinaNetHead(DetectionHead):
    """Two towers of four convolutions, shared by all maps: one for the classes, one for the boxes of nine anchors.

    Args:
        in_channels: channels of the incoming maps, the same in all.
        strides: their strides, 8 to 128 as published.
        num_classes: K.
        conventions: whose conventions are followed where implementations differ.
        channels: of the towers; None is as many as the maps have.
        detections: kept of an image; None is as the conventions say.

    Raises:
        ValueError: as :class:`DetectionHead`.

    Source: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017), as configured in mmdet for PVT, or as
    torchvision has it.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        conventions: ConventionsName = "mmdet",
        channels: int | None = None,
        detections: int | None = None,
    ) -> None:
        super().__init__(in_channels, strides, num_classes, conventions)
        rules = self.conventions
        self.detections = rules.retinanet_detections if detections is None else detections
        sizes = [[_SCALE * stride * 2 ** (i / _NUM_SCALES) for i in range(_NUM_SCALES)] for stride in strides]
        if rules.rounded_anchors:
            sizes = [[int(size) for size in own] for own in sizes]
        self.anchors = Anchors(strides, sizes, rules)
        width = self.in_channels if channels is None else channels
        self.class_tower = _tower(self.in_channels, width)
        self.box_tower = _tower(self.in_channels, width)
        # torchvision's scores include the background, which nobody reads.
        outputs = rules.outputs_of(num_classes)
        prior = -math.log((1 - _PRIOR) / _PRIOR)
        self.classes = init_conv(nn.Conv2d(width, self.anchors.per_cell * outputs, 3, padding=1), bias=prior)
        self.boxes = init_conv(nn.Conv2d(width, self.anchors.per_cell * 4, 3, padding=1))

    def loss(
        self, features: Sequence[Tensor], images: ImageBatch, targets: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """``loss_cls`` and ``loss_box``."""
        levels = self._outputs(features, images)
        logits, offsets = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        anchors = torch.cat(self.anchors(features, images))
        class_losses, box_losses, numbers = [], [], []
        for i, (size, target) in enumerate(zip(images.sizes, targets, strict=True)):
            matched = self._match(anchors, target["boxes"])
            if not self.conventions.padding_is_image:
                matched[~torch.cat(self.anchors.inside(features, size))] = IGNORED
            positive, counted = matched >= 0, matched != IGNORED
            truth = torch.zeros_like(logits[i])
            truth[positive, target["labels"][matched[positive]] + self._first_class] = 1
            own, own_truth = logits[i, counted], truth[counted]
            class_losses.append(sigmoid_focal_loss(own, own_truth, alpha=0.25, gamma=2, reduction="sum"))
            goals = encode_boxes(target["boxes"][matched[positive]], anchors[positive], _UNIT)
            box_losses.append(F.l1_loss(offsets[i, positive], goals, reduction="sum"))
            numbers.append(max(1, int(positive.sum())) if self.conventions.losses_per_image else int(positive.sum()))
        if self.conventions.losses_per_image:
            weights = [1 / (len(numbers) * number) for number in numbers]
        else:
            weights = [1 / max(1, sum(numbers))] * len(numbers)
        return {
            name: torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum()
            for name, values in (("loss_cls", class_losses), ("loss_box", box_losses))
        }

    def predict(self, features: Sequence[Tensor], images: ImageBatch) -> list[RawDetections]:
        """Detections of each image."""
        levels = self._outputs(features, images)
        anchors = self.anchors(features, images)
        return [self._select(anchors, levels, i, features, size) for i, size in enumerate(images.sizes)]

    @property
    def _first_class(self) -> int:
        return int(self.conventions.background_first)

    def _outputs(self, features: Sequence[Tensor], images: ImageBatch) -> list[tuple[Tensor, Tensor]]:
        """Of each map class logits ``[B, H * W * A, K]`` and box offsets ``[B, H * W * A, 4]``."""
        outputs = []
        for feature, grid in zip(features, self.grids(features, images), strict=True):
            classes = self.classes(_run(self.class_tower, feature, grid))
            boxes = self.boxes(_run(self.box_tower, feature, grid))
            outputs.append((self.anchors.rows(classes), self.anchors.rows(boxes)))
        return outputs

    def _match(self, anchors: Tensor, objects: Tensor) -> Tensor:
        takes_over = self.conventions.low_quality_takes_over
        return match(anchors, objects, 0.5, 0.4, low_quality_floor=0.0, low_quality_takes_over=takes_over)

    def _select(
        self,
        anchors: Sequence[Tensor],
        levels: Sequence[tuple[Tensor, Tensor]],
        image: int,
        features: Sequence[Tensor],
        size: tuple[int, int],
    ) -> RawDetections:
        boxes, scores, labels = [], [], []
        inside = None if self.conventions.padding_is_image else self.anchors.inside(features, size)
        for level, (logits, offsets) in enumerate(levels):
            own = logits[image, :, self._first_class :].sigmoid()
            if inside is not None:
                own = own.masked_fill(~inside[level][:, None], 0)
            cells, classes = (own > LEAST_SCORE).nonzero(as_tuple=True)
            best, order = own[cells, classes].topk(min(_BEFORE_NMS, len(cells)))
            cells, classes = cells[order], classes[order]
            moved = decode_boxes(offsets[image, cells], anchors[level][cells], _UNIT, self.conventions.clamps_shrinking)
            moved = clip_boxes(moved, size)
            # torchvision keeps boxes that lie in the padding, cut down to lines at the edge of the image.
            real = has_sides(moved, 0) | self.conventions.padding_is_image
            boxes.append(moved[real])
            scores.append(best[real])
            labels.append(classes[real])
        return non_repeating(torch.cat(boxes), torch.cat(scores), torch.cat(labels), self.detections)


def _tower(in_channels: int, channels: int) -> nn.ModuleList:
    widths = [in_channels] + [channels] * _NUM_CONVS
    return nn.ModuleList(init_conv(nn.Conv2d(before, after, 3, padding=1)) for before, after in pairwise(widths))


def _run(tower: nn.ModuleList, x: Tensor, grid: TokenGrid) -> Tensor:
    for conv in tower:
        x = grid.clear(F.relu(conv(x)))
    return x
