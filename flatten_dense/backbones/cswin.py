"""FLatten-CSwin: CSWin Transformer with focused linear attention.

Sources: "FLatten Transformer", arXiv 2308.00442, and "CSWin Transformer", arXiv 2107.00652. As released, linear blocks
see the whole map with all heads and keep the locally-enhanced positional encoding beside the core's own convolution.
Changed: any input size; stripes span the map they get, and their padding is never a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from flatten_dense.backbones.attention import (
    LinearOptions,
    block_cores,
    check_per_stage,
    check_window,
    mlp_beside,
    native_size,
)
from flatten_dense.backbones.initialization import init_linear
from flatten_dense.backbones.registry import create, default_cfg
from flatten_dense.backbones.staged import Stage, StagedBackbone, drop_path_rates, place_in_cores
from flatten_dense.layers import (
    Block,
    FusedAttention,
    LocallyEnhancedAttention,
    PatchEmbed,
    Size,
    SoftmaxAttention,
    WindowedAttention,
    ceil_div,
)


class CrossShapedAttention(nn.Module):
    """Attend in vertical stripes with half of the channels and in horizontal ones with the other; called like a core.

    Args:
        dim: C.
        num_heads: G, even.
        stripe_width: of a stripe, in tokens.

    Raises:
        ValueError: if ``num_heads`` is odd.
    """

    def __init__(self, dim: int, num_heads: int, stripe_width: int) -> None:
        super().__init__()
        if num_heads % 2:
            raise ValueError(f"cross-shaped windows need an even number of heads, got num_heads={num_heads}")
        self.cores = nn.ModuleList(
            WindowedAttention(lepe_softmax_core(dim // 2, num_heads // 2), window_size)
            for window_size in ((None, stripe_width), (stripe_width, None))
        )

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_size: Size,
        kv_size: Size,
        key_padding_mask: Tensor | None = None,
        attn_bias: Tensor | None = None,
        own_sizes: Sequence[Size] | None = None,
    ) -> Tensor:
        """Attend; arguments as a core's."""
        halves = zip(self.cores, q.chunk(2, -1), k.chunk(2, -1), v.chunk(2, -1), strict=True)
        rest = q_size, kv_size, key_padding_mask, attn_bias, own_sizes
        return torch.cat([core(*qkv, *rest) for core, *qkv in halves], dim=-1)


class FlattenCSwin(StagedBackbone):
    """FLatten-CSwin as a timm model.

    Args:
        img_size: side, or (H, W), that the learned tables are made for; any other size from 32 pixels is taken too.
        in_chans: channels of the images.
        num_classes: K; 0 for no classifier.
        global_pool: ``"avg"``, or ``""`` to hand the map on.
        embed_dim: C of the first stage; it doubles with each.
        num_heads: G of each stage.
        mlp_ratio: hidden channels of the MLPs, over C.
        depths: blocks of each stage.
        attention: letters or names for the stages, see :func:`flatten_dense.backbones.attention.block_cores`.
        focusing_factor: power of the focused feature map.
        kernel_size: of the depth-wise convolution of linear blocks, odd.
        window_size: width of the stripes of softmax blocks, one for all stages or one for each. The last stage has
            none: its softmax blocks see the whole map.
        linear_window_size: linear blocks attend within windows of this side; None for the whole map.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        ValueError: an option does not fit the stages.
    """

    dense_norms = "all"

    def __init__(
        self,
        img_size: int | Size = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 64,
        num_heads: Sequence[int] = (2, 4, 8, 16),
        mlp_ratio: float = 4,
        depths: Sequence[int] = (2, 4, 18, 1),
        attention: str | Sequence[str] = "LLSS",
        focusing_factor: float = 3,
        kernel_size: int = 5,
        window_size: int | Sequence[int] = (1, 2, 7, 7),
        linear_window_size: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        check_per_stage(depths, num_heads=num_heads)
        cores = block_cores(attention, depths)
        linear = LinearOptions(focusing_factor, kernel_size, linear_window_size)
        widths: list[Any] = list(window_size) if isinstance(window_size, list | tuple) else [window_size] * len(depths)
        if len(widths) != len(depths):
            raise ValueError(f"window_size must be one width or one per stage, got {window_size} for {len(depths)}")
        drop_path = drop_path_rates(drop_path_rate, depths)
        stages: list[Stage] = []
        for i, names in enumerate(cores):
            dim, grid = embed_dim * 2**i, ceil_div(native_size(img_size), 4 * 2**i)
            check_window("window_size", widths[i])
            blocks = []
            for j, name in enumerate(names):
                core: nn.Module
                if name != "softmax":
                    core = linear.core(name, dim, num_heads[i], grid, j, partial(LocallyEnhancedAttention, dim=dim))
                elif i == len(depths) - 1:
                    core = lepe_softmax_core(dim, num_heads[i])
                else:
                    core = CrossShapedAttention(dim, num_heads[i], widths[i])
                mlp = mlp_beside(name, dim, int(dim * mlp_ratio))
                blocks.append(Block(dim, FusedAttention(dim, core), mlp, next(drop_path), norm_eps=1e-5))
            patch_embed = PatchEmbed(dim // 2, dim, 2, 3, 1) if i else PatchEmbed(in_chans, dim, 4, 7, 2)
            stages.append(Stage(dim, patch_embed, blocks))
        norm = nn.LayerNorm(dim, eps=1e-5)
        super().__init__(stages, norm, in_chans, num_classes, global_pool, drop_rate, init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to logits ``[B, K]``."""
        return self.forward_head(self.forward_features(x))

    def rename_checkpoint(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a FLatten-CSwin or CSWin checkpoint to this module's; its own pass unchanged.

        Args:
            state_dict: an official one, or one of this module.

        Returns:
            Name to tensor.
        """
        two_branches = {name.partition(".attns.1.")[0] for name in state_dict if ".attns.1." in name}
        renamed = {}
        for name, tensor in state_dict.items():
            block = name.partition(".attns.")[0]
            name = re.sub(r"^stage1_conv_embed\.0\.", "stages.0.patch_embed.proj.", name)
            name = re.sub(r"^stage1_conv_embed\.2\.", "stages.0.patch_embed.norm.", name)
            name = re.sub(r"^merge(\d)\.conv\.", r"stages.\1.patch_embed.proj.", name)
            name = re.sub(r"^merge(\d)\.norm\.", r"stages.\1.patch_embed.norm.", name)
            name = re.sub(r"^stage(\d)\.(\d+)\.", lambda match: f"stages.{int(match[1]) - 1}.blocks.{match[2]}.", name)
            name = re.sub(r"(\.blocks\.\d+)\.(qkv|proj)\.", r"\1.attn.\2.", name)
            name = re.sub(r"\.attns\.(\d)\.", r".attn.cores.\1." if block in two_branches else ".attn.", name)
            renamed[name.replace(".get_v.", ".lepe.")] = tensor
        return place_in_cores(renamed, self)


def lepe_softmax_core(dim: int, num_heads: int) -> LocallyEnhancedAttention:
    """Softmax attention with the locally-enhanced positional encoding."""
    return LocallyEnhancedAttention(SoftmaxAttention(dim, num_heads), dim)


default_cfgs = generate_default_cfgs(
    {
        "flatten_cswin_tiny.untrained": default_cfg(),
        "flatten_cswin_small.untrained": default_cfg(),
        "flatten_cswin_base.untrained": default_cfg(),
        # The published evaluation at 384 resizes to 438 x 438 and crops.
        "flatten_cswin_base_384.untrained": default_cfg(
            input_size=(3, 384, 384), pool_size=(12, 12), crop_pct=384 / 438
        ),
        "flatten_cswin_test.untrained": default_cfg(input_size=(3, 64, 64), pool_size=(2, 2)),
    }
)


_create = partial(create, FlattenCSwin)


@register_model
def flatten_cswin_tiny(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-CSwin-T, 21.2M parameters."""
    return _create("flatten_cswin_tiny", pretrained, {}, kwargs)


@register_model
def flatten_cswin_small(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-CSwin-S, 35M parameters."""
    return _create("flatten_cswin_small", pretrained, {"depths": (2, 4, 32, 2)}, kwargs)


_BASE = {"embed_dim": 96, "num_heads": (4, 8, 16, 32), "depths": (3, 6, 29, 2)}


@register_model
def flatten_cswin_base(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-CSwin-B, 75M parameters."""
    return _create("flatten_cswin_base", pretrained, _BASE, kwargs)


@register_model
def flatten_cswin_base_384(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-CSwin-B with tables for 384 x 384 and stripes of 12, 78.4M parameters."""
    defaults = {**_BASE, "img_size": 384, "window_size": (1, 2, 12, 12)}
    return _create("flatten_cswin_base_384", pretrained, defaults, kwargs)


@register_model
def flatten_cswin_test(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """For tests: one or two tiny blocks per stage, 64 x 64 tables, narrow stripes."""
    defaults = {
        "img_size": 64,
        "embed_dim": 8,
        "num_heads": (2, 2, 2, 4),
        "mlp_ratio": 2,
        "depths": (1, 1, 2, 1),
        "window_size": (1, 2, 3, 3),
    }
    return _create("flatten_cswin_test", pretrained, defaults, kwargs)
