"""What the files of the families need to register their variants with timm."""

from __future__ import annotations

from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg
from torch import Tensor, nn

from flatten_dense.backbones.dense_maps import DenseMaps
from flatten_dense.backbones.staged import MIN_SIDE, StagedBackbone


def default_cfg(**kwargs: object) -> dict[str, Any]:
    """What timm keeps beside a variant; the published evaluation squashes images to 256 x 256 and crops 224."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "min_input_size": (3, MIN_SIDE, MIN_SIDE),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "crop_mode": "squash",
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stages.0.patch_embed.proj",
        "classifier": "head",
        "fixed_input_size": False,
        "paper_name": "FLatten Transformer: Vision Transformer using Focused Linear Attention",
        "paper_ids": "arXiv:2308.00442",
        **kwargs,
    }


def create(
    family: type[StagedBackbone],
    variant: str,
    pretrained: bool,
    defaults: dict[str, Any],
    overrides: dict[str, Any],
) -> nn.Module:
    """Build a registered variant through timm.

    Args:
        family: the model's class.
        variant: its name in the registry.
        pretrained: load the weights of its default_cfg.
        defaults: what makes the variant.
        overrides: what the caller gave to ``timm.create_model``; with ``features_only``, ``dense_maps=True`` makes it
            :class:`DenseMaps`.
    """
    arguments = {**defaults, **overrides}
    features: dict[str, Any] = {"out_indices": family.feature_indices, "feature_cls": "getter"}
    if arguments.pop("dense_maps", False):
        features = {"out_indices": family.dense_indices, "feature_cls": DenseMaps}
    return build_model_with_cfg(
        family, variant, pretrained, pretrained_filter_fn=_usable_tensors, feature_cfg=features, **arguments
    )


def _usable_tensors(state_dict: dict[str, Tensor], model: StagedBackbone) -> dict[str, Tensor]:
    renamed = model.rename_checkpoint(state_dict)
    return {name: tensor for name, tensor in renamed.items() if model.why_useless(name) is None}
