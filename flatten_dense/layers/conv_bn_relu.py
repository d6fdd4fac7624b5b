"""The convolution of heads: no bias, BatchNorm, ReLU."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Sequential:
    """A convolution that keeps the map's size, BatchNorm and ReLU.

    It trains on one image at a time, too: where a channel has a single value, as after pooling one image to 1x1, there
    is nothing to take a variance of, and BatchNorm goes by its running statistics as in evaluation.

    Args:
        in_channels: of the incoming map.
        out_channels: of the outgoing map.
        kernel_size: odd side of the kernel.

    Source: mmcv's ``ConvModule`` as mmseg's heads use it: Kaiming-normal by fan-out for ReLU. Changed: torch's
    BatchNorm refuses to train on one value per channel.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, _BatchNorm(out_channels), nn.ReLU(inplace=True))


class _BatchNorm(nn.BatchNorm2d):
    """BatchNorm that also trains on a single value per channel. Its synchronised form gathers more values by itself."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
