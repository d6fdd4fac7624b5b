"""The region proposal network: where there may be an object, whatever its class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from flatten_dense.heads.detection.anchors import Anchors
from flatten_dense.heads.detection.base import init_conv
from flatten_dense.heads.detection.boxes import Weights, box_l1, clip_boxes, decode_boxes, encode_boxes, has_sides
from flatten_dense.heads.detection.conventions import Conventions
from flatten_dense.heads.detection.matching import match, sample
from flatten_dense.structures import ImageBatch

_UNIT: Weights = (1.0, 1.0, 1.0, 1.0)
_SCALE = 8  # side of a square anchor in cells
_BEFORE_NMS = {True: 2000, False: 1000}  # per level, in training and afterwards
_NMS_IOU = 0.7


class RegionProposalNetwork(nn.Module):
    """Scores anchors of three shapes at every cell of every map, and moves them.

    Args:
        channels: of the maps, and of the network.
        strides: of the maps.
        conventions: of the detector.
        num_samples: anchors per image that a training step learns from, half of them on objects at most.
        train_proposals: regions per image that are passed on in training.
        test_proposals: and afterwards.
        smooth_l1_beta: of the box loss.
        drops_leaving: whether anchors that leave the image are left out in training.

    Source: Ren et al., Faster R-CNN (NeurIPS 2015), with the feature pyramid of Lin et al. (CVPR 2017), as in mmdet.
    """

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        conventions: Conventions,
        num_samples: int = 256,
        train_proposals: int = 1000,
        test_proposals: int = 1000,
        smooth_l1_beta: float = 0.0,
        drops_leaving: bool = False,
    ) -> None:
        super().__init__()
        self.conventions = conventions
        self.num_samples = num_samples
        self.num_proposals = {True: train_proposals, False: test_proposals}
        self.smooth_l1_beta = smooth_l1_beta
        self.drops_leaving = drops_leaving
        self.anchors = Anchors(strides, [(stride * _SCALE,) for stride in strides], conventions)
        self.conv = init_conv(nn.Conv2d(channels, channels, 3, padding=1))
        self.objectness = init_conv(nn.Conv2d(channels, self.anchors.per_cell, 1))
        self.offsets = init_conv(nn.Conv2d(channels, 4 * self.anchors.per_cell, 1))

    def forward(
        self, features: Sequence[Tensor], images: ImageBatch, objects: Sequence[Tensor] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Propose regions, and learn where the objects are told.

        Args:
            features: maps ``[B, C, H_i, W_i]``, zero outside the images' own parts.
            images: the padded batch.
            objects: boxes ``[G, 4]`` of each image, in training.

        Returns:
            Regions ``[N, 4]`` of each image, without gradient, highest score first; and ``loss_rpn_cls`` and
            ``loss_rpn_box``, none without ``objects``.
        """
        hidden = [F.relu(self.conv(feature)) for feature in features]
        scores = [self.anchors.rows(self.objectness(x)).squeeze(2) for x in hidden]
        offsets = [self.anchors.rows(self.offsets(x)) for x in hidden]
        anchors = self.anchors(features, images)
        regions = []
        for i, size in enumerate(images.sizes):
            own = [x[i].detach() for x in scores], [x[i].detach() for x in offsets]
            regions.append(self._propose(anchors, *own, self._inside(features, size), size))
        if objects is None:
            return regions, {}
        flat = torch.cat(anchors), torch.cat(scores, 1), torch.cat(offsets, 1)
        return regions, self._losses(features, images, *flat, objects)

    def _inside(self, features: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor] | None:
        return None if self.conventions.padding_is_image else self.anchors.inside(features, size)

    def _propose(
        self,
        anchors: Sequence[Tensor],
        scores: Sequence[Tensor],
        offsets: Sequence[Tensor],
        inside: Sequence[Tensor] | None,
        size: tuple[int, int],
    ) -> Tensor:
        """Regions of one image: the best of each level, moved, without those that repeat another."""
        boxes, kept_scores, levels = [], [], []
        for level, (own_anchors, own_scores, own_offsets) in enumerate(zip(anchors, scores, offsets, strict=True)):
            if inside is not None:
                cells = inside[level]
                own_anchors, own_scores, own_offsets = own_anchors[cells], own_scores[cells], own_offsets[cells]
            best, order = own_scores.topk(min(_BEFORE_NMS[self.training], len(own_scores)))
            moved = decode_boxes(own_offsets[order], own_anchors[order], _UNIT, self.conventions.clamps_shrinking)
            boxes.append(clip_boxes(moved, size))
            kept_scores.append(best)
            levels.append(torch.full_like(order, level))
        candidates, ranks, level_of = torch.cat(boxes), torch.cat(kept_scores), torch.cat(levels)
        real = has_sides(candidates, self.conventions.least_proposal)
        candidates, ranks, level_of = candidates[real], ranks[real], level_of[real]
        kept = batched_nms(candidates, ranks, level_of, _NMS_IOU)[: self.num_proposals[self.training]]
        return candidates[kept]

    def _losses(
        self,
        features: Sequence[Tensor],
        images: ImageBatch,
        anchors: Tensor,
        scores: Tensor,
        offsets: Tensor,
        objects: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        class_loss, box_loss, number = scores.sum() * 0, offsets.sum() * 0, 0
        for i, (size, own_objects) in enumerate(zip(images.sizes, objects, strict=True)):
            allowed = self._allowed(features, anchors, size)
            matched = match(
                anchors[allowed],
                own_objects,
                positive=0.7,
                negative=0.3,
                low_quality_floor=self.conventions.low_quality_floor,
                low_quality_takes_over=self.conventions.low_quality_takes_over,
            )
            positive, negative = sample(matched, self.num_samples, positive_share=0.5)
            chosen, on_object = allowed[torch.cat([positive, negative])], allowed[positive]
            truth = (torch.arange(len(chosen), device=chosen.device) < len(positive)).float()
            class_loss = class_loss + F.binary_cross_entropy_with_logits(scores[i, chosen], truth, reduction="sum")
            goals = encode_boxes(own_objects[matched[positive]], anchors[on_object], _UNIT)
            box_loss = box_loss + box_l1(offsets[i, on_object], goals, self.smooth_l1_beta)
            number += len(chosen)
        return {"loss_rpn_cls": class_loss / max(1, number), "loss_rpn_box": box_loss / max(1, number)}

    def _allowed(self, features: Sequence[Tensor], anchors: Tensor, size: tuple[int, int]) -> Tensor:
        """Indices of the anchors that a training step may learn from in an image."""
        inside = self._inside(features, size)
        allowed = torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
        if inside is not None:
            allowed &= torch.cat(inside)
        if self.drops_leaving:
            height, width = size
            allowed &= (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
        return allowed.nonzero()[:, 0]
