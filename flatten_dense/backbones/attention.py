"""Which attention each block of a backbone gets, from the paper's notation and the options all families share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from flatten_dense.layers import (
    FocusedLinearAttention,
    Size,
    SoftmaxAttention,
    SwinWindowAttention,
    WindowedAttention,
    as_size,
)


def block_letters(attention: str, depths: Sequence[int]) -> list[str]:
    """Spell the paper's per-stage string out to one letter per block.

    Args:
        attention: a letter per stage: L for focused linear attention, S for softmax attention, M for a stage whose
            first blocks are linear, their number being read after the letters: "LLSS", "LLMS2".
        depths: blocks of each stage.

    Returns:
        For each stage a string of L and S, as long as the stage is deep.

    Raises:
        ValueError: the string does not fit the stages.
    """
    match = re.fullmatch(r"([LSM]+)(\d*)", attention) if isinstance(attention, str) else None
    if match is None or len(match[1]) != len(depths):
        expected = f"{len(depths)} letters" if len(depths) > 1 else "one letter"
        raise ValueError(
            f"attention must be {expected} L (linear), S (softmax) or M (mixed, with the number of linear blocks after "
            f"the letters) like {'LLSS' * (len(depths) // 4) or 'L'!r} or "
            f"{'LLMS2' if len(depths) == 4 else 'M' * len(depths) + '2'!r}, got {attention!r}"
        )
    letters, count = match[1], match[2]
    if ("M" in letters) != bool(count):
        missing = "needs the number of its linear blocks after the letters, like 'LLMS2'"
        raise ValueError(f"attention {attention!r} {'with M ' + missing if not count else 'has a number but no M'}")
    linear = int(count or 0)
    spelled = []
    for letter, depth in zip(letters, depths, strict=True):
        if letter == "M" and depth < linear:
            raise ValueError(f"attention {attention!r} asks for {linear} linear blocks in a stage of {depth}")
        spelled.append("L" * linear + "S" * (depth - linear) if letter == "M" else letter * depth)
    return spelled


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
        dim: int,
        num_heads: int,
        key_grid: Size,
        block: int,
        around: Callable[[nn.Module], nn.Module] = lambda core: core,
    ) -> nn.Module:
        """The core of a linear block.

        Args:
            dim: C.
            num_heads: G.
            key_grid: native (H, W) of the keys.
            block: index in its stage; windows of odd blocks are shifted.
            around: wraps the core inside its windows.
        """
        side = self.window_size
        grid = key_grid if side is None else (min(side, key_grid[0]), min(side, key_grid[1]))
        core = around(FocusedLinearAttention(dim, num_heads, grid, self.focusing_factor, self.kernel_size))
        return core if side is None else WindowedAttention(core, (side, side), shifted=block % 2 == 1)


def softmax_core(dim: int, num_heads: int, window_size: int | None, block: int) -> nn.Module:
    """The core of a softmax block: over the whole map, or within Swin's windows of a side, shifted in odd blocks."""
    core = SoftmaxAttention(dim, num_heads)
    return core if window_size is None else SwinWindowAttention(core, num_heads, window_size, shifted=block % 2 == 1)


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
