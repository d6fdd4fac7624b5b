"""The MLPs of transformer blocks, called with the tokens' grid: PVTv2's looks at each token's neighbours."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from timm.layers.mlp import Mlp as TimmMlp
from torch import Tensor, nn

from flatten_dense.layers.token_grid import TokenGrid


class Mlp(TimmMlp):
    """Linear, GELU, linear; each token by itself."""

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:  # type: ignore[override]
        """Map ``[B, N, C]`` to the same shape."""
        return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]


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
        x = self.fc1(x)
        if self.relu:
            x = F.relu(x)
        x = TokenGrid.to_tokens(self.dwconv(grid.clear(grid.to_map(x))))
        return cast(Tensor, self.fc2(F.gelu(x)))
