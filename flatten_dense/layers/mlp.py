"""The MLPs of transformer blocks, called with the tokens' grid: PVTv2's looks at each token's neighbours."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp as TimmMlp
from torch import Tensor, nn

from flatten_dense.layers.streaming import product_type, rows_per_piece
from flatten_dense.layers.token_grid import Size, TokenGrid
from flatten_dense.ops.bands import bands
from flatten_dense.ops.depthwise_convolution import depthwise_convolution
from flatten_dense.ops.native import block, pieces
from flatten_dense.ops.native.block import takes_mlp

LARGEST_WEIGHT = 2**19  # that a core keeps in its cache: beyond, it takes more than a strip of tokens to make up for it


class Mlp(TimmMlp):
    """Linear, GELU, linear; each token by itself."""

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:  # type: ignore[override]
        """Map ``[B, N, C]`` to the same shape."""
        return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]

    def add_to(self, x: Tensor, norm: nn.Module, grid: TokenGrid) -> Tensor:
        """Do ``x += self(norm(x))`` piece by piece, for inference.

        Args:
            x: ``[B, N, C]``, contiguous; overwritten.
            norm: works on each token by itself.
            grid: of the tokens.

        Returns:
            ``x``.
        """
        fc1, fc2 = cast(nn.Linear, self.fc1), cast(nn.Linear, self.fc2)
        rows = rows_per_piece(_hidden_channels(fc1, x), x.device)
        is_plain = type(self.act) is nn.GELU and self.act.approximate == "none" and type(self.norm) is nn.Identity
        if is_plain and takes_mlp(x, norm, fc1, fc2):
            if product_type(x) == x.dtype == torch.float32:
                return block.add_mlp(x, cast(nn.LayerNorm, norm), fc1, fc2)
            if product_type(x) == torch.bfloat16:
                return pieces.add_mlp(x, cast(nn.LayerNorm, norm), fc1, fc2, rows)
        for piece in torch.split(x.flatten(0, 1), rows):
            piece += self(norm(piece), grid)
        return x


class ConvMlp(nn.Module):
    """Linear, 3x3 depth-wise convolution over the map, GELU, linear.

    Args:
        dim: C.
        hidden_dim: channels between the linear layers.
        relu: whether a ReLU follows the first linear layer, as in PVTv2's form with pooled keys.

    Source: PVTv2, arXiv 2106.13797.
    """

    def __init__(self, dim: int, hidden_dim: int, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Map ``[B, N, C]`` of ``grid`` to the same shape."""
        hidden = self._expand(x)
        if grid.key_padding_mask is not None:
            hidden = hidden.masked_fill(grid.key_padding_mask.unsqueeze(-1), 0)
        return self._contract(self._convolve(hidden, grid.size))

    def add_to(self, x: Tensor, norm: nn.Module, grid: TokenGrid) -> Tensor:
        """``x + self(norm(x), grid)`` in parts of the map, for inference.

        Args:
            x: ``[B, N, C]``, contiguous; perhaps overwritten.
            norm: works on each token by itself.
            grid: of the tokens.

        Returns:
            ``[B, N, C]``, contiguous; perhaps ``x``.
        """
        (height, width), maps = grid.size, x.view(x.shape[0], *grid.size, x.shape[2])
        fc1, fc2, row = self.fc1, self.fc2, width * _hidden_channels(self.fc1, x)
        if grid.padding is None and takes_mlp(x, norm, fc1, fc2, self.dwconv):
            layers = cast(nn.LayerNorm, norm), fc1, self.dwconv, fc2, self.relu
            if product_type(x) == x.dtype == torch.float32 and fc1.weight.numel() <= LARGEST_WEIGHT:
                return block.add_conv_mlp(x, grid.size, *layers)
            if product_type(x) == torch.bfloat16:
                return pieces.add_conv_mlp(x, grid.size, *layers, rows=max(4, rows_per_piece(row, x.device)))
        above: list[Tensor] = []
        for band in bands(height, max(4, rows_per_piece(x.shape[0] * row, x.device))):
            hidden = self._expand(norm(maps[:, band.start : band.stop]))
            if grid.padding is not None:
                hidden = hidden.masked_fill(grid.padding[:, band.start : band.stop].unsqueeze(-1), 0)
            hidden = torch.cat([*above, hidden], dim=1)
            convolved = self._convolve(hidden.flatten(1, 2), (hidden.shape[1], width)).view_as(hidden)
            maps[:, band.done : band.ready] += self._contract(convolved[:, slice(*band.result)])
            above = [hidden[:, -2:]]
        return x

    def _expand(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return F.relu(x) if self.relu else x

    def _convolve(self, x: Tensor, size: Size) -> Tensor:
        return depthwise_convolution(x, size, self.dwconv.weight, cast(Tensor, self.dwconv.bias))

    def _contract(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(x)))


def _hidden_channels(fc1: nn.Module, x: Tensor) -> int:
    """Those that a layer makes of ``x``; a guess for a layer that someone put there in place of a linear one."""
    return fc1.out_features if isinstance(fc1, nn.Linear) else 8 * x.shape[2]
