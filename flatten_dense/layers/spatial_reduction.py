"""Projections around an attention core, with keys and values on a coarser grid if wanted (DeiT, PVT, PVTv2)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from flatten_dense.layers.patch_embed import pad_to_whole_cells


class SpatialReductionAttention(nn.Module):
    """Project tokens to queries, keys and values, let a core attend, project back.

    Args:
        dim: C.
        core: called as ``core(q, k, v, q_size, kv_size)``; it knows its number of heads.
        sr_ratio: keys and values come from cells of this side, through a strided convolution and LayerNorm (eps 1e-5).
        qkv_bias: whether the projections to queries, keys and values have a bias.

    Source: Pyramid Vision Transformer, arXiv 2102.12122.
    """

    def __init__(self, dim: int, core: nn.Module, sr_ratio: int = 1, qkv_bias: bool = True) -> None:
        super().__init__()
        self.sr_ratio = sr_ratio
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.core = core
        self.proj = nn.Linear(dim, dim)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Attend within ``x``, tokens ``[B, N, C]`` of a map of ``size`` (H, W) in row-major order."""
        source, kv_size = self._reduce(x, size) if self.sr_ratio > 1 else (x, size)
        k, v = self.kv(source).chunk(2, dim=-1)
        return cast(Tensor, self.proj(self.core(self.q(x), k, v, size, kv_size)))

    def _reduce(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        maps = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)
        maps = self.sr(pad_to_whole_cells(maps, self.sr_ratio))
        return self.norm(maps.flatten(2).transpose(1, 2)), (maps.shape[2], maps.shape[3])
