"""The model that all families are: stages of blocks over a map, behind timm's contract."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import torch
from timm.models import checkpoint
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from flatten_dense.layers import Block, PatchEmbed, PatchMerging, Size, TokenGrid, ceil_div, resize_token_table
from flatten_dense.layers.positional import add_table
from flatten_dense.layers.streaming import may_stream

MIN_SIDE = 32  # pixels; the coarsest stride of the pyramids


class Stage(nn.Module):
    """Tokens from a map, a table of positions if wanted, blocks.

    Args:
        dim: C.
        patch_embed: makes the tokens; None when the incoming map has them.
        blocks: each called with tokens and their grid.
        grid_size: native (H, W) of the table ``pos_embed`` added to the tokens; None for no table.
        norm: LayerNorm of the stage's output on its way on, applied by the model; None for none.
    """

    def __init__(
        self,
        dim: int,
        patch_embed: PatchEmbed | PatchMerging | None,
        blocks: Sequence[Block],
        grid_size: Size | None = None,
        norm: nn.LayerNorm | None = None,
    ) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.grad_checkpointing = False
        self.patch_embed = patch_embed
        if grid_size is not None:
            self.pos_embed = nn.Parameter(torch.zeros(1, grid_size[0] * grid_size[1], dim))
        self.blocks = nn.ModuleList(blocks)
        self.norm: nn.Module = norm or nn.Identity()

    @property
    def stride(self) -> int:
        """Pixels of the incoming map per token, on a side."""
        return self.patch_embed.stride if self.patch_embed is not None else 1

    def forward(self, x: Tensor, own_sizes: Sequence[Size] | None = None) -> Tensor:
        """Map ``[B, in_channels, H, W]`` to ``[B, C, ceil(H / stride), ceil(W / stride)]``, before the norm.

        Args:
            x: the incoming map.
            own_sizes: of each image in it, for a padded batch.
        """
        grid = TokenGrid.of(x, own_sizes)
        if self.patch_embed is None:
            tokens = TokenGrid.to_tokens(x)
        else:
            tokens, grid = self.patch_embed(x, grid)
        if self.grid_size is not None:
            tokens = self._add_positions(tokens, self.grid_size, grid)
        for block in self.blocks:
            tokens = checkpoint(block, tokens, grid) if self.grad_checkpointing else block(tokens, grid)
        return grid.to_map(tokens)

    def _add_positions(self, tokens: Tensor, table_size: Size, grid: TokenGrid) -> Tensor:
        is_own = self.patch_embed is not None  # else a view of the caller's map
        if is_own and grid.own_sizes is None and may_stream(self):
            return add_table(tokens, self.pos_embed, table_size, grid.size)
        return tokens + resize_token_table(self.pos_embed, table_size, grid.size, grid.own_sizes)


class StagedBackbone(nn.Module):
    """Stages in a row, a norm, a classifier on the mean: a timm model.

    Each family has a ``forward`` of its own, since torch.compile limits how often one code object is compiled again.

    Args:
        stages: in order, each a part of the network that features can be taken from.
        norm: LayerNorm of the last stage's output; None for none.
        in_chans: channels of the images.
        num_classes: K; 0 for no classifier.
        global_pool: ``"avg"``, or ``""`` to hand the map on.
        drop_rate: dropout before the classifier.
        init_weights: applied to every module once.
        mixes_padding: why images of different sizes cannot share a batch in this model; None if they can.

    Attributes:
        feature_info: channels, stride and name of each stage's output, as timm keeps them.

    Raises:
        ValueError: an argument is out of its range.
    """

    norm_every_stage = False
    """Whether ``norm`` fits, and normalises, the output of every stage."""

    feature_indices: int | tuple[int, ...] = (0, 1, 2, 3)
    """Stages that ``features_only=True`` gives by itself."""

    dense_indices: tuple[int, ...] = (0, 1, 2, 3)
    """Stages that dense heads get by themselves."""

    useless_tensors: tuple[tuple[str, str], ...] = ()
    """Tensors of official or timm's checkpoints that have no use here: pattern of their names, and why."""

    dense_norms: Literal["none", "own", "all"] = "own"
    """Norms of the maps that dense heads get: none, those the model has, or a new one where it has none."""

    def __init__(
        self,
        stages: Sequence[Stage],
        norm: nn.LayerNorm | None,
        in_chans: int,
        num_classes: int,
        global_pool: str,
        drop_rate: float,
        init_weights: Callable[[nn.Module], None],
        mixes_padding: str | None = None,
    ) -> None:
        super().__init__()
        _check_pool(global_pool)
        if in_chans < 1 or num_classes < 0:
            raise ValueError(f"expected in_chans from 1 and num_classes from 0, got {in_chans} and {num_classes}")
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.mixes_padding = mixes_padding
        self.feature_info: list[dict[str, Any]] = []
        stride = 1
        for index, stage in enumerate(stages):
            stride *= stage.stride
            channels = cast(Block, stage.blocks[-1]).norm2.normalized_shape[0]
            self.feature_info.append({"num_chs": channels, "reduction": stride, "module": f"stages.{index}"})
        self.stages = nn.ModuleList(stages)
        self.norm: nn.Module = norm or nn.Identity()
        self.num_features: int = self.feature_info[-1]["num_chs"]
        self.head_hidden_size: int = self.num_features
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self._init_weights = init_weights
        self.apply(init_weights)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images ``[B, in_chans, H, W]`` to the last stage's normalised ``[B, C, h, w]``."""
        self._check_images(x)
        for stage in self.stages:
            x = apply_norm(cast(Stage, stage).norm, stage(x))
        return apply_norm(self.norm, x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the features to ``[B, K]``, or to the pooled ``[B, C]`` with ``pre_logits``.

        Without pooling both stay maps, ``[B, K, h, w]`` and ``[B, C, h, w]``.
        """
        x = self.head_drop(x.mean(dim=(-2, -1)) if self.global_pool else x)
        return x if pre_logits else cast(Tensor, self.head(x.movedim(1, -1)).movedim(-1, 1))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        image_sizes: Sequence[Size] | None = None,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the outputs of chosen stages, in timm's convention.

        Args:
            x: images ``[B, in_chans, H, W]``.
            indices: stages to return; an int for the last so many, None for all.
            norm: apply the norm that the model has for a stage's output; False gives what its last block gives.
            stop_early: skip the stages after the last one wanted.
            output_fmt: NCHW, nothing else.
            intermediates_only: leave out the final features.
            image_sizes: (h, w) of each image in a batch that was padded at the right and bottom. What an image gets
                does then not depend on the others: within ceil(h / stride) x ceil(w / stride) it equals what the image
                gets alone, and beyond it is zero.

        Returns:
            The maps, or (final features, maps).

        Raises:
            ValueError: for another ``output_fmt``, images or sizes that the model cannot take.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        self._check_images(x)
        sizes = None if image_sizes is None else self.check_sizes(x, image_sizes)
        taken, last = self._take(indices)
        intermediates = []
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            raw = stage(x, sizes)
            sizes = sizes and [ceil_div(size, cast(Stage, stage).stride) for size in sizes]
            x = apply_norm(cast(Stage, stage).norm, raw)
            if index in taken:
                of_model = norm and (self.norm_every_stage or index == len(self.stages) - 1)
                out = apply_norm(self.norm, x) if of_model else x if norm else raw
                intermediates.append(TokenGrid.of(out, sizes).clear(out))
        if intermediates_only:
            return intermediates
        final = x if index < len(self.stages) - 1 else apply_norm(self.norm, x)
        return TokenGrid.of(final, sizes).clear(final), intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one wanted, and the classifier; returns the absolute indices.

        Args:
            indices: stages that are wanted, as in :meth:`forward_intermediates`.
            prune_norm: drop the norms, too, that only ``norm=True`` or the classifier would need.
            prune_head: drop the classifier even if every stage is kept.
        """
        taken, last = self._take(indices)
        pruned = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if prune_norm:
            self.stages[-1].norm = nn.Identity()
        if prune_norm or (pruned and not self.norm_every_stage):
            self.norm = nn.Identity()
        self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_head or pruned:
            self.reset_classifier(0, "")
        return taken

    def rename_checkpoint(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the tensors of a checkpoint of this family, official or timm's, the names they have here.

        Args:
            state_dict: name to tensor. This module's own names pass unchanged.

        Returns:
            Name to tensor; what has no place here keeps a name that this module does not have.
        """
        raise NotImplementedError

    def why_useless(self, name: str) -> str | None:
        """Why a tensor of :meth:`rename_checkpoint` has no use here, or None if it should have one."""
        return next((why for pattern, why in self.useless_tensors if re.search(pattern, name)), None)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier with a fresh one of K classes, on the same device; 0 for none."""
        if global_pool is not None:
            _check_pool(global_pool)
            self.global_pool = global_pool
        self.num_classes = num_classes
        like = next(self.parameters())
        head = nn.Linear(self.num_features, num_classes).to(like) if num_classes else nn.Identity()
        head.apply(self._init_weights)
        self.head = head

    def no_weight_decay(self) -> set[str]:
        """Parameters that the published recipes exempt beyond biases and norms: Swin's bias tables."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters by depth, for layer-wise decay: by block, or by stage if ``coarse``."""
        by_block = [
            (r"^stages\.(\d+)\.(?:patch_embed|pos_embed)", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.norm", (99999,)),
            (r"^norm", (99999,)),
        ]
        by_stage = [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^stages\.0\.(?:patch_embed|pos_embed)", "blocks": by_stage if coarse else by_block}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            cast(Stage, stage).grad_checkpointing = enable

    def _take(self, indices: int | list[int] | None) -> tuple[list[int], int]:
        """Absolute indices of stages, and the largest."""
        try:
            return feature_take_indices(len(self.stages), indices)
        except AssertionError:
            raise ValueError(f"indices must name some of {len(self.stages)} stages, got {indices}") from None

    def check_sizes(self, images: Tensor, image_sizes: Sequence[Size]) -> list[Size]:
        """The sizes of the images in a padded batch, as plain pairs.

        Raises:
            ValueError: they do not fit the batch, or this model cannot take them.
        """
        if self.mixes_padding is not None:
            raise ValueError(f"this model cannot take image_sizes: {self.mixes_padding}")
        height, width = images.shape[-2:]
        try:
            sizes = [(operator.index(h), operator.index(w)) for h, w in image_sizes]
        except (TypeError, ValueError):  # not pairs, not whole numbers
            sizes = []
        fitting = [MIN_SIDE <= h <= height and MIN_SIDE <= w <= width for h, w in sizes]
        if len(sizes) != images.shape[0] or not all(fitting):
            raise ValueError(
                f"image_sizes must give (h, w) for each of {images.shape[0]} images, whole numbers from {MIN_SIDE} to "
                f"{(height, width)} pixels; got {image_sizes}"
            )
        return sizes

    def _check_images(self, x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point() or x.shape[1] != self.in_chans:
            got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"images must be [B, {self.in_chans}, H, W] floats, got {got}")
        if min(x.shape[-2:]) < MIN_SIDE:
            raise ValueError(f"images must be at least {MIN_SIDE} pixels on each side, got {tuple(x.shape[-2:])}")


def drop_path_rates(last: float, depths: Sequence[int]) -> Iterator[float]:
    """Stochastic depth of each block in turn, rising linearly from 0 to ``last``.

    Raises:
        ValueError: ``last`` is no probability below 1.
    """
    if not 0 <= last < 1:
        raise ValueError(f"drop_path_rate must be from 0 to below 1, got {last}")
    return iter(torch.linspace(0, last, sum(depths), device="cpu").tolist())


def place_in_cores(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Give the tensors of attention cores the names they have in ``model``, where windows may lie around a core.

    Args:
        state_dict: this package's names, with any number of ``core.`` levels in them.
        model: the model to load into.
    """
    own = {_without_core_levels(name): name for name in model.state_dict()}
    return {own.get(_without_core_levels(name), name): tensor for name, tensor in state_dict.items()}


def _without_core_levels(name: str) -> str:
    return re.sub(r"(\.core)+\.", ".", name)


def apply_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise ``[B, C, h, w]`` over its channels."""
    return x if isinstance(norm, nn.Identity) else cast(Tensor, norm(x.movedim(1, -1)).movedim(-1, 1))


def _check_pool(global_pool: str) -> None:
    if global_pool not in ("", "avg"):
        raise ValueError(f"global_pool must be 'avg', or '' for none, got {global_pool!r}")
