"""Feature pyramid network."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers import Size, own_grids

ExtraLevels = Literal["pool", "conv_input", "conv_output", "conv_output_relu"]


class FPN(nn.Module):
    """Give every level the same width and the context of all coarser levels.

    1x1 laterals, nearest-neighbour top-down sums, 3x3 outputs; no norm and no activation.

    Args:
        in_channels: channels of the incoming maps, finest first.
        strides: their strides, passed on unchanged.
        out_channels: channels of every outgoing map.
        start_level: index of the first map that is used; 1 leaves out stride 4, as RetinaNet does.
        extra_levels: levels beyond the last map, each of twice the stride: Mask R-CNN has 1, RetinaNet 2.
        extra: how they are made: ``pool`` takes every second cell of the level before (Mask R-CNN); the others are 3x3
            convolutions of stride 2, the first of them on the last incoming map (``conv_input``, RetinaNet) or on the
            last outgoing one (``conv_output``; torchvision's RetinaNet is ``conv_output_relu``, with a ReLU between).

    Attributes:
        channels: channels of the outgoing maps, finest first.
        strides: their strides.

    Raises:
        ValueError: if there are not as many strides as channels, or an option is out of its range.

    Source: Lin et al., Feature Pyramid Networks (CVPR 2017), as in mmseg's and mmdet's ``FPN`` (Xavier-uniform, zero
    biases).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        out_channels: int = 256,
        start_level: int = 0,
        extra_levels: int = 0,
        extra: ExtraLevels = "pool",
    ) -> None:
        super().__init__()
        if not in_channels or len(in_channels) != len(strides):
            raise ValueError(f"FPN needs one stride per level, got in_channels={in_channels} and strides={strides}")
        if not 0 <= start_level < len(in_channels):
            raise ValueError(f"start_level must be one of 0..{len(in_channels) - 1}, got {start_level}")
        if extra_levels < 0:
            raise ValueError(f"extra_levels must be at least 0, got {extra_levels}")
        if extra not in get_args(ExtraLevels):
            raise ValueError(f"extra must be one of {', '.join(get_args(ExtraLevels))}, got {extra!r}")
        used = in_channels[start_level:]
        coarser = [strides[-1] * 2 ** (level + 1) for level in range(extra_levels)]
        self.start_level = start_level
        self.extra_levels = extra_levels
        self.extra = extra
        self.channels = (out_channels,) * (len(used) + extra_levels)
        self.strides = (*strides[start_level:], *coarser)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in used)
        self.outputs = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in used)
        first = used[-1] if extra == "conv_input" else out_channels
        widths = [first, *(out_channels,) * extra_levels][:extra_levels] if extra != "pool" else []
        self.extras = nn.ModuleList(nn.Conv2d(width, out_channels, 3, stride=2, padding=1) for width in widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: list[Tensor], image_sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Make maps ``[B, out_channels, H_i, W_i]`` of maps ``[B, C_i, H_i, W_i]``, finest first.

        Args:
            features: the maps; zero outside the images' own parts where ``image_sizes`` are given.
            image_sizes: (h, w) of each image in a padded batch; the maps of an image then do not depend on the others,
                and are zero outside its own part.
        """
        used = features[self.start_level :]
        grids = own_grids(used, self.strides, image_sizes)
        maps: list[Tensor] = [
            grid.clear(lateral(x)) for grid, lateral, x in zip(grids, self.laterals, used, strict=True)
        ]
        for level in range(len(maps) - 1, 0, -1):
            finer = maps[level - 1]
            coarser = F.interpolate(maps[level], size=finer.shape[-2:], mode="nearest")
            maps[level - 1] = grids[level - 1].clear(finer + coarser)
        outputs = [grid.clear(output(x)) for grid, output, x in zip(grids, self.outputs, maps, strict=True)]
        return outputs + self._coarser(used[-1], outputs[-1], image_sizes)

    def _coarser(self, last_input: Tensor, last_output: Tensor, image_sizes: Sequence[Size] | None) -> list[Tensor]:
        """The extra levels."""
        levels: list[Tensor] = []
        x = last_input if self.extra == "conv_input" else last_output
        for level, stride in enumerate(self.strides[len(self.outputs) :]):
            if self.extra == "pool":
                x = x[:, :, ::2, ::2]
            else:
                x = self.extras[level](F.relu(x) if level and self.extra == "conv_output_relu" else x)
            (grid,) = own_grids([x], [stride], image_sizes)
            x = grid.clear(x)
            levels.append(x)
        return levels
