"""The transformer block that all families share."""

from __future__ import annotations

from typing import cast

from timm.layers.drop import DropPath
from torch import Tensor, nn

from flatten_dense.layers.mlp import ConvMlp, Mlp
from flatten_dense.layers.projections import ProjectedAttention
from flatten_dense.layers.streaming import computes_as, may_stream
from flatten_dense.layers.token_grid import TokenGrid


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to its input under stochastic depth.

    At inference both halves work piece by piece and add in place, with the same results up to rounding.

    Args:
        dim: C.
        attn: called as ``attn(x, grid)``.
        mlp: called as ``mlp(x, grid)``.
        drop_path: probability of leaving a branch out, per image.
        norm_eps: of both LayerNorms.
    """

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = attn
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = mlp
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Map tokens ``[B, N, C]`` of ``grid`` to the same shape."""
        if self._may_stream():
            attended = cast(ProjectedAttention, self.attn).added_to(x, self.norm1, grid)
            return cast(Mlp | ConvMlp, self.mlp).add_to(attended, self.norm2, grid)
        x = x + self.drop_path1(self.attn(self.norm1(x), grid))
        return x + cast(Tensor, self.drop_path2(self.mlp(self.norm2(x), grid)))

    def _may_stream(self) -> bool:
        """Whether both halves may work piece by piece: none of the parts is one that somebody else put in."""
        return (
            computes_as(self.attn, ProjectedAttention)
            and computes_as(self.mlp, Mlp, ConvMlp)
            and type(self.drop_path1) is type(self.drop_path2) is DropPath
            and may_stream(self)
        )
