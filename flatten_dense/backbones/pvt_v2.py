"""FLatten-PVTv2: PVTv2 with focused linear attention.

Sources: "FLatten Transformer", arXiv 2308.00442, and "PVTv2", arXiv 2106.13797. Overlapping patch embeddings, a
depth-wise convolution in every MLP, a LayerNorm after each stage, no table of positions but those in the attention.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from flatten_dense.backbones.attention import LinearOptions, block_cores, check_per_stage, native_size
from flatten_dense.backbones.initialization import init_pvt
from flatten_dense.backbones.pvt import STRIDES, ReducedAttention, stage_name
from flatten_dense.backbones.registry import create, default_cfg
from flatten_dense.backbones.staged import Stage, StagedBackbone, drop_path_rates, place_in_cores
from flatten_dense.layers import Block, ConvMlp, PatchEmbed, Size, ceil_div


class FlattenPVTv2(StagedBackbone):
    """FLatten-PVTv2 as a timm model.

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
        linear: keys and values come from the map pooled to 7 x 7, in softmax blocks too, as in PVTv2-Li.
        linear_sr_ratios: side of the cells from which linear blocks take keys and values.
        focusing_factor: power of the focused feature map.
        kernel_size: of the depth-wise convolution of linear blocks, odd.
        window_size: softmax blocks attend within Swin's windows of this side; None for PVTv2's own, over the whole map
            with keys from cells of 8, 4, 2, 1 tokens.
        linear_window_size: linear blocks attend within windows of this side; None for the whole map.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.

    Raises:
        ValueError: an option does not fit the stages or another option.
    """

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
        linear: bool = False,
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
        options = LinearOptions(focusing_factor, kernel_size, linear_window_size)
        attend = ReducedAttention(cores, options, linear_sr_ratios, window_size, pooled=linear)
        drop_path = drop_path_rates(drop_path_rate, depths)
        stages: list[Stage] = []
        in_channels, in_stride = in_chans, 1
        for i, (dim, stride) in enumerate(zip(embed_dims, STRIDES, strict=True)):
            grid = ceil_div(native_size(img_size), stride)
            blocks = [
                Block(
                    dim,
                    attend(dim, num_heads[i], grid, i, j),
                    ConvMlp(dim, int(dim * mlp_ratios[i]), relu=linear),
                    next(drop_path),
                    norm_eps=1e-6,
                )
                for j in range(depths[i])
            ]
            kernel_side = 3 if i else 7
            patch_embed = PatchEmbed(in_channels, dim, stride // in_stride, kernel_side, kernel_side // 2)
            stages.append(Stage(dim, patch_embed, blocks, norm=nn.LayerNorm(dim, eps=1e-6)))
            in_channels, in_stride = dim, stride
        super().__init__(stages, None, in_chans, num_classes, global_pool, drop_rate, init_pvt, attend.mixes_padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to logits ``[B, K]``."""
        return self.forward_head(self.forward_features(x))

    def rename_checkpoint(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a FLatten-PVTv2 or PVTv2 checkpoint to this module's; its own pass unchanged.

        Args:
            state_dict: an official one; timm's PVTv2; or one of this module.

        Returns:
            Name to tensor.
        """
        from_timm = "patch_embed.proj.weight" in state_dict
        renamed = {}
        for name, tensor in state_dict.items():
            if from_timm:
                name = re.sub(r"^patch_embed\.", "stages.0.patch_embed.", name)
                name = re.sub(r"^(stages\.\d+)\.downsample\.", r"\1.patch_embed.", name)
            name = re.sub(r"^(block|patch_embed|norm)(\d)(?=\.)", stage_name, name)
            name = name.replace(".dwconv.dwconv.", ".dwconv.")
            renamed[name] = tensor
        return place_in_cores(renamed, self)


default_cfgs = generate_default_cfgs(
    {
        **{f"flatten_pvt_v2_b{size}.untrained": default_cfg() for size in range(6)},
        "flatten_pvt_v2_test.untrained": default_cfg(input_size=(3, 64, 64), pool_size=(2, 2)),
    }
)


_create = partial(create, FlattenPVTv2)


@register_model
def flatten_pvt_v2_b0(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVTv2-B0, 3.6M parameters."""
    return _create("flatten_pvt_v2_b0", pretrained, {"embed_dims": (32, 64, 160, 256)}, kwargs)


@register_model
def flatten_pvt_v2_b1(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVTv2-B1, 12.9M parameters."""
    return _create("flatten_pvt_v2_b1", pretrained, {}, kwargs)


@register_model
def flatten_pvt_v2_b2(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVTv2-B2, 22.5M parameters."""
    return _create("flatten_pvt_v2_b2", pretrained, {"depths": (3, 4, 6, 3)}, kwargs)


@register_model
def flatten_pvt_v2_b3(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVTv2-B3, 38.3M parameters."""
    return _create("flatten_pvt_v2_b3", pretrained, {"depths": (3, 4, 18, 3)}, kwargs)


@register_model
def flatten_pvt_v2_b4(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVTv2-B4, 51.8M parameters."""
    return _create("flatten_pvt_v2_b4", pretrained, {"depths": (3, 8, 27, 3)}, kwargs)


@register_model
def flatten_pvt_v2_b5(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """FLatten-PVTv2-B5: the depths and MLPs of PVTv2-B5; not of the paper."""
    return _create("flatten_pvt_v2_b5", pretrained, {"depths": (3, 6, 40, 3), "mlp_ratios": (4, 4, 4, 4)}, kwargs)


@register_model
def flatten_pvt_v2_test(pretrained: bool = False, **kwargs: object) -> nn.Module:
    """For tests: one tiny block per stage, 64 x 64 tables."""
    defaults = {
        "img_size": 64,
        "embed_dims": (8, 16, 24, 32),
        "num_heads": (1, 2, 3, 4),
        "mlp_ratios": (2, 2, 2, 2),
        "depths": (1, 1, 1, 1),
    }
    return _create("flatten_pvt_v2_test", pretrained, defaults, kwargs)
