"""`flatten-dense` with torchvision's LR-ASPP MobileNetV3-Large among its models: the baseline of our CamVid recipe.

    python tools/lraspp_baseline.py fit -c tools/lraspp_camvid.yaml --data.root camvid_ade
    python tools/lraspp_baseline.py test --ckpt_path best.ckpt --trust lraspp_baseline --data.root camvid_ade

The network is torchvision's own, untrained, layer for layer; data, loss, schedule and evaluation are our task's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
from torchvision.models.segmentation.lraspp import LRASPPHead

from flatten_dense.backbones import TimmBackbone
from flatten_dense.cli import main
from flatten_dense.heads import SegmentationHead


class MobileNetV3(TimmBackbone):
    """torchvision's MobileNetV3-Large, dilated to stride 16, in the place of a timm model."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            super().__init__("mobilenetv3_large_100")
        self.body = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).backbone
        self.channels = (40, 960)
        self.strides = (8, 16)

    def forward(self, images: Tensor, image_sizes: None = None) -> list[Tensor]:
        """Images ``[B, 3, H, W]`` -> maps of stride 8 and 16."""
        maps = self.body(images)
        return [maps["low"], maps["high"]]


class LRASPP(SegmentationHead):
    """torchvision's head on those two maps."""

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        super().__init__(in_channels, strides, num_classes)
        self.body = LRASPPHead(*in_channels, num_classes=num_classes, inter_channels=128)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps -> logits of stride 8."""
        return self.body({"low": features[0], "high": features[1]})


if __name__ == "__main__":
    raise SystemExit(main())
