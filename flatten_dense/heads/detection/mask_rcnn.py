"""Faster R-CNN and Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.heads.detection.base import DetectionHead, RawDetections
from flatten_dense.heads.detection.box_head import (
    BoxHead,
    box_loss_weight,
    class_targets,
    foreground,
    select_detections,
    split,
)
from flatten_dense.heads.detection.boxes import Weights, box_l1, decode_boxes, encode_boxes
from flatten_dense.heads.detection.conventions import ConventionsName
from flatten_dense.heads.detection.mask_head import MaskHead, mask_probabilities
from flatten_dense.heads.detection.regions import SampledRegions, sample_regions
from flatten_dense.heads.detection.roi_align import extend_edges
from flatten_dense.heads.detection.rpn import RegionProposalNetwork
from flatten_dense.structures import ImageBatch

_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)
_IOU = 0.5


class MaskRCNNHead(DetectionHead):
    """Proposes regions, then finds the class, the box and the mask of each; without masks it is Faster R-CNN.

    Args:
        in_channels: channels of the incoming maps, the same in all.
        strides: their strides, 4 to 64 as published.
        num_classes: K.
        conventions: whose conventions are followed where implementations differ.
        masks: whether masks are predicted.
        fc_channels: width of the box head.
        rpn_samples: anchors of an image that a step learns from.
        roi_samples: regions of an image that a step learns from.
        train_proposals: regions of an image that these are drawn from; None is as the conventions say.
        test_proposals: regions of an image that are looked at after training.
        detections: kept of an image.

    Raises:
        ValueError: as :class:`DetectionHead`.

    Source: He et al., Mask R-CNN (ICCV 2017), as configured in mmdet for PVT and Swin, or as torchvision has it.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        conventions: ConventionsName = "mmdet",
        masks: bool = True,
        fc_channels: int = 1024,
        rpn_samples: int = 256,
        roi_samples: int = 512,
        train_proposals: int | None = None,
        test_proposals: int = 1000,
        detections: int = 100,
    ) -> None:
        super().__init__(in_channels, strides, num_classes, conventions)
        self.iou_types = ("bbox", "segm") if masks else ("bbox",)
        self.roi_samples = roi_samples
        self.detections = detections
        rules, channels = self.conventions, self.in_channels
        self.rpn = RegionProposalNetwork(
            channels,
            strides,
            rules,
            rpn_samples,
            rules.train_proposals if train_proposals is None else train_proposals,
            test_proposals,
            rules.smooth_l1_beta,
        )
        self.box_head = BoxHead(channels, strides, num_classes, rules, fc_channels)
        self.mask_head = MaskHead(channels, strides, num_classes, rules) if masks else None

    def loss(
        self, features: Sequence[Tensor], images: ImageBatch, targets: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """``loss_rpn_cls``, ``loss_rpn_box``, ``loss_cls``, ``loss_box`` and, with masks, ``loss_mask``."""
        losses: dict[str, Tensor]
        proposals, losses = self.rpn(features, images, [target["boxes"] for target in targets])
        regions = sample_regions(
            proposals, targets, self.num_classes, _IOU, self.roi_samples, self.conventions.low_quality_regions
        )
        maps = self._readable(features, images)
        losses = losses | self._box_losses(maps, regions, targets)
        if self.mask_head is not None:
            losses["loss_mask"] = self.mask_head.loss(maps, regions, targets)
        return losses

    def predict(self, features: Sequence[Tensor], images: ImageBatch) -> list[RawDetections]:
        """Detections of each image."""
        proposals, _ = self.rpn(features, images)
        maps = self._readable(features, images)
        logits, offsets = self.box_head(maps, proposals)
        scores = foreground(logits.softmax(1), self.conventions)
        boxes = decode_boxes(offsets, torch.cat(proposals)[:, None], _WEIGHTS, self.conventions.clamps_shrinking)
        found = select_detections(scores, boxes, proposals, images.sizes, self.detections, self.conventions)
        return self._with_masks(maps, found)

    def _readable(self, features: Sequence[Tensor], images: ImageBatch) -> Sequence[Tensor]:
        return features if self.conventions.padding_is_image else extend_edges(features, self.strides, images)

    def _box_losses(
        self, maps: Sequence[Tensor], regions: Sequence[SampledRegions], targets: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        logits, offsets = self.box_head(maps, [own.boxes for own in regions])
        labels = torch.cat([own.labels for own in regions])
        truth = class_targets(labels, self.num_classes, self.conventions)
        positive = labels < self.num_classes
        objects = [target["boxes"][own.objects] for own, target in zip(regions, targets, strict=True)]
        goals = encode_boxes(torch.cat(objects), torch.cat([own.positive for own in regions]), _WEIGHTS)
        chosen = offsets[positive, labels[positive]]
        weight = box_loss_weight(len(labels))
        return {
            "loss_cls": weight * F.cross_entropy(logits, truth, reduction="sum"),
            "loss_box": weight * box_l1(chosen, goals, self.conventions.smooth_l1_beta),
        }

    def _with_masks(self, maps: Sequence[Tensor], found: list[RawDetections]) -> list[RawDetections]:
        if self.mask_head is None:
            return found
        boxes = [own.boxes for own in found]
        logits = self.mask_head(maps, boxes)
        masks = mask_probabilities(logits, torch.cat([own.labels for own in found]))
        return [own._replace(masks=part) for own, part in zip(found, split(masks, boxes), strict=True)]
