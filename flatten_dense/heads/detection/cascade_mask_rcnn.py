"""Cascade R-CNN, with boxes alone or with masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from flatten_dense.heads.detection.base import DetectionHead, RawDetections
from flatten_dense.heads.detection.box_head import BoxHead, box_loss_weight, select_detections, split
from flatten_dense.heads.detection.boxes import Weights, clip_boxes, decode_boxes, has_sides
from flatten_dense.heads.detection.mask_head import MaskHead, mask_probabilities
from flatten_dense.heads.detection.regions import SampledRegions, sample_regions
from flatten_dense.heads.detection.roi_align import extend_edges
from flatten_dense.heads.detection.rpn import RegionProposalNetwork
from flatten_dense.structures import ImageBatch

_IOUS = (0.5, 0.6, 0.7)
_LOSS_WEIGHTS = (1.0, 0.5, 0.25)
_BOX_WEIGHTS: tuple[Weights, ...] = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067),
)
_GIOU_WEIGHT = 10.0
_RPN_BETA = 1 / 9


class CascadeMaskRCNNHead(DetectionHead):
    """Finds the class, the box and the mask of regions three times, each time in the boxes found before.

    Args:
        in_channels: channels of the incoming maps, the same in all.
        strides: their strides, 4 to 64 as published.
        num_classes: K.
        masks: whether masks are predicted.
        num_convs: convolutions of each box head; 0 for a second fully connected layer instead.
        fc_channels: width of the box heads.
        rpn_samples: anchors of an image that a step learns from.
        roi_samples: regions of an image that each stage of a step learns from.
        train_proposals: regions of an image that these are drawn from.
        test_proposals: regions of an image that are looked at after training.
        detections: kept of an image.

    Raises:
        ValueError: as :class:`DetectionHead`.

    Source: Cai and Vasconcelos, Cascade R-CNN (TPAMI 2019), as configured in mmdet for Swin Transformer: boxes learn by
    the GIoU of the decoded boxes, and every class has its own.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        masks: bool = True,
        num_convs: int = 4,
        fc_channels: int = 1024,
        rpn_samples: int = 256,
        roi_samples: int = 512,
        train_proposals: int = 2000,
        test_proposals: int = 1000,
        detections: int = 100,
    ) -> None:
        super().__init__(in_channels, strides, num_classes)
        self.iou_types = ("bbox", "segm") if masks else ("bbox",)
        self.roi_samples = roi_samples
        self.detections = detections
        rules, channels = self.conventions, self.in_channels
        self.rpn = RegionProposalNetwork(
            channels, strides, rules, rpn_samples, train_proposals, test_proposals, _RPN_BETA, drops_leaving=True
        )
        parts = channels, strides, num_classes, rules
        self.box_heads = nn.ModuleList(BoxHead(*parts, fc_channels, num_convs) for _ in _IOUS)
        self.mask_heads = nn.ModuleList(MaskHead(*parts) for _ in _IOUS if masks)

    def loss(
        self, features: Sequence[Tensor], images: ImageBatch, targets: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """``loss_rpn_cls``, ``loss_rpn_box`` and, with the number of the stage behind, those of Mask R-CNN."""
        losses: dict[str, Tensor]
        boxes, losses = self.rpn(features, images, [target["boxes"] for target in targets])
        maps = extend_edges(features, self.strides, images)
        for stage, loss_weight in enumerate(_LOSS_WEIGHTS):
            regions = sample_regions(boxes, targets, self.num_classes, _IOUS[stage], self.roi_samples)
            logits, decoded = self._stage(stage, maps, [own.boxes for own in regions])
            own_losses = self._box_losses(logits, decoded, regions, targets)
            if self.mask_heads:
                own_losses["loss_mask"] = self.mask_heads[stage].loss(maps, regions, targets)  # type: ignore[operator]
            losses |= {f"{name}_{stage}": loss_weight * value for name, value in own_losses.items()}
            boxes = self._refined_samples(logits.detach(), decoded.detach(), regions, images)
        return losses

    def predict(self, features: Sequence[Tensor], images: ImageBatch) -> list[RawDetections]:
        """Detections of each image: boxes of the last stage, scores and masks of all."""
        boxes, _ = self.rpn(features, images)
        maps = extend_edges(features, self.strides, images)
        summed, decoded = torch.zeros((), device=maps[0].device), torch.empty(0)
        for stage in range(len(_IOUS)):
            logits, decoded = self._stage(stage, maps, boxes)
            summed = summed + logits
            if stage < len(_IOUS) - 1:
                refined = _of_best_class(decoded, logits)
                boxes = [clip_boxes(own, size) for own, size in zip(split(refined, boxes), images.sizes, strict=True)]
        scores = (summed / len(_IOUS)).softmax(1)[:, :-1]
        found = select_detections(scores, decoded, boxes, images.sizes, self.detections, self.conventions)
        return self._with_masks(maps, found)

    def _stage(self, stage: int, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits ``[R, K + 1]`` and boxes ``[R, K, 4]`` of all regions."""
        logits, offsets = self.box_heads[stage](maps, boxes)
        before = torch.cat(list(boxes))[:, None]
        return logits, decode_boxes(offsets, before, _BOX_WEIGHTS[stage], self.conventions.clamps_shrinking)

    def _box_losses(
        self,
        logits: Tensor,
        decoded: Tensor,
        regions: Sequence[SampledRegions],
        targets: Sequence[dict[str, Any]],
    ) -> dict[str, Tensor]:
        labels = torch.cat([own.labels for own in regions])
        positive = labels < self.num_classes
        objects = [target["boxes"][own.objects] for own, target in zip(regions, targets, strict=True)]
        overlap = generalized_box_iou_loss(decoded[positive, labels[positive]], torch.cat(objects), reduction="sum")
        weight = box_loss_weight(len(labels))
        return {
            "loss_cls": weight * F.cross_entropy(logits, labels, reduction="sum"),
            "loss_box": weight * _GIOU_WEIGHT * overlap,
        }

    def _refined_samples(
        self, logits: Tensor, decoded: Tensor, regions: Sequence[SampledRegions], images: ImageBatch
    ) -> list[Tensor]:
        """The boxes that the next stage starts from: those of the true class, or of the best one for background."""
        labels = torch.cat([own.labels for own in regions])
        best = logits[:, :-1].argmax(1)
        chosen = torch.where(labels < self.num_classes, labels, best)
        moved = decoded[torch.arange(len(labels), device=labels.device), chosen]
        refined = []
        for own, boxes, size in zip(regions, split(moved, [r.boxes for r in regions]), images.sizes, strict=True):
            boxes = clip_boxes(boxes[~own.is_object], size)
            refined.append(boxes[has_sides(boxes, 0)])
        return refined

    def _with_masks(self, maps: Sequence[Tensor], found: list[RawDetections]) -> list[RawDetections]:
        if not self.mask_heads:
            return found
        boxes, labels = [own.boxes for own in found], torch.cat([own.labels for own in found])
        masks = torch.stack([mask_probabilities(head(maps, boxes), labels) for head in self.mask_heads]).mean(0)
        return [own._replace(masks=part) for own, part in zip(found, split(masks, boxes), strict=True)]


def _of_best_class(decoded: Tensor, logits: Tensor) -> Tensor:
    """Of boxes ``[R, K, 4]`` the one of the best class, background aside: ``[R, 4]``."""
    return decoded[torch.arange(len(decoded), device=decoded.device), logits[:, :-1].argmax(1)]
