"""FLatten-PVT: the Pyramid Vision Transformer with focused linear attention.

Sources: "FLatten Transformer", arXiv 2308.00442, and "Pyramid Vision Transformer", arXiv 2102.12122. As released, the
features are mean-pooled without a class token; the released model's final LayerNorm, which it never calls, is left out.
Changed: any input size, each learned table being resized from its own stage's grid.
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
from flatten_dense.backbones.initialization import init_pvt
from flatten_dense.backbones.registry import create, default_cfg
from flatten_dense.backbones.staged import Stage, StagedBackbone, drop_path_rates, place_in_cores
from flatten_dense.layers import (
    POOLED_GRID,
    Block,
    PatchEmbed,
    Size,
    SpatialReductionAttention,
    ceil_div,
)

STRIDES = (4, 8, 16, 32)
SOFTMAX_SR_RATIOS = (8, 4, 2, 1)  # of the softmax PVT, whose attention needs them to be affordable


class FlattenPVT(StagedBackbone):
    """FLatten-PVT as a timm model.

    Args:
        img_size: side, or (H, W), that the learned tables are made for; any other size from 32 pixels is taken too.
        in_chans: channels of the images.
        num_classes: K; 0 for no classifier.
        global_pool: ``"avg"``, or ``""`` to hand the map on.
        embed_dims: C of each stage.
        num_heads: G of each stage.
        mlp_ratios: hidden channels of each stage's MLPs, over C.
        depths: blocks of each stage.
        attention: letters or names for the stages, see :func:`flatten_dense.backbones.attention.block_cores`.
        linear_sr_ratios: side of the cells from which linear blocks take keys and values.
        focusing_factor: power of the focused feature map.
        kernel_size: of the depth-wise convolution of linear blocks, odd.
        window_size: softmax blocks attend within Swin's windows of this side; None for PVT's own, over the whole map
            with keys from cells of 8, 4, 2, 1 tokens.
        linear_window_size: linear blocks attend within windows of this side; None for the whole map.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        ValueError: an option does not fit the stages or another option.
    """

    useless_tensors = (
        (r"^norm\.", "the released model never calls its final norm"),
        (r"^cls_token$", "there is no class token here"),
    )

    def __init__(
        self,
        img_size: int | Size = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        depths: Sequence[int] = (2, 2, 2, 2),
        attention: str | Sequence[str] = "LLLL",
        linear_sr_ratios: Sequence[int] = (1, 1, 1, 1),
        focusing_factor: float = 3,
        kernel_size: int = 5,
        window_size: int | None = None,
        linear_window_size: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        check_per_stage(depths, embed_dims=embed_dims, num_heads=num_heads, mlp_ratios=mlp_ratios)
        cores = block_cores(attention, depths)
        linear = LinearOptions(focusing_factor, kernel_size, linear_window_size)
        attend = ReducedAttention(cores, linear, linear_sr_ratios, window_size)
        drop_path = drop_path_rates(drop_path_rate, depths)
        stages: list[Stage] = []
        in_channels, in_stride = in_chans, 1
        for i, (dim, stride) in enumerate(zip(embed_dims, STRIDES, strict=True)):
            grid = ceil_div(native_size(img_size), stride)
            blocks = [
                Block(
                    dim,
                    attend(dim, num_heads[i], grid, i, j),
                    mlp_beside(cores[i][j], dim, int(dim * mlp_ratios[i])),
                    next(drop_path),
                    norm_eps=1e-6,
                )
                for j in range(depths[i])
            ]
            patch_embed = PatchEmbed(in_channels, dim, stride // in_stride)
            stages.append(Stage(dim, patch_embed, blocks, grid_size=grid))
            in_channels, in_stride = dim, stride
        super().__init__(stages, None, in_chans, num_classes, global_pool, drop_rate, init_pvt, attend.mixes_padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to logits ``[B, K]``."""
        return self.forward_head(self.forward_features(x))

    def rename_checkpoint(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of an official FLatten-PVT or PVT checkpoint to this module's; its own pass unchanged.

        Args:
            state_dict: an official one, or one of this module.

        Returns:
            Name to tensor.
        """
        renamed = {}
        for name, tensor in state_dict.items():
            if name == "pos_embed4" and "cls_token" in state_dict:
                tensor = tensor[:, 1:]  # the first row is the class token's, in the softmax original
            name = re.sub(r"^(block|patch_embed|pos_embed)(\d)", stage_name, name)
            renamed[name] = tensor
        return place_in_cores(renamed, self)


class ReducedAttention:
    """Makes the attention of PVT's and PVTv2's blocks: keys and values may come from a coarser grid.

    Args:
        cores: names for the blocks of each stage.
        linear: how linear blocks attend.
        linear_sr_ratios: side of the cells from which linear blocks take keys and values, per stage.
        window_size: side of the windows of softmax blocks, None for spatial reduction.
        pooled: keys and values of every block come from the map pooled to 7 x 7.

    Attributes:
        mixes_padding: why images of different sizes cannot share a batch; None if they can.

    Raises:
        ValueError: the options do not fit each other.
    """

    def __init__(
        self,
        cores: Sequence[Sequence[str]],
        linear: LinearOptions,
        linear_sr_ratios: Sequence[int],
        window_size: int | None,
        pooled: bool = False,
    ) -> None:
        ratios = list(linear_sr_ratios) if isinstance(linear_sr_ratios, Sequence) else []
        if len(ratios) != len(STRIDES) or not all(isinstance(ratio, int) and ratio > 0 for ratio in ratios):
            raise ValueError(f"linear_sr_ratios must be four integers from 1, got {linear_sr_ratios!r}")
        check_window("window_size", window_size)
        is_linear = [any(name != "softmax" for name in stage) for stage in cores]
        reduced = any(one and ratio > 1 for one, ratio in zip(is_linear, ratios, strict=True))
        if linear.window_size is not None and (reduced or pooled):
            raise ValueError(
                f"linear_window_size={linear.window_size} needs queries and keys on one grid: leave linear_sr_ratios "
                f"at 1 and linear at False, got {tuple(linear_sr_ratios)} and {pooled}"
            )
        if window_size is not None and pooled:
            raise ValueError(f"window_size={window_size} needs queries and keys on one grid, which linear=True pools")
        self._cores, self._linear, self._ratios = cores, linear, linear_sr_ratios
        self._window_size, self._pooled = window_size, pooled
        self.mixes_padding = None
        if pooled:
            self.mixes_padding = "linear=True pools the padded map"
        elif reduced:
            self.mixes_padding = "linear_sr_ratios above 1 stretch the values over the padded map"

    def __call__(self, dim: int, num_heads: int, grid: Size, stage: int, block: int) -> SpatialReductionAttention:
        """The attention of one block, on a native grid of (H, W)."""
        core: nn.Module
        name = self._cores[stage][block]
        if name != "softmax":
            ratio = self._ratios[stage]
            key_grid = POOLED_GRID if self._pooled else ceil_div(grid, ratio)
            core = self._linear.core(name, dim, num_heads, key_grid, block)
        else:
            ratio = SOFTMAX_SR_RATIOS[stage] if self._window_size is None else 1
            core = softmax_core(dim, num_heads, self._window_size, block)
        return SpatialReductionAttention(dim, core, ratio, self._pooled)


def stage_name(match: re.Match[str]) -> str:
    """Our name for a part that official names number from 1: ``block1`` is ``stages.0.blocks``."""
    part = "blocks" if match[1] == "block" else match[1]
    return f"stages.{int(match[2]) - 1}.{part}"


default_cfgs = generate_default_cfgs(
    {
        "flatten_pvt_tiny.untrained": default_cfg(),
        "flatten_pvt_small.untrained": default_cfg(),
        "flatten_pvt_medium.untrained": default_cfg(),
        "flatten_pvt_base.untrained": default_cfg(),
        "flatten_pvt_nano.untrained": default_cfg(),
        "flatten_pvt_test.untrained": default_cfg(input_size=(3, 64, 64), pool_size=(2, 2)),
    }
)


_create = partial(create, FlattenPVT)


@register_model
def flatten_pvt_tiny(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVT-T, 12.2M parameters."""
    return _create("flatten_pvt_tiny", pretrained, {"depths": (2, 2, 2, 2)}, kwargs)


@register_model
def flatten_pvt_small(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVT-S, 21.7M parameters."""
    return _create("flatten_pvt_small", pretrained, {"depths": (3, 4, 6, 3)}, kwargs)


@register_model
def flatten_pvt_medium(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVT-M, 37.2M parameters."""
    return _create("flatten_pvt_medium", pretrained, {"depths": (3, 4, 18, 3)}, kwargs)


@register_model
def flatten_pvt_base(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVT-B, 50.6M parameters; the depths of PVT-Large."""
    return _create("flatten_pvt_base", pretrained, {"depths": (3, 8, 27, 3)}, kwargs)


@register_model
def flatten_pvt_nano(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """Sized for training on a laptop's processor; not of the paper."""
    return _create("flatten_pvt_nano", pretrained, {"embed_dims": (32, 64, 160, 256)}, kwargs)


@register_model
def flatten_pvt_test(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """For tests: one tiny block per stage, 64 x 64 tables."""
    defaults = {
        "img_size": 64,
        "embed_dims": (8, 16, 24, 32),
        "num_heads": (1, 2, 3, 4),
        "mlp_ratios": (2, 2, 2, 2),
        "depths": (1, 1, 1, 1),
    }
    return _create("flatten_pvt_test", pretrained, defaults, kwargs)
