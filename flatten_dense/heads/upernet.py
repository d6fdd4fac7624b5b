"""UPerNet: the context of the whole image, passed down a pyramid whose levels are all read at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.heads.base import SegmentationHead, make_classifier
from flatten_dense.layers import conv_bn_relu


class UPerHead(SegmentationHead):
    """The decode head of UPerNet.

    The coarsest map is joined with its averages over coarse grids (pyramid pooling), the others pass 1x1 laterals; each
    level is added, bilinearly resized, to the next finer one. All levels, the finer ones after a 3x3 convolution, are
    resized to the finest, concatenated, convolved and classified.

    Args:
        in_channels: channels of the incoming maps, finest first; any number of them.
        strides: their strides.
        num_classes: K.
        channels: width of the head.
        pool_sizes: cells per side of each grid that the coarsest map is averaged over.
        dropout: probability of dropping a whole channel before the classifier.

    Raises:
        ValueError: as :class:`SegmentationHead`, or if a pool size is below 1.

    Source: Xiao et al., Unified Perceptual Parsing (ECCV 2018), as in mmseg's ``UPerHead``; convolutions as
    :func:`conv_bn_relu`, the classifier starts normal with std 0.01.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        channels: int = 512,
        pool_sizes: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__(in_channels, strides, num_classes)
        if any(size < 1 for size in pool_sizes):
            raise ValueError(f"UPerHead needs pool_sizes of at least 1 cell, got {tuple(pool_sizes)}")
        *finer, coarsest = in_channels
        self.pool_sizes = tuple(pool_sizes)
        self.pools = nn.ModuleList(conv_bn_relu(coarsest, channels, 1) for _ in pool_sizes)
        self.context = conv_bn_relu(coarsest + len(pool_sizes) * channels, channels)
        self.laterals = nn.ModuleList(conv_bn_relu(width, channels, 1) for width in finer)
        self.outputs = nn.ModuleList(conv_bn_relu(channels, channels) for _ in finer)
        self.fusion = conv_bn_relu(len(in_channels) * channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = make_classifier(channels, num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``[B, C_i, H_i, W_i]``, finest first -> logits ``[B, K, H_0, W_0]``."""
        *finer, coarsest = features
        maps: list[Tensor] = [lateral(x) for lateral, x in zip(self.laterals, finer, strict=True)]
        maps.append(self._with_context(coarsest))
        for level in range(len(maps) - 1, 0, -1):
            maps[level - 1] = maps[level - 1] + _resize_to(maps[level], maps[level - 1])
        levels = [output(x) for output, x in zip(self.outputs, maps[:-1], strict=True)] + maps[-1:]
        fused = self.fusion(torch.cat([_resize_to(x, levels[0]) for x in levels], dim=1))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits

    def _with_context(self, x: Tensor) -> Tensor:
        pooled = (
            _resize_to(pool(F.adaptive_avg_pool2d(x, size)), x)
            for pool, size in zip(self.pools, self.pool_sizes, strict=True)
        )
        joined: Tensor = self.context(torch.cat([x, *pooled], dim=1))
        return joined


def _resize_to(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
