"""A pyramid from the one map of a plain vision transformer."""

from collections.abc import Sequence

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from flatten_dense.layers import Size, own_grids


class SimplePyramid(nn.Module):
    """Make finer and coarser levels of a single map.

    A level that is n times finer is made by n transposed 2x2 convolutions, with LayerNorm and GELU between them, each
    doubling the map and halving its channels; a coarser one by 2x2 max-pooling. Every level then passes a 1x1 and a 3x3
    convolution, each with LayerNorm over the channels.

    For FLatten-DeiT, and for timm's plain vision transformers with ``out_indices=(-1,)`` of their TimmBackbone.

    Args:
        in_channels: channels of the map, in a list of one.
        strides: its stride, likewise.
        out_channels: channels of every outgoing map.
        doublings: levels finer than the map; the default turns stride 16 into 4, 8 and 16.
        halvings: levels coarser than the map.

    Attributes:
        channels: channels of the outgoing maps, finest first.
        strides: their strides, ``stride / 2**doublings`` to ``stride * 2**halvings``.

    Raises:
        ValueError: if there is not one map, its stride cannot be halved ``doublings`` times, or it has too few
            channels for that.

    Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection (ECCV 2022), as in detectron2's
    ``SimpleFeaturePyramid``. Changed: a coarser map is rounded up to a whole cell, as backbones do.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        out_channels: int = 256,
        doublings: int = 2,
        halvings: int = 1,
    ) -> None:
        super().__init__()
        if len(in_channels) != 1 or len(strides) != 1:
            raise ValueError(
                f"SimplePyramid makes its levels of one map, got in_channels={tuple(in_channels)} and "
                f"strides={tuple(strides)}: choose one with --model.backbone.out_indices [-1], or take "
                "flatten_dense.necks.FPN for a backbone with levels of its own"
            )
        (width,), (stride,) = in_channels, strides
        if doublings < 0 or halvings < 0:
            raise ValueError(f"doublings and halvings must be at least 0, got {doublings} and {halvings}")
        if stride % 2**doublings:
            raise ValueError(
                f"SimplePyramid cannot make strides of whole pixels by halving {stride} {doublings} times: set "
                f"doublings to at most {(stride & -stride).bit_length() - 1}"
            )
        if width < 2**doublings:
            raise ValueError(f"SimplePyramid halves {width} channels {doublings} times: set fewer doublings")
        steps = range(doublings, -halvings - 1, -1)
        self.stride = stride
        self.channels = (out_channels,) * len(steps)
        self.strides = tuple(stride // 2**step if step > 0 else stride * 2**-step for step in steps)
        self.levels = nn.ModuleList(_level(width, out_channels, step) for step in steps)

    def forward(self, features: list[Tensor], image_sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Make maps ``[B, out_channels, H_i, W_i]``, finest first, of one map ``[B, C, H, W]``.

        Args:
            features: the map; zero outside the images' own parts where ``image_sizes`` are given.
            image_sizes: (h, w) of each image in a padded batch; the maps of an image then do not depend on the others,
                and are zero outside its own part.
        """
        (x,) = features
        (own,) = own_grids([x], [self.stride], image_sizes)
        # A coarser cell at the edge is the largest of the cells that the image owns.
        lowest = x if own.padding is None else x.masked_fill(own.padding.unsqueeze(1), torch.finfo(x.dtype).min)
        maps = []
        for level, stride in zip(self.levels, self.strides, strict=True):
            assert isinstance(level, nn.Sequential)
            resize, project, smooth = level[:-4], level[-4:-2], level[-2:]
            resized = resize(lowest if stride > self.stride else x)
            (grid,) = own_grids([resized], [stride], image_sizes)
            maps.append(grid.clear(smooth(grid.clear(project(grid.clear(resized))))))
        return maps


def _level(channels: int, out_channels: int, doublings: int) -> nn.Sequential:
    """Layers that double a map so often, or halve it for a negative number; the last four bring its channels on."""
    layers: list[nn.Module] = []
    for step in range(doublings):
        if step:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    layers += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-doublings)]
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, out_channels, 1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )
