"""The maps that a dense head gets from one of our own backbones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from flatten_dense.backbones.staged import StagedBackbone, apply_norm
from flatten_dense.layers import Size, TokenGrid, ceil_div


class DenseMaps(FeatureGetterNet):
    """Stage outputs under the norms that dense heads want: `features_only`, with images of several sizes in a batch.

    Made by ``timm.create_model(NAME, features_only=True, dense_maps=True)``.

    Args:
        model: any of our families; its ``dense_norms`` says which norms.
        out_indices: stages to give.
        options: further arguments of timm's FeatureGetterNet.
    """

    def __init__(self, model: StagedBackbone, out_indices: int | tuple[int, ...], **options: Any) -> None:  # noqa: ANN401 - timm's
        last = len(model.stages) - 1
        super().__init__(model, out_indices, norm=model.dense_norms != "none", **options)
        self.indices: list[int] = list(cast(Sequence[int], self.out_indices))
        added = model.dense_norms == "all"
        self.norms = nn.ModuleList(
            nn.LayerNorm(info["num_chs"], eps=1e-5) if added and index != last else nn.Identity()
            for index, info in zip(self.indices, self.feature_info.get_dicts(), strict=True)
        )

    def forward(self, x: Tensor, image_sizes: Sequence[Size] | None = None) -> list[Tensor]:
        """Map images ``[B, in_chans, H, W]`` to a map per stage; arguments as ``forward_intermediates``."""
        model = cast(StagedBackbone, self.model)
        sizes = None if image_sizes is None else model.check_sizes(x, image_sizes)
        maps: Any = model.forward_intermediates(
            x, indices=self.indices, norm=self.norm, intermediates_only=True, image_sizes=sizes
        )
        for i, (norm, stride) in enumerate(zip(self.norms, self.feature_info.reduction(), strict=True)):
            if isinstance(norm, nn.LayerNorm):
                normed = apply_norm(norm, maps[i])
                own = sizes and [ceil_div(size, stride) for size in sizes]
                maps[i] = TokenGrid.of(normed, own).clear(normed)
        return cast(list[Tensor], maps)
