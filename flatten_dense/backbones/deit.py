"""FLatten-DeiT: DeiT with focused linear attention.

Sources: "FLatten Transformer", arXiv 2308.00442, and "DeiT", arXiv 2012.12877. The authors' script was never released.
Here there is no class token, since the depth-wise convolution needs a map: features are normalised, then mean-pooled.
The absolute table of positions stays. Any input size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import cast

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from flatten_dense.backbones.attention import (
    LinearOptions,
    block_cores,
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
    PatchEmbed,
    Size,
    SpatialReductionAttention,
    ceil_div,
)


class FlattenDeiT(StagedBackbone):
    """FLatten-DeiT as a timm model: every block is a stage that features can be taken from, all of one size.

    Args:
        img_size: side, or (H, W), that the learned tables are made for; any other size from 32 pixels is taken too.
        patch_size: side of a patch in pixels.
        in_chans: channels of the images.
        num_classes: K; 0 for no classifier.
        global_pool: ``"avg"``, or ``""`` to hand the map on.
        embed_dim: C.
        num_heads: G.
        mlp_ratio: hidden channels of the MLPs, over C.
        depth: number of blocks.
        attention: a letter or name for all blocks, or M with the number of leading linear blocks; see
            :func:`flatten_dense.backbones.attention.block_cores`.
        focusing_factor: power of the focused feature map.
        kernel_size: of the depth-wise convolution of linear blocks, odd.
        window_size: softmax blocks attend within Swin's windows of this side; None for DeiT's own, over the whole map.
        linear_window_size: linear blocks attend within windows of this side; None for the whole map.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        ValueError: an option does not fit.
    """

    norm_every_stage = True
    dense_norms = "none"
    useless_tensors = ((r"^(cls_token|dist_token|head_dist\..*)$", "there is no class token here"),)
    feature_indices = 4  # the last blocks, as timm gives of plain transformers
    dense_indices = (-1,)

    def __init__(
        self,
        img_size: int | Size = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dim: int = 192,
        num_heads: int = 3,
        mlp_ratio: float = 4,
        depth: int = 12,
        attention: str | Sequence[str] = "L",
        focusing_factor: float = 3,
        kernel_size: int = 5,
        window_size: int | None = None,
        linear_window_size: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        (cores,) = block_cores(attention, (depth,))
        linear = LinearOptions(focusing_factor, kernel_size, linear_window_size)
        check_window("window_size", window_size)
        if patch_size < 1:
            raise ValueError(f"patch_size must be at least 1 pixel, got {patch_size}")
        drop_path = drop_path_rates(drop_path_rate, (depth,))
        grid = ceil_div(native_size(img_size), patch_size)
        stages: list[Stage] = []
        for i, name in enumerate(cores):
            core: nn.Module
            if name != "softmax":
                core = linear.core(name, embed_dim, num_heads, grid, i)
            else:
                core = softmax_core(embed_dim, num_heads, window_size, i)
            attn = SpatialReductionAttention(embed_dim, core)
            mlp = mlp_beside(name, embed_dim, int(embed_dim * mlp_ratio))
            block = Block(embed_dim, attn, mlp, next(drop_path), norm_eps=1e-6)
            patch_embed = None if i else PatchEmbed(in_chans, embed_dim, patch_size, norm=False)
            stages.append(Stage(embed_dim, patch_embed, [block], grid_size=None if i else grid))
        norm = nn.LayerNorm(embed_dim, eps=1e-6)
        super().__init__(stages, norm, in_chans, num_classes, global_pool, drop_rate, init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to logits ``[B, K]``."""
        return self.forward_head(self.forward_features(x))

    def no_weight_decay(self) -> set[str]:
        """As in every family, and the absolute table of positions."""
        return super().no_weight_decay() | {"stages.0.pos_embed"}

    def rename_checkpoint(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a DeiT or plain ViT checkpoint to this module's; its own pass unchanged.

        Args:
            state_dict: timm's or the official DeiT's, or one of this module.

        Returns:
            Name to tensor. The joint projection is cut in two; the class token keeps its name, and its row of the table
            of positions is left out.
        """
        class_tokens = sum(name in state_dict for name in ("cls_token", "dist_token"))
        renamed = {}
        for name, tensor in state_dict.items():
            name = re.sub(r"^patch_embed\.", "stages.0.patch_embed.", name)
            name = re.sub(r"^blocks\.(\d+)\.", r"stages.\1.blocks.0.", name)
            if ".attn.qkv." in name:
                split = tensor.shape[0] // 3
                renamed[name.replace(".qkv.", ".q.")] = tensor[:split]
                renamed[name.replace(".qkv.", ".kv.")] = tensor[split:]
                continue
            if name == "pos_embed":
                name, tensor = "stages.0.pos_embed", self._without_tokens(tensor, class_tokens)
            renamed[name] = tensor
        return place_in_cores(renamed, self)

    def _without_tokens(self, table: Tensor, class_tokens: int) -> Tensor:
        """Leave out the rows of class tokens, unless the table has none (timm's ``no_embed_class``)."""
        rows = table.shape[1]
        native = cast(Tensor, self.stages[0].pos_embed).shape[1]
        has_none = rows == native or (rows - class_tokens != native and math.isqrt(rows) ** 2 == rows)
        return table if has_none else table[:, class_tokens:]


default_cfgs = generate_default_cfgs(
    {
        "flatten_deit_tiny.untrained": default_cfg(pool_size=(14, 14)),
        "flatten_deit_small.untrained": default_cfg(pool_size=(14, 14)),
        "flatten_deit_base.untrained": default_cfg(pool_size=(14, 14)),
        "flatten_deit_test.untrained": default_cfg(input_size=(3, 64, 64), pool_size=(4, 4)),
    }
)


_create = partial(create, FlattenDeiT)


@register_model
def flatten_deit_tiny(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-DeiT-T, 6.2M parameters."""
    return _create("flatten_deit_tiny", pretrained, {}, kwargs)


@register_model
def flatten_deit_small(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-DeiT-S, 23.0M parameters; not of the paper."""
    return _create("flatten_deit_small", pretrained, {"embed_dim": 384, "num_heads": 6}, kwargs)


@register_model
def flatten_deit_base(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-DeiT-B, 88.4M parameters; not of the paper."""
    return _create("flatten_deit_base", pretrained, {"embed_dim": 768, "num_heads": 12}, kwargs)


@register_model
def flatten_deit_test(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """For tests: four tiny blocks, 64 x 64 tables."""
    defaults = {"img_size": 64, "embed_dim": 24, "num_heads": 3, "mlp_ratio": 2, "depth": 4}
    return _create("flatten_deit_test", pretrained, defaults, kwargs)
