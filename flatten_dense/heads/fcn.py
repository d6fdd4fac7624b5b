"""The auxiliary head: a convolution and a classifier on one level."""

from collections.abc import Sequence

from torch import Tensor, nn

from flatten_dense.heads.base import SegmentationHead, make_classifier
from flatten_dense.layers import conv_bn_relu


class FCNHead(SegmentationHead):
    """A 3x3 convolution and a classifier on one of the incoming maps; the auxiliary head of UPerNet.

    Args:
        in_channels: channels of the incoming maps, finest first.
        strides: their strides.
        num_classes: K.
        channels: width of the head.
        dropout: probability of dropping a whole channel before the classifier.
        level: index of the map that is read; by default the last but one, of stride 16 in the usual backbones.

    Raises:
        ValueError: as :class:`SegmentationHead`, or if there is no such level.

    Source: Long et al., Fully Convolutional Networks (CVPR 2015), as in mmseg's ``FCNHead`` with ``num_convs=1`` and
    ``concat_input=False``; initialised as :class:`UPerHead`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        channels: int = 256,
        dropout: float = 0.1,
        level: int = -2,
    ) -> None:
        super().__init__(in_channels, strides, num_classes)
        levels = len(in_channels)
        if not -levels <= level < levels:
            raise ValueError(
                f"FCNHead reads level={level}, but gets {levels} map(s) of strides {tuple(strides)}: set level to one "
                f"of {-levels}..{levels - 1}"
            )
        self.level = level
        self.conv = conv_bn_relu(in_channels[level], channels)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = make_classifier(channels, num_classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``[B, C_i, H_i, W_i]``, finest first -> logits ``[B, K, H_l, W_l]``, l the level it reads."""
        logits: Tensor = self.classifier(self.dropout(self.conv(features[self.level])))
        return logits
