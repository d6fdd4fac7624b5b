"""Class and box of a region, from its features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from flatten_dense.heads.detection.base import RawDetections
from flatten_dense.heads.detection.boxes import clip_boxes, has_sides
from flatten_dense.heads.detection.conventions import Conventions
from flatten_dense.heads.detection.roi_align import RegionFeatures
from flatten_dense.layers import conv_bn_relu

LEAST_SCORE = 0.05
_REGION_SIZE = 7  # side of a region's features, in cells
_NMS_IOU = 0.5


class BoxHead(nn.Module):
    """Scores of K classes and the background, and a box for each class.

    Args:
        in_channels: of the maps.
        strides: of the maps.
        num_classes: K.
        conventions: of the detector.
        fc_channels: width of the fully connected layers.
        num_convs: 3x3 convolutions with BatchNorm that come before one such layer; 0 for two layers and none.

    Source: the two-layer head of Lin et al., Feature Pyramid Networks (CVPR 2017); that of convolutions as in the
    Cascade Mask R-CNN of Swin Transformer (``4conv1fc``).
    """

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int,
        conventions: Conventions,
        fc_channels: int = 1024,
        num_convs: int = 0,
    ) -> None:
        super().__init__()
        self.conventions = conventions
        self.features = RegionFeatures(strides, _REGION_SIZE, conventions)
        self.convs = nn.Sequential(*(conv_bn_relu(in_channels, in_channels) for _ in range(num_convs)))
        self.fc1 = nn.Linear(in_channels * _REGION_SIZE**2, fc_channels)
        self.fc2 = nn.Identity() if num_convs else nn.Linear(fc_channels, fc_channels)
        self.classes = nn.Linear(fc_channels, num_classes + 1)
        self.boxes = nn.Linear(fc_channels, 4 * conventions.outputs_of(num_classes))
        if conventions.published_weights:
            self._init_weights()

    def forward(self, maps: Sequence[Tensor], regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits ``[R, K + 1]`` and box offsets ``[R, K, 4]``, float32, of regions ``[N_b, 4]``, R in all."""
        x = F.relu(self.fc1(self.convs(self.features(maps, regions)).flatten(1)))
        if isinstance(self.fc2, nn.Linear):
            x = F.relu(self.fc2(x))
        offsets = self.boxes(x).float().unflatten(1, (-1, 4))
        return self.classes(x).float(), offsets[:, int(self.conventions.background_first) :]

    def _init_weights(self) -> None:
        for layer in (self.fc1, self.fc2, self.classes, self.boxes):
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
        for layer in (self.fc1, self.fc2):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.boxes.weight, std=0.001)


def class_targets(labels: Tensor, num_classes: int, conventions: Conventions) -> Tensor:
    """Indices among the K + 1 scores of labels from 0, where K stands for the background."""
    return (labels + 1) % (num_classes + 1) if conventions.background_first else labels


def foreground(scores: Tensor, conventions: Conventions) -> Tensor:
    """The scores ``[R, K]`` of the classes, out of ``[R, K + 1]``."""
    return scores[:, 1:] if conventions.background_first else scores[:, :-1]


def select_detections(
    scores: Tensor,
    boxes: Tensor,
    regions: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    most: int,
    conventions: Conventions,
) -> list[RawDetections]:
    """The detections of each image: of each class those that repeat no better one.

    Args:
        scores: ``[R, K]``.
        boxes: ``[R, K, 4]``.
        regions: the regions ``[N_b, 4]`` of each image, R in all.
        sizes: (h, w) of each image.
        most: how many to keep of an image.
        conventions: of the detector.
    """
    found = []
    for own_scores, own_boxes, size in zip(split(scores, regions), split(boxes, regions), sizes, strict=True):
        rows, labels = (own_scores > LEAST_SCORE).nonzero(as_tuple=True)
        clipped, ranks = clip_boxes(own_boxes[rows, labels], size), own_scores[rows, labels]
        real = has_sides(clipped, conventions.least_detection)
        found.append(non_repeating(clipped[real], ranks[real], labels[real], most))
    return found


def non_repeating(boxes: Tensor, scores: Tensor, labels: Tensor, most: int) -> RawDetections:
    """Non-maximum suppression within each class, the best ``most`` of the rest."""
    kept = batched_nms(boxes, scores, labels, _NMS_IOU)[:most]
    return RawDetections(boxes[kept], scores[kept], labels[kept])


def box_loss_weight(number: int) -> float:
    """Losses of regions are sums over the sampled ones, divided by their number."""
    return 1 / max(1, number)


def split(values: Tensor, regions: Sequence[Tensor]) -> list[Tensor]:
    """Rows of all regions, by image."""
    return list(torch.split(values, [len(own) for own in regions]))
