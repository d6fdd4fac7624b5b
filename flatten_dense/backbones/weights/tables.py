"""Learned tables of positions in checkpoints: from which grid to which."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.backbones.staged import Stage, StagedBackbone
from flatten_dense.layers import (
    POOLED_GRID,
    FocusedLinearAttention,
    Size,
    SwinWindowAttention,
    WindowedAttention,
    ceil_div,
)

_BIAS = "relative_position_bias_table"
TABLES = ("positional_encoding", "pos_embed", _BIAS)
"""Last parts of the names of tables with a row per cell of a grid, or per offset in a window."""


def fit_table(backbone: StagedBackbone, name: str, table: Tensor, img_size: Size | None) -> tuple[Tensor, str]:
    """Bring a table of a checkpoint to the model's grid, by bicubic interpolation.

    Args:
        backbone: the model.
        name: of the table in it.
        table: ``[1, n, C]`` with a row per cell, or ``[(2 h - 1) (2 w - 1), G]`` for a window of h x w.
        img_size: native (H, W) of the checkpoint. Without it a table of the model's length is taken as it is, and any
            other one as square.

    Returns:
        The table in the model's shape, and in words from which grid to which; no words if the grids are equal.

    Raises:
        ValueError: the grid of the table is unknown or contradicts ``img_size``.
    """
    is_bias = name.endswith(_BIAS)
    wanted = _grid_of_model(backbone, name)
    length = table.shape[-2]
    if img_size is not None:
        grid = _grid_of_image(backbone, name, length, img_size)
    elif length == _length(wanted, is_bias):
        grid = wanted
    else:
        grid = _square(length, is_bias)
    if grid is None:
        knowing = "nothing says their grid: give" if img_size is None else f"which does not fit {img_size}: correct"
        raise ValueError(
            f"{name} has {length} rows in the file, {knowing} source_img_size, the native (H, W) of its images; the "
            f"model's grid is {wanted}"
        )
    if grid == wanted:
        return table, ""
    cells, to_cells = (_offsets(grid), _offsets(wanted)) if is_bias else (grid, wanted)
    maps = table.to(torch.promote_types(table.dtype, torch.float32))
    maps = maps.reshape(*cells, -1).movedim(-1, 0).unsqueeze(0)
    maps = F.interpolate(maps, size=to_cells, mode="bicubic", align_corners=False)
    resized = maps[0].movedim(0, -1).flatten(0, 1)
    return resized.reshape(*table.shape[:-2], *resized.shape), f"{'windows ' if is_bias else ''}{grid} -> {wanted}"


def _grid_of_model(backbone: StagedBackbone, name: str) -> Size:
    owner = backbone.get_submodule(name.rpartition(".")[0])
    if isinstance(owner, SwinWindowAttention):
        return cast(Size, owner.window_size)
    return cast(Size, cast(Stage | FocusedLinearAttention, owner).grid_size)


def _grid_of_image(backbone: StagedBackbone, name: str, length: int, img_size: Size) -> Size | None:
    """The grid that a table of this length has in a model made for ``img_size``; None if there is none."""
    grid = ceil_div(img_size, backbone.feature_info[int(name.split(".")[1])]["reduction"])
    is_bias = name.endswith(_BIAS)
    sides = range(1, max(grid) + 1)
    windows = [(min(side, grid[0]), min(side, grid[1])) for side in sides]
    if name.endswith("pos_embed"):
        candidates = [grid]
    elif is_bias:
        square = _square(length, is_bias)  # a window larger than the map
        candidates = [*windows, square] if square else windows
    elif _is_windowed(backbone, name):
        candidates = windows
    else:
        candidates = [*(ceil_div(grid, ratio) for ratio in sides), POOLED_GRID]
    return next((grid for grid in candidates if _length(grid, is_bias) == length), None)


def _is_windowed(backbone: StagedBackbone, name: str) -> bool:
    parts = name.split(".")
    owners = (backbone.get_submodule(".".join(parts[:end])) for end in range(1, len(parts)))
    return any(isinstance(owner, WindowedAttention) for owner in owners)


def _offsets(window: Size) -> Size:
    return 2 * window[0] - 1, 2 * window[1] - 1


def _length(grid: Size, is_bias: bool) -> int:
    return math.prod(_offsets(grid) if is_bias else grid)


def _square(length: int, is_bias: bool) -> Size | None:
    side = math.isqrt(length)
    if side * side != length or (is_bias and side % 2 == 0):
        return None
    side = (side + 1) // 2 if is_bias else side
    return side, side
