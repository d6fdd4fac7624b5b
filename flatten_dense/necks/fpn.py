"""Feature pyramid network."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Give every level the same width and the context of all coarser levels.

    1x1 laterals, nearest-neighbour top-down sums, 3x3 outputs; no norm and no activation.

    Args:
        in_channels: channels of the incoming maps, finest first.
        strides: their strides, passed on unchanged.
        out_channels: channels of every outgoing map.

    Attributes:
        channels: channels of the outgoing maps, finest first.
        strides: their strides.

    Raises:
        ValueError: if there are not as many strides as channels.

    Source: Lin et al., Feature Pyramid Networks (CVPR 2017), as in mmseg's ``FPN`` (Xavier-uniform, zero biases).
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        if not in_channels or len(in_channels) != len(strides):
            raise ValueError(f"FPN needs one stride per level, got in_channels={in_channels} and strides={strides}")
        self.channels = (out_channels,) * len(in_channels)
        self.strides = tuple(strides)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.outputs = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps ``[B, C_i, H_i, W_i]``, finest first -> maps ``[B, out_channels, H_i, W_i]``."""
        maps: list[Tensor] = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for level in range(len(maps) - 1, 0, -1):
            finer = maps[level - 1]
            maps[level - 1] = finer + F.interpolate(maps[level], size=finer.shape[-2:], mode="nearest")
        return [output(x) for output, x in zip(self.outputs, maps, strict=True)]
