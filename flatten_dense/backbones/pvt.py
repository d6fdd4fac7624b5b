"""FLatten-PVT: the Pyramid Vision Transformer with focused linear attention.

Sources: "FLatten Transformer", arXiv 2308.00442, and "Pyramid Vision Transformer", arXiv 2102.12122. As released, the
features are mean-pooled without a class token; the released model's final LayerNorm, which it never calls, is left out.
Changed: any input size, each learned table being resized from its own stage's grid.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.drop import DropPath
from timm.layers.helpers import to_2tuple
from timm.layers.mlp import Mlp
from timm.layers.weight_init import trunc_normal_
from timm.models import build_model_with_cfg, checkpoint, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from flatten_dense.layers import (
    FocusedLinearAttention,
    PatchEmbed,
    SoftmaxAttention,
    SpatialReductionAttention,
    resize_token_table,
)

STRIDES = (4, 8, 16, 32)
SOFTMAX_SR_RATIOS = (8, 4, 2, 1)  # of the softmax PVT, whose attention needs them to be affordable


def softmax_attention(dim: int, num_heads: int, sr_ratio: int) -> SpatialReductionAttention:
    """The attention of the softmax PVT."""
    return SpatialReductionAttention(dim, SoftmaxAttention(dim, num_heads), sr_ratio)


def linear_attention(
    dim: int, num_heads: int, grid_size: tuple[int, int], sr_ratio: int, focusing_factor: float, kernel_size: int
) -> SpatialReductionAttention:
    """The attention of FLatten-PVT for queries on ``grid_size`` (H, W), keys on cells of side ``sr_ratio``."""
    key_grid = (math.ceil(grid_size[0] / sr_ratio), math.ceil(grid_size[1] / sr_ratio))
    core = FocusedLinearAttention(dim, num_heads, key_grid, focusing_factor, kernel_size)
    return SpatialReductionAttention(dim, core, sr_ratio)


class Block(nn.Module):
    """Pre-norm transformer block around an attention that knows the map's size."""

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens ``[B, N, C]`` of a map of ``size`` to the same shape."""
        x = x + self.drop_path1(self.attn(self.norm1(x), size))
        return x + cast(Tensor, self.drop_path2(self.mlp(self.norm2(x))))


class Stage(nn.Module):
    """Patch embedding, the stage's table of positions, blocks.

    Args:
        in_channels: channels of the map before the stage.
        dim: C.
        patch_size: side of a cell.
        grid_size: (H, W) that ``pos_embed`` is made for.
        blocks: of this stage, each called with tokens and their grid.
    """

    def __init__(
        self, in_channels: int, dim: int, patch_size: int, grid_size: tuple[int, int], blocks: Sequence[Block]
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid_size[0] * grid_size[1], dim))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_channels, H, W]`` to ``[B, C, ceil(H / patch_size), ceil(W / patch_size)]``."""
        x, size = self.patch_embed(x)
        x = x + resize_token_table(self.pos_embed, self.grid_size, size)
        for block in self.blocks:
            x = checkpoint(block, x, size) if self.grad_checkpointing else block(x, size)
        return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], *size)


class FlattenPVT(nn.Module):
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
        attention: a letter for each stage, L for focused linear or S for softmax attention.
        linear_sr_ratios: side of the cells from which linear stages take keys and values.
        focusing_factor: power of the focused feature map.
        kernel_size: of the depth-wise convolution of linear stages, odd.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        ValueError: if ``attention`` or ``linear_sr_ratios`` do not fit the four stages.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        embed_dims: Sequence[int] = (64, 128, 320, 512),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[float] = (8, 8, 4, 4),
        depths: Sequence[int] = (2, 2, 2, 2),
        attention: str = "LLLL",
        linear_sr_ratios: Sequence[int] = (1, 1, 1, 1),
        focusing_factor: float = 3,
        kernel_size: int = 5,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(attention) != 4 or set(attention) - set("LS"):
            raise ValueError(f"attention must be four letters L (linear) or S (softmax) like 'LLSS', got {attention!r}")
        if len(linear_sr_ratios) != 4 or min(linear_sr_ratios) < 1:
            raise ValueError(f"linear_sr_ratios must be four integers from 1, got {linear_sr_ratios!r}")
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = global_pool
        height, width = to_2tuple(img_size)
        drop_path = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.feature_info: list[dict[str, Any]] = []
        stages: list[Stage] = []
        in_channels, in_stride = in_chans, 1
        for i, (dim, stride) in enumerate(zip(embed_dims, STRIDES, strict=True)):
            grid_size = (math.ceil(height / stride), math.ceil(width / stride))
            blocks = []
            for _ in range(depths[i]):
                if attention[i] == "S":
                    attn = softmax_attention(dim, num_heads[i], SOFTMAX_SR_RATIOS[i])
                else:
                    ratio = linear_sr_ratios[i]
                    attn = linear_attention(dim, num_heads[i], grid_size, ratio, focusing_factor, kernel_size)
                blocks.append(Block(dim, attn, mlp_ratios[i], next(drop_path)))
            stages.append(Stage(in_channels, dim, stride // in_stride, grid_size, blocks))
            self.feature_info.append({"num_chs": dim, "reduction": stride, "module": f"stages.{i}"})
            in_channels, in_stride = dim, stride
        self.stages = nn.Sequential(*stages)
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.apply(_init_weights)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to the last stage's ``[B, C, ceil(H / 32), ceil(W / 32)]``."""
        self._check_images(x)
        return cast(Tensor, self.stages(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last stage's features to ``[B, K]``, or to the pooled ``[B, C]`` with ``pre_logits``."""
        if self.global_pool:
            x = x.mean(dim=(-2, -1))
        return x if pre_logits else cast(Tensor, self.head(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to logits ``[B, K]``."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the outputs of chosen stages, in timm's convention.

        Args:
            x: images ``[B, in_chans, H, W]``.
            indices: stages to return; an int for the last so many, None for all.
            norm: without effect, the stages of a PVT have no norm at their end.
            stop_early: skip the stages after the last one wanted.
            output_fmt: NCHW, nothing else.
            intermediates_only: leave out the final features.

        Returns:
            The maps, or (final features, maps).

        Raises:
            ValueError: for another ``output_fmt``, or images that the model cannot take.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        self._check_images(x)
        taken, last = feature_take_indices(len(self.stages), indices)
        intermediates = []
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in taken:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one wanted, and the classifier; returns the absolute indices."""
        taken, last = feature_take_indices(len(self.stages), indices)
        pruned = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if pruned:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_head or pruned:
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier with a fresh one of K classes, on the same device; 0 for none."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        like = next(self.parameters())
        head = nn.Linear(self.num_features, num_classes).to(like) if num_classes else nn.Identity()
        head.apply(_init_weights)
        self.head = head

    def no_weight_decay(self) -> set[str]:
        """Nothing beyond the usual biases and norms: the released training decays the tables and scales as well."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth, for layer-wise decay: by block, or by stage if ``coarse``."""
        by_block = [(r"^stages\.(\d+)\.(?:patch_embed|pos_embed)", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {
            "stem": r"^stages\.0\.(?:patch_embed|pos_embed)",
            "blocks": r"^stages\.(\d+)" if coarse else by_block,
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            cast(Stage, stage).grad_checkpointing = enable

    def _check_images(self, x: Tensor) -> None:
        if x.ndim != 4 or not x.is_floating_point() or x.shape[1] != self.in_chans:
            raise ValueError(f"images must be [B, {self.in_chans}, H, W] floats, got {tuple(x.shape)} {x.dtype}")
        if min(x.shape[-2:]) < STRIDES[-1]:
            raise ValueError(f"images must be at least {STRIDES[-1]} pixels on each side, got {tuple(x.shape[-2:])}")


def _init_weights(module: nn.Module) -> None:
    """The initialisation of PVT."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(cast(Tensor, module.bias))
    elif isinstance(module, Stage):
        trunc_normal_(module.pos_embed, std=0.02)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Rename the tensors of an official FLatten-PVT checkpoint to this module's names; its own names pass unchanged.

    Args:
        state_dict: an official one, bare or under the key ``model``, or one of this module.
        model: the model to load into; not needed, an argument for timm's sake.

    Returns:
        Name to tensor. The released final norm, which no forward pass uses, is dropped.
    """
    state_dict = state_dict.get("model", state_dict)
    renamed = {}
    for name, tensor in state_dict.items():
        if name in ("norm.weight", "norm.bias"):
            continue
        name = re.sub(r"^(block|patch_embed|pos_embed)(\d)", _stage_name, name)
        name = re.sub(r"\.attn\.(scale|positional_encoding|dwc)\b", r".attn.core.\1", name)
        renamed[name] = tensor
    return renamed


def _stage_name(match: re.Match[str]) -> str:
    part = "blocks" if match[1] == "block" else match[1]
    return f"stages.{int(match[2]) - 1}.{part}"


def _cfg(**kwargs: object) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "crop_mode": "squash",  # the published evaluation resizes to 256 x 256 without keeping the aspect ratio
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stages.0.patch_embed.proj",
        "classifier": "head",
        "fixed_input_size": False,
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "flatten_pvt_tiny.untrained": _cfg(),
        "flatten_pvt_small.untrained": _cfg(),
        "flatten_pvt_medium.untrained": _cfg(),
        "flatten_pvt_base.untrained": _cfg(),
        "flatten_pvt_nano.untrained": _cfg(),
        "flatten_pvt_test.untrained": _cfg(input_size=(3, 64, 64), pool_size=(2, 2)),
    }
)


def _create(variant: str, pretrained: bool, defaults: dict[str, Any], overrides: dict[str, Any]) -> nn.Module:
    return build_model_with_cfg(
        FlattenPVT,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **{**defaults, **overrides},
    )


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
