"""The mask of a region, from its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from flatten_dense.heads.detection.conventions import Conventions
from flatten_dense.heads.detection.regions import SampledRegions
from flatten_dense.heads.detection.roi_align import RegionFeatures

_REGION_SIZE = 14  # side of a region's features, in cells
_MASK_SIZE = 2 * _REGION_SIZE
_NUM_CONVS = 4


class MaskHead(nn.Module):
    """Four 3x3 convolutions, a transposed one that doubles the map, and a mask for each class.

    Args:
        in_channels: of the maps.
        strides: of the maps.
        num_classes: K.
        conventions: of the detector.

    Source: He et al., Mask R-CNN (ICCV 2017).
    """

    def __init__(self, in_channels: int, strides: Sequence[int], num_classes: int, conventions: Conventions) -> None:
        super().__init__()
        self.conventions = conventions
        self.features = RegionFeatures(strides, _REGION_SIZE, conventions)
        self.convs = nn.Sequential(*(nn.Conv2d(in_channels, in_channels, 3, padding=1) for _ in range(_NUM_CONVS)))
        self.upsample = nn.ConvTranspose2d(in_channels, in_channels, 2, stride=2)
        self.masks = nn.Conv2d(in_channels, conventions.outputs_of(num_classes), 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits ``[R, K, 28, 28]``, float32, of the boxes ``[N_b, 4]`` of each image, R in all."""
        x = self.features(maps, boxes)
        for conv in self.convs:
            x = F.relu(conv(x))
        logits: Tensor = self.masks(F.relu(self.upsample(x))).float()
        return logits[:, int(self.conventions.background_first) :]

    def loss(
        self, maps: Sequence[Tensor], regions: Sequence[SampledRegions], targets: Sequence[dict[str, Any]]
    ) -> Tensor:
        """Mean binary cross-entropy of the masks of the true classes, over the regions that stand for objects."""
        logits: Tensor = self(maps, [own.positive for own in regions])
        if len(logits) == 0:
            return logits.sum() * 0
        labels = torch.cat([own.labels[: len(own.objects)] for own in regions])
        truth = [
            mask_targets(target["masks"], own.objects, own.positive, self.conventions)
            for own, target in zip(regions, targets, strict=True)
        ]
        rows = torch.arange(len(labels), device=labels.device)
        return F.binary_cross_entropy_with_logits(logits[rows, labels], torch.cat(truth))


def mask_targets(masks: Tensor, objects: Tensor, boxes: Tensor, conventions: Conventions) -> Tensor:
    """The part of an object's mask within a region, as the head should see it.

    Args:
        masks: bool ``[G, h, w]``.
        objects: int64 ``[N]``, which mask each region is after.
        boxes: regions ``[N, 4]`` in pixels of the masks.
        conventions: of the detector.

    Returns:
        float32 ``[N, 28, 28]``, 0..1.
    """
    if len(boxes) == 0:
        return boxes.new_zeros(0, _MASK_SIZE, _MASK_SIZE)
    numbered = torch.cat([objects[:, None].to(boxes.dtype), boxes], 1)
    # As many samples as the mask has pixels there, whatever the sampling of features.
    cut: Tensor = roi_align(
        masks[:, None].float(), numbered, _MASK_SIZE, sampling_ratio=-1, aligned=conventions.aligned
    )
    cut = cut[:, 0]
    return (cut >= 0.5).float() if conventions.binary_masks else cut


def mask_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities ``[N, 28, 28]`` of the masks of the classes found, out of logits ``[N, K, 28, 28]``."""
    return torch.sigmoid(logits[torch.arange(len(labels), device=labels.device), labels])
