"""Projections around an attention core: what a block calls as ``attn(x, grid)``."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.focused_linear_attention import FocusedLinearAttention
from flatten_dense.layers.lepe import LocallyEnhancedAttention
from flatten_dense.layers.patch_embed import pad_to_whole_cells
from flatten_dense.layers.streamed_attention import can_stream_attention, stream_attention
from flatten_dense.layers.streaming import add_over, may_stream
from flatten_dense.layers.token_grid import TokenGrid
from flatten_dense.ops.native.arguments import Affine

POOLED_GRID = (7, 7)  # of the keys and values in PVTv2's pooled form


class ProjectedAttention(nn.Module):
    """Projections to queries, keys and values; a core; a projection back.

    At inference on a CPU the whole may run as one, with the same results up to rounding.

    Attributes:
        core: called as ``core(q, k, v, q_size, kv_size, key_padding_mask, own_sizes=...)``.
        proj: the projection back.
    """

    core: nn.Module
    proj: nn.Linear

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        """Attend within ``x``, tokens ``[B, N, C]`` of ``grid``."""
        streamed = self._stream(x, None, grid, residual=False) if may_stream(self) else None
        return self._attend(x, grid) if streamed is None else streamed

    def added_to(self, x: Tensor, norm: nn.Module, grid: TokenGrid) -> Tensor:
        """``x + self(norm(x), grid)`` for inference, dense and in memory of its own."""
        streamed = self._stream(x, norm, grid, residual=True)
        return add_over(self._attend(norm(x), grid), x) if streamed is None else streamed

    def _stream(self, x: Tensor, norm: nn.Module | None, grid: TokenGrid, residual: bool) -> Tensor | None:
        """Projections and core as one; None where that cannot be."""
        qkv = self._qkv() if grid.padding is None else []
        layers = [self.proj, *qkv] if norm is None else [norm, self.proj, *qkv]
        if not qkv or not can_stream_attention(x, self.core, *layers):
            return None
        parts = [part for layer in qkv for part in Affine.of(layer, layer.out_features // layer.in_features)]
        core = cast(FocusedLinearAttention | LocallyEnhancedAttention, self.core)
        return stream_attention(x, cast(nn.LayerNorm | None, norm), parts, core, self.proj, grid.size, residual)

    def _attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        raise NotImplementedError

    def _qkv(self) -> list[nn.Linear]:
        """The layers that give queries, keys and values of one grid, in this order; none if there are two grids."""
        raise NotImplementedError


class FusedAttention(ProjectedAttention):
    """Queries, keys and values from one projection (Swin, CSWin).

    Args:
        dim: C.
        core: called as ``core(q, k, v, q_size, kv_size, key_padding_mask, own_sizes=...)``.
    """

    def __init__(self, dim: int, core: nn.Module) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.core = core
        self.proj = nn.Linear(dim, dim)

    def _attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        out = self.core(q, k, v, grid.size, grid.size, grid.key_padding_mask, own_sizes=grid.own_sizes)
        return cast(Tensor, self.proj(out))

    def _qkv(self) -> list[nn.Linear]:
        return [self.qkv]


class SpatialReductionAttention(ProjectedAttention):
    """Queries from every token, keys and values from a grid that may be coarser.

    Args:
        dim: C.
        core: called as ``core(q, k, v, q_size, kv_size, key_padding_mask, own_sizes=...)``.
        sr_ratio: keys and values come from cells of this side, through a strided convolution and LayerNorm (eps 1e-5).
        pooled: keys and values come from the map pooled to 7 x 7, through a 1x1 convolution, LayerNorm and GELU.
            ``sr_ratio`` has no effect then, and neither have padded batches a meaning.

    Source: Pyramid Vision Transformer, arXiv 2102.12122; pooled as in PVTv2, arXiv 2106.13797.
    """

    def __init__(self, dim: int, core: nn.Module, sr_ratio: int = 1, pooled: bool = False) -> None:
        super().__init__()
        self.sr_ratio = 1 if pooled else sr_ratio
        self.pooled = pooled
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.core = core
        self.proj = nn.Linear(dim, dim)
        if pooled or sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, self.sr_ratio, stride=self.sr_ratio)
            self.norm = nn.LayerNorm(dim, eps=1e-5)

    def _attend(self, x: Tensor, grid: TokenGrid) -> Tensor:
        source, kv_grid = self._reduce(x, grid)
        k, v = self.kv(source).chunk(2, dim=-1)
        mask, own_sizes = kv_grid.key_padding_mask, kv_grid.own_sizes
        out = self.core(self.q(x), k, v, grid.size, kv_grid.size, mask, own_sizes=own_sizes)
        return cast(Tensor, self.proj(out))

    def _qkv(self) -> list[nn.Linear]:
        return [] if self.pooled or self.sr_ratio > 1 else [self.q, self.kv]

    def _reduce(self, x: Tensor, grid: TokenGrid) -> tuple[Tensor, TokenGrid]:
        if self.pooled:
            maps = self.sr(F.adaptive_avg_pool2d(grid.to_map(x), POOLED_GRID))
            return F.gelu(self.norm(TokenGrid.to_tokens(maps))), TokenGrid(POOLED_GRID)
        if self.sr_ratio == 1:
            return x, grid
        maps = self.sr(pad_to_whole_cells(grid.clear(grid.to_map(x)), self.sr_ratio))
        return self.norm(TokenGrid.to_tokens(maps)), grid.shrink(self.sr_ratio)
