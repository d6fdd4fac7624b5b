"""The order of operations of the released code, restated: what our models are timed against.

One pass over memory per operation, heads split by copies, nothing in chunks. The weights are those of one of our
models, the results are equal; the modules are written out here, so that no speed-up of ours reaches them. Softmax cores
alone are taken over as they are.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers import (
    POOLED_GRID,
    ConvMlp,
    FocusedLinearAttention,
    FusedAttention,
    LocallyEnhancedAttention,
    PatchMerging,
    Size,
    SpatialReductionAttention,
    WindowedAttention,
)

EPS = 1e-6


class ReferenceCore(nn.Module):
    """Focused linear attention between projected queries, keys and values, and the convolution of the values.

    Args:
        core: whose parameters are shared.
    """

    def __init__(self, core: FocusedLinearAttention) -> None:
        super().__init__()
        self.num_heads, self.grid_size = core.num_heads, core.grid_size
        self.focusing_factor = core.focusing_factor
        self.positional_encoding, self.scale = core.positional_encoding, core.scale
        self.dwc = _plain(core.dwc)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, kv_size: Size) -> Tensor:
        """Attend from ``[B, N, C]`` to ``[B, M, C]``."""
        batch, num_queries, channels = q.shape
        k = k + _resize(self.positional_encoding, self.grid_size, kv_size)
        scale = F.softplus(self.scale)
        q = F.relu(q) + EPS
        k = F.relu(k) + EPS
        q = q / scale
        k = k / scale
        q_norm, k_norm = q.norm(dim=-1, keepdim=True), k.norm(dim=-1, keepdim=True)
        q = q**self.focusing_factor
        k = k**self.focusing_factor
        q = q / q.norm(dim=-1, keepdim=True) * q_norm
        k = k / k.norm(dim=-1, keepdim=True) * k_norm

        q, k, heads_of_v = self._split(q), self._split(k), self._split(v)
        per_key = k.shape[1] ** -0.5
        z = 1 / (q @ k.mean(dim=1, keepdim=True).transpose(1, 2) + EPS)
        kv = (k.transpose(1, 2) * per_key) @ (heads_of_v * per_key)
        out = q @ kv * z
        out = out.reshape(batch, self.num_heads, num_queries, -1).transpose(1, 2).reshape(batch, num_queries, channels)

        if kv_size != q_size:
            v = F.interpolate(v.transpose(1, 2), size=num_queries, mode="linear").transpose(1, 2)
            heads_of_v = self._split(v)
        maps = self.dwc(heads_of_v.transpose(1, 2).reshape(batch * self.num_heads, -1, *q_size))
        return out + maps.reshape(batch, channels, num_queries).transpose(1, 2)

    def _split(self, x: Tensor) -> Tensor:
        """Copy ``[B, N, C]`` to ``[B * G, N, D]``."""
        batch, tokens, channels = x.shape
        x = x.reshape(batch, tokens, self.num_heads, -1).transpose(1, 2)
        return x.reshape(batch * self.num_heads, tokens, channels // self.num_heads)


class _ReferenceLepe(nn.Module):
    """CSwin's convolution of the values, added to what a core gives."""

    def __init__(self, core: LocallyEnhancedAttention) -> None:
        super().__init__()
        self.core, self.lepe = _reference_core(core.core), _plain(core.lepe)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, q_size: Size, kv_size: Size) -> Tensor:
        maps = self.lepe(v.transpose(1, 2).reshape(v.shape[0], -1, *kv_size))
        return self.core(q, k, v, q_size, kv_size) + maps.flatten(2).transpose(1, 2)


class ReferenceAttention(nn.Module):
    """Projections around a core.

    Args:
        attn: whose parameters are shared.
    """

    def __init__(self, attn: FusedAttention | SpatialReductionAttention) -> None:
        super().__init__()
        self.is_fused = isinstance(attn, FusedAttention)
        self.pooled = getattr(attn, "pooled", False)
        for name in ("qkv", "q", "kv", "sr", "norm", "proj"):
            if hasattr(attn, name):
                setattr(self, name, _plain(getattr(attn, name)))
        self.core = _reference_core(attn.core)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """Attend within tokens ``[B, N, C]`` of (H, W)."""
        if self.is_fused:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
            return self.proj(self.core(q, k, v, size, size))
        q = self.q(x)
        kv_size = size
        if hasattr(self, "sr"):
            maps = _to_map(x, size)
            maps = F.adaptive_avg_pool2d(maps, POOLED_GRID) if self.pooled else _pad(maps, self.sr.stride[0])
            maps = self.sr(maps)
            kv_size = cast(Size, tuple(maps.shape[2:]))
            x = self.norm(maps.flatten(2).transpose(1, 2))
            x = F.gelu(x) if self.pooled else x
        k, v = self.kv(x).chunk(2, dim=-1)
        return self.proj(self.core(q, k, v, size, kv_size))


class _ReferenceBlock(nn.Module):
    """Attention and MLP with its whole hidden map, each added to its input."""

    def __init__(self, block: Any) -> None:  # noqa: ANN401 - our Block, whose children are not typed
        super().__init__()
        self.norm1, self.attn, self.norm2 = _plain(block.norm1), ReferenceAttention(block.attn), _plain(block.norm2)
        self.fc1, self.fc2 = _plain(block.mlp.fc1), _plain(block.mlp.fc2)
        self.dwconv = _plain(block.mlp.dwconv) if isinstance(block.mlp, ConvMlp) else None
        self.relu = getattr(block.mlp, "relu", False)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        x = x + self.attn(self.norm1(x), size)
        hidden = self.fc1(self.norm2(x))
        if self.relu:
            hidden = F.relu(hidden)
        if self.dwconv is not None:
            hidden = self.dwconv(hidden.transpose(1, 2).reshape(x.shape[0], -1, *size)).flatten(2).transpose(1, 2)
        return x + self.fc2(F.gelu(hidden))


class _ReferenceStage(nn.Module):
    """Tokens from those of the stage before, a table of positions, blocks."""

    def __init__(self, stage: Any) -> None:  # noqa: ANN401 - our Stage, whose children are not typed
        super().__init__()
        self.embed = None
        self.merges = isinstance(stage.patch_embed, PatchMerging)
        if stage.patch_embed is not None:
            self.stride = stage.patch_embed.stride
            self.embed_norm = _plain(stage.patch_embed.norm)
            self.embed = _plain(stage.patch_embed.reduction if self.merges else stage.patch_embed.proj)
        self.grid_size = stage.grid_size
        self.pos_embed = stage.pos_embed if self.grid_size is not None else None
        self.blocks = nn.ModuleList([_ReferenceBlock(block) for block in stage.blocks])
        self.norm = _plain(stage.norm)

    def forward(self, x: Tensor, size: Size) -> tuple[Tensor, Size]:
        if self.merges:
            x = F.pad(x.reshape(x.shape[0], *size, -1), (0, 0, 0, size[1] % 2, 0, size[0] % 2))
            size = (x.shape[1] // 2, x.shape[2] // 2)
            x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
            x = self.embed(self.embed_norm(x.flatten(1, 2)))
        elif self.embed is not None:
            maps = self.embed(_pad(_to_map(x, size), self.stride))
            size = cast(Size, tuple(maps.shape[2:]))
            x = self.embed_norm(maps.flatten(2).transpose(1, 2))
        if self.pos_embed is not None:
            x = x + _resize(self.pos_embed, self.grid_size, size)
        for block in self.blocks:
            x = block(x, size)
        return self.norm(x), size


class ReferenceBackbone(nn.Module):
    """One of our models in the released order of operations, in evaluation mode.

    Args:
        model: whose parameters are shared; it is left as it is.

    Raises:
        ValueError: its linear blocks attend within windows, which the released code does not.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - a StagedBackbone, whose children are not typed
        super().__init__()
        self.stages = nn.ModuleList([_ReferenceStage(stage) for stage in model.stages])
        self.norm, self.head = _plain(model.norm), _plain(model.head)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[B, in_chans, H, W]`` to logits ``[B, K]``."""
        size = cast(Size, tuple(images.shape[2:]))
        x = images.flatten(2).transpose(1, 2)
        for stage in self.stages:
            x, size = stage(x, size)
        return self.head(self.norm(x).mean(dim=1))


def _reference_core(core: nn.Module) -> nn.Module:
    if isinstance(core, FocusedLinearAttention):
        return ReferenceCore(core)
    if isinstance(core, LocallyEnhancedAttention):
        return _ReferenceLepe(core)
    if isinstance(core, WindowedAttention) and any(isinstance(part, FocusedLinearAttention) for part in core.modules()):
        raise ValueError("the released order of operations has no linear attention within windows")
    return core


def _plain(layer: nn.Module) -> nn.Module:
    """A layer of torch's own with the parameters of one that may be more than that."""
    plain: nn.Module
    if isinstance(layer, nn.Identity):
        return nn.Identity()
    if isinstance(layer, nn.Linear):
        plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
    elif isinstance(layer, nn.LayerNorm):
        plain = nn.LayerNorm(layer.normalized_shape, layer.eps, device="meta")
    elif isinstance(layer, nn.Conv2d):
        channels, sides = (layer.in_channels, layer.out_channels), (layer.kernel_size, layer.stride, layer.padding)
        plain = nn.Conv2d(*channels, *sides, groups=layer.groups, device="meta")
    else:
        raise TypeError(f"the reference knows no {type(layer).__name__}")
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain


def _resize(table: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Stretch ``[1, n, C]`` to another grid, in every forward pass anew."""
    if from_size == to_size:
        return table
    maps = F.interpolate(_to_map(table, from_size), size=to_size, mode="bilinear")
    return maps.flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, size: Size) -> Tensor:
    """Copy ``[B, N, C]`` to ``[B, C, H, W]`` in row-major memory."""
    return tokens.reshape(tokens.shape[0], *size, -1).permute(0, 3, 1, 2).contiguous()


def _pad(maps: Tensor, cell: int) -> Tensor:
    bottom, right = (-side % cell for side in maps.shape[2:])
    return F.pad(maps, (0, right, 0, bottom)) if bottom or right else maps
