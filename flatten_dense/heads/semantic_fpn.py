"""Semantic FPN: convolve and double every level up to the finest, add, classify."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.heads.base import SegmentationHead, make_classifier
from flatten_dense.layers import conv_bn_relu


class SemanticFPNHead(SegmentationHead):
    """The head of Semantic FPN.

    A level that lies n doublings above the finest passes n times (the finest: once) through 3x3 convolution, BatchNorm,
    ReLU and, unless it is the finest, bilinear upsampling. The levels are summed and classified by a 1x1 convolution.

    Args:
        in_channels: channels of the incoming maps, finest first.
        strides: their strides; each a power of two times the first.
        num_classes: K.
        channels: width of the head.
        dropout: probability of dropping a whole channel before the classifier.

    Raises:
        ValueError: as :class:`SegmentationHead`, or if a stride is no power of two times the first.

    Source: Kirillov et al., Panoptic Feature Pyramid Networks (CVPR 2019), as in mmseg's ``FPNHead``: BatchNorm
    (synchronised by the Trainer) in place of GroupNorm; convolutions start Kaiming-normal (fan-out, ReLU) as in mmcv's
    ``ConvModule``, the classifier normal with std 0.01. Changed: each upsampling ends at the true size of a map of that
    stride, ceil(size / stride), where the original doubles and stretches the result at the end; for sizes that the
    coarsest stride divides the two are the same.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        channels: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(in_channels, strides, num_classes)
        self.levels = nn.ModuleList(
            _Level(width, channels, _doublings(stride, strides))
            for width, stride in zip(in_channels, strides, strict=True)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = make_classifier(channels, num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``[B, C_i, H_i, W_i]``, finest first -> logits ``[B, K, H_0, W_0]``."""
        height, width = features[0].shape[-2:]
        maps: list[Tensor] = [level(x, height, width) for level, x in zip(self.levels, features, strict=True)]
        logits: Tensor = self.classifier(self.dropout(sum(maps[1:], maps[0])))
        return logits


class _Level(nn.Module):
    """Bring the map of one level to the finest level's size in a number of doublings."""

    def __init__(self, in_channels: int, channels: int, doublings: int) -> None:
        super().__init__()
        self.doublings = doublings
        self.blocks = nn.ModuleList(
            conv_bn_relu(channels if step else in_channels, channels) for step in range(max(1, doublings))
        )

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        for step, block in enumerate(self.blocks, start=1):
            x = block(x)
            if self.doublings:
                shrink = 2 ** (self.doublings - step)
                size = (-(-height // shrink), -(-width // shrink))
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return x


def _doublings(stride: int, strides: Sequence[int]) -> int:
    ratio, rest = divmod(stride, strides[0])
    if rest or ratio & (ratio - 1):
        raise ValueError(
            f"SemanticFPNHead needs strides that are powers of two times the finest, got strides={strides}"
        )
    return ratio.bit_length() - 1
