"""Which attention each block of a backbone gets, by letter or name, and the options all families share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from flatten_dense.layers import (
    CORE_NAMES,
    ConvMlp,
    Mlp,
    Size,
    SoftmaxAttention,
    SwinWindowAttention,
    WindowedAttention,
    as_size,
    make_core,
)
from flatten_dense.layers.cores import split_core_name

_LETTERS = {"L": "focused", "S": "softmax"}


def block_cores(attention: str | Sequence[str], depths: Sequence[int]) -> list[list[str]]:
    """Spell out which core each block gets.

    Args:
        attention: the paper's letter for each stage: L for focused linear attention, S for softmax attention, M for a
            stage whose first blocks are linear, their number being read after the letters: "LLSS", "LLMS2". Or a name
            of :data:`flatten_dense.layers.CORE_NAMES` for all stages, "hydra". Or a name, L or S for each stage, as a
            list or joined by hyphens: "focused-relu-S-S".
        depths: blocks of each stage.

    Returns:
        For each stage the names of its blocks' cores.

    Raises:
        ValueError: it does not fit the stages, or there is no such core.
    """
    if isinstance(attention, str) and re.fullmatch(r"[A-Z]+\d*", attention):
        return _cores_of_letters(attention, depths)
    stages = attention.split("-") if isinstance(attention, str) else attention
    names = [_LETTERS.get(str(name), str(name)) for name in stages] if isinstance(stages, list | tuple) else []
    for name in names:
        split_core_name(name)
    names *= len(depths) if len(names) == 1 else 1
    if len(names) != len(depths):
        raise ValueError(_refusal(attention, depths))
    return [[name] * depth for name, depth in zip(names, depths, strict=True)]


def _cores_of_letters(attention: str, depths: Sequence[int]) -> list[list[str]]:
    match = re.fullmatch(r"([LSM]+)(\d*)", attention)
    if match is None or len(match[1]) != len(depths):
        raise ValueError(_refusal(attention, depths))
    letters, count = match[1], match[2]
    if ("M" in letters) != bool(count):
        missing = "needs the number of its linear blocks after the letters, like 'LLMS2'"
        raise ValueError(f"attention {attention!r} {'with M ' + missing if not count else 'has a number but no M'}")
    linear = int(count or 0)
    cores = []
    for letter, depth in zip(letters, depths, strict=True):
        if letter == "M" and depth < linear:
            raise ValueError(f"attention {attention!r} asks for {linear} linear blocks in a stage of {depth}")
        first = linear if letter == "M" else depth if letter == "L" else 0
        cores.append(["focused"] * first + ["softmax"] * (depth - first))
    return cores


def _refusal(attention: object, depths: Sequence[int]) -> str:
    expected = f"{len(depths)} letters" if len(depths) > 1 else "one letter"
    return (
        f"attention must be {expected} L (linear), S (softmax) or M (mixed, with the number of linear blocks after the "
        f"letters) like {'LLSS' * (len(depths) // 4) or 'L'!r} or "
        f"{'LLMS2' if len(depths) == 4 else 'M' * len(depths) + '2'!r}, or a name for all stages or for each like "
        f"{'-'.join(['relu', 'focused', 'S', 'S'][: len(depths)])!r}, from {', '.join(CORE_NAMES)}; got {attention!r}"
    )


@dataclass(frozen=True)
class LinearOptions:
    """How the linear blocks of a backbone attend.

    Attributes:
        focusing_factor: power of the focused feature map.
        kernel_size: of the depth-wise convolution, odd.
        window_size: side of the windows that linear blocks attend within; None for the whole map.
    """

    focusing_factor: float = 3
    kernel_size: int = 5
    window_size: int | None = None

    def __post_init__(self) -> None:
        if self.focusing_factor <= 0:
            raise ValueError(f"focusing_factor must be positive, got {self.focusing_factor}")
        check_window("linear_window_size", self.window_size)

    def core(
        self,
        name: str,
        dim: int,
        num_heads: int,
        key_grid: Size,
        block: int,
        around: Callable[[nn.Module], nn.Module] = lambda core: core,
    ) -> nn.Module:
        """The core of a linear block.

        Args:
            name: of :data:`flatten_dense.layers.CORE_NAMES`.
            dim: C.
            num_heads: G.
            key_grid: native (H, W) of the keys.
            block: index in its stage; windows of odd blocks are shifted.
            around: wraps the core inside its windows.
        """
        side = self.window_size
        grid = key_grid if side is None else (min(side, key_grid[0]), min(side, key_grid[1]))
        core = around(make_core(name, dim, num_heads, grid, self.focusing_factor, self.kernel_size))
        return core if side is None else WindowedAttention(core, (side, side), shifted=block % 2 == 1)


def softmax_core(dim: int, num_heads: int, window_size: int | None, block: int) -> nn.Module:
    """The core of a softmax block: over the whole map, or within Swin's windows of a side, shifted in odd blocks."""
    core = SoftmaxAttention(dim, num_heads)
    return core if window_size is None else SwinWindowAttention(core, num_heads, window_size, shifted=block % 2 == 1)


def mlp_beside(core: str, dim: int, hidden_dim: int) -> Mlp | ConvMlp:
    """The MLP of a block with a core of this name: EfficientViT's enhanced attention has a convolution in it."""
    return ConvMlp(dim, hidden_dim) if core == "enhanced" else Mlp(dim, hidden_dim)


def check_window(name: str, size: int | None) -> None:
    """Refuse what is no side of a window.

    Raises:
        ValueError: the size is no whole number from 1.
    """
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f"{name} must be a whole number of at least 1 token, or None for the whole map; got {size!r}")


def check_per_stage(depths: Sequence[int], **options: Sequence[float]) -> None:
    """Refuse options that do not give a positive number to each stage.

    Raises:
        ValueError: an option has another length, or a number below or at zero.
    """
    for name, values in {"depths": depths, **options}.items():
        if not isinstance(values, list | tuple) or len(values) != len(depths) or min(values) <= 0:
            raise ValueError(f"{name} must be a positive number for each of {len(depths)} stages, got {values!r}")


def native_size(img_size: int | Sequence[int]) -> Size:
    """(H, W) of the images that learned tables are made for.

    Raises:
        ValueError: it is neither a side nor a pair of sides, from 1.
    """
    size = as_size(img_size)
    if size is None:
        raise ValueError(f"img_size must be a side or (height, width) in pixels, got {img_size!r}")
    return size
