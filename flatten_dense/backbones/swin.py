"""FLatten-Swin: Swin Transformer with focused linear attention.

Sources: "FLatten Transformer", arXiv 2308.00442, and "Swin Transformer", arXiv 2103.14030. As released, linear stages
see the whole map, without windows, shift or bias table. Changed: any input size; padding is never a key; the
projections run before windows are padded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from flatten_dense.backbones.attention import (
    LinearOptions,
    block_cores,
    check_per_stage,
    check_window,
    mlp_beside,
    native_size,
    softmax_core,
)
from flatten_dense.backbones.initialization import init_linear
from flatten_dense.backbones.registry import create, default_cfg
from flatten_dense.backbones.staged import Stage, StagedBackbone, drop_path_rates, place_in_cores
from flatten_dense.layers import (
    Block,
    FusedAttention,
    PatchEmbed,
    PatchMerging,
    Size,
    ceil_div,
)


class FlattenSwin(StagedBackbone):
    """FLatten-Swin as a timm model.

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
        window_size: side of the windows of softmax blocks.
        linear_window_size: linear blocks attend within windows of this side; None for the whole map.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        ValueError: an option does not fit the stages.
    """

    dense_norms = "all"
    useless_tensors = ((r"\.(relative_position_index|attn_mask)$", "computed here for the size at hand"),)

    def __init__(
        self,
        img_size: int | Size = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 96,
        num_heads: Sequence[int] = (3, 6, 12, 24),
        mlp_ratio: float = 4,
        depths: Sequence[int] = (2, 2, 6, 2),
        attention: str | Sequence[str] = "LLSS",
        focusing_factor: float = 3,
        kernel_size: int = 5,
        window_size: int = 7,
        linear_window_size: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        check_per_stage(depths, num_heads=num_heads)
        cores = block_cores(attention, depths)
        linear = LinearOptions(focusing_factor, kernel_size, linear_window_size)
        check_window("window_size", window_size)
        drop_path = drop_path_rates(drop_path_rate, depths)
        stages: list[Stage] = []
        for i, names in enumerate(cores):
            dim, grid = embed_dim * 2**i, ceil_div(native_size(img_size), 4 * 2**i)
            blocks = []
            for j, name in enumerate(names):
                core: nn.Module
                if name != "softmax":
                    core = linear.core(name, dim, num_heads[i], grid, j)
                else:
                    core = softmax_core(dim, num_heads[i], window_size, j)
                mlp = mlp_beside(name, dim, int(dim * mlp_ratio))
                blocks.append(Block(dim, FusedAttention(dim, core), mlp, next(drop_path), norm_eps=1e-5))
            patch_embed = PatchMerging(dim // 2, dim) if i else PatchEmbed(in_chans, dim, 4)
            stages.append(Stage(dim, patch_embed, blocks))
        norm = nn.LayerNorm(dim, eps=1e-5)
        super().__init__(stages, norm, in_chans, num_classes, global_pool, drop_rate, init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to logits ``[B, K]``."""
        return self.forward_head(self.forward_features(x))

    def rename_checkpoint(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a FLatten-Swin or Swin checkpoint to this module's; its own pass unchanged.

        Args:
            state_dict: an official one; timm's Swin; or one of this module.

        Returns:
            Name to tensor. Buffers that are computed here, indices and masks of windows, keep their official names.
        """
        # timm merges patches before a stage, the official code after it.
        merges_first = any(name.startswith("layers.3.downsample.") for name in state_dict)
        renamed = {}
        for name, tensor in state_dict.items():
            name = re.sub(r"^patch_embed\.", "stages.0.patch_embed.", name)
            name = re.sub(
                r"^layers\.(\d+)\.downsample\.",
                lambda match: f"stages.{int(match[1]) + (not merges_first)}.patch_embed.",
                name,
            )
            name = re.sub(r"^layers\.(\d+)\.", r"stages.\1.", name)
            name = re.sub(r"^head\.fc\.", "head.", name)
            renamed[name] = tensor
        return place_in_cores(renamed, self)


default_cfgs = generate_default_cfgs(
    {
        "flatten_swin_tiny.untrained": default_cfg(),
        "flatten_swin_small.untrained": default_cfg(),
        "flatten_swin_base.untrained": default_cfg(),
        "flatten_swin_base_384.untrained": default_cfg(input_size=(3, 384, 384), pool_size=(12, 12), crop_pct=1.0),
        "flatten_swin_test.untrained": default_cfg(input_size=(3, 64, 64), pool_size=(2, 2)),
    }
)


_create = partial(create, FlattenSwin)


@register_model
def flatten_swin_tiny(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-Swin-T, 29.2M parameters."""
    return _create("flatten_swin_tiny", pretrained, {}, kwargs)


@register_model
def flatten_swin_small(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-Swin-S, 50.5M parameters."""
    return _create("flatten_swin_small", pretrained, {"depths": (2, 2, 18, 2)}, kwargs)


_BASE = {"embed_dim": 128, "num_heads": (4, 8, 16, 32), "depths": (2, 2, 18, 2)}


@register_model
def flatten_swin_base(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-Swin-B, 89.0M parameters."""
    return _create("flatten_swin_base", pretrained, _BASE, kwargs)


@register_model
def flatten_swin_base_384(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-Swin-B with tables for 384 x 384 and windows of 12, 91.4M parameters."""
    return _create("flatten_swin_base_384", pretrained, {**_BASE, "img_size": 384, "window_size": 12}, kwargs)


@register_model
def flatten_swin_test(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """For tests: one or two tiny blocks per stage, 64 x 64 tables, windows of 3."""
    defaults = {
        "img_size": 64,
        "embed_dim": 8,
        "num_heads": (1, 2, 2, 4),
        "mlp_ratio": 2,
        "depths": (2, 1, 2, 2),
        "window_size": 3,
    }
    return _create("flatten_swin_test", pretrained, defaults, kwargs)
