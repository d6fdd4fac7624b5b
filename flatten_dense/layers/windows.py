"""Attention cores that work within windows or stripes of the map, themselves called like a core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flatten_dense.layers.positional import relative_position_bias
from flatten_dense.layers.streaming import may_stream
from flatten_dense.layers.token_grid import Size

PADDING = 0  # the code of a token that belongs to no image


class WindowedAttention(nn.Module):
    """Let a core attend within each window of the map.

    The map is padded at the right and bottom to whole windows, then shifted; padding is never a key. On a side where
    the map is no larger than the window, the window shrinks to the map and nothing is shifted. In a padded batch all
    this follows each image's own size.

    Args:
        core: the core inside; it is called with every window as an image of its own.
        window_size: (height, width) of a window in tokens; None for the whole side of the map, a stripe.
        shifted: whether windows are displaced by half their size, going on at the opposite side of the map. A core
            inside sees the tokens from both sides alike; :class:`SwinWindowAttention` keeps them apart.

    Raises:
        ValueError: at the call, if queries and keys lie on different grids, or an argument has no meaning here.

    Source: Swin Transformer, arXiv 2103.14030; stripes as in CSWin, arXiv 2107.00652.
    """

    def __init__(self, core: nn.Module, window_size: tuple[int | None, int | None], shifted: bool = False) -> None:
        super().__init__()
        self.core = core
        self.window_size = window_size
        self.shifted = shifted

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_size: Size,
        kv_size: Size,
        key_padding_mask: Tensor | None = None,
        attn_bias: Tensor | None = None,
        own_sizes: Sequence[Size] | None = None,
    ) -> Tensor:
        """Attend; arguments as the core's.

        Padding is told by ``own_sizes``; ``key_padding_mask`` may say the same, and is not looked at. ``attn_bias`` is
        not possible here.
        """
        if q_size != kv_size:
            raise ValueError(f"windows need queries and keys on one grid, got {q_size} and {kv_size}")
        if attn_bias is not None or (key_padding_mask is not None and own_sizes is None):
            raise ValueError("windows take no attn_bias, and key_padding_mask only beside the own_sizes it stands for")
        layout = WindowLayout(q_size, own_sizes, self.window_size, self.shifted)
        batch, codes = q.shape[0], layout.codes(q.device) if layout.is_mixed else None
        if own_sizes is None and may_stream(self):
            # One copy in place of padding, shifting and cutting; only its gradient would be slow.
            (of_windows, of_map), tokens = layout.places(q.device), layout.window[0] * layout.window[1]
            q, k, v = (x[:, of_windows].view(-1, tokens, x.shape[2]) for x in (q, k, v))
            return self._attend(q, k, v, layout, codes).reshape(batch, -1, q.shape[2])[:, of_map]
        q, k, v = (layout.split(x) for x in (q, k, v))
        return layout.join(self._attend(q, k, v, layout, codes), batch)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, layout: WindowLayout, codes: Tensor | None) -> Tensor:
        """Call the core on windows ``[B * n, tokens, C]``; ``codes`` as :meth:`WindowLayout.codes`, or None."""
        size = layout.window
        mask = None if codes is None or not layout.is_padded else _repeat_to(codes == PADDING, q.shape[0])
        return cast(Tensor, self.core(q, k, v, size, size, mask, own_sizes=layout.own_windows(q.shape[0])))

    def extra_repr(self) -> str:
        """The arguments that no submodule shows."""
        return f"window_size={self.window_size}, shifted={self.shifted}"


class SwinWindowAttention(WindowedAttention):
    """Softmax attention within windows, with Swin's learned bias per offset.

    Tokens that a shift brings together from opposite sides of the map do not attend to each other.

    Args:
        core: the softmax core.
        num_heads: G.
        window_size: side of a window in tokens.
        shifted: whether windows are displaced by half their size.
    """

    def __init__(self, core: nn.Module, num_heads: int, window_size: int, shifted: bool = False) -> None:
        super().__init__(core, (window_size, window_size), shifted)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, layout: WindowLayout, codes: Tensor | None) -> Tensor:
        side, size = cast(int, self.window_size[0]), layout.window
        bias = relative_position_bias(self.relative_position_bias_table, side, size).unsqueeze(0)
        if codes is not None:
            # Padding attends to padding: a row without any key would be 0 / 0.
            apart = codes.unsqueeze(1) != codes.unsqueeze(2)
            bias = _repeat_to(bias.masked_fill(apart.unsqueeze(1), float("-inf")), q.shape[0])
        return cast(Tensor, self.core(q, k, v, size, size, attn_bias=bias))


class WindowLayout:
    """Where the windows of a map lie.

    Args:
        size: (H, W) of the map.
        own_sizes: of each image in a padded batch, None when every image fills the map.
        window_size: (height, width) wanted, None for the whole side.
        shifted: as :class:`WindowedAttention`.

    Attributes:
        window: (height, width) of a window, no larger than the largest image.
        counts: windows of the largest image, (down, across).
        is_padded: whether any window holds tokens that belong to no image.
        is_mixed: whether any window holds padding, or tokens from opposite sides of the map.
    """

    def __init__(
        self,
        size: Size,
        own_sizes: Sequence[Size] | None,
        window_size: tuple[int | None, int | None],
        shifted: bool,
    ) -> None:
        self.size = size
        self.images = [size] if own_sizes is None else list(own_sizes)
        largest = max(h for h, _ in self.images), max(w for _, w in self.images)
        height, width = window_size
        self.window = _clip(height, largest[0]), _clip(width, largest[1])
        self.shifts = [
            (_shift(h, height) if shifted else 0, _shift(w, width) if shifted else 0) for h, w in self.images
        ]
        counts = [(_count(h, height), _count(w, width)) for h, w in self.images]
        self.counts = max(rows for rows, _ in counts), max(columns for _, columns in counts)
        self.padded = [(rows * self.window[0], columns * self.window[1]) for rows, columns in counts]
        self.frame = self.counts[0] * self.window[0], self.counts[1] * self.window[1]
        self.is_padded = any(own != self.frame for own in self.images)
        self.is_mixed = self.is_padded or any(shift != (0, 0) for shift in self.shifts)

    def split(self, x: Tensor) -> Tensor:
        """Cut tokens ``[B, N, C]`` into windows ``[B * n, tokens, C]``, those of an image one after another."""
        maps = x.reshape(x.shape[0], *self.size, x.shape[2])
        if len(self.images) == 1:
            maps = self._arrange(maps, 0)
        else:
            maps = torch.cat([self._arrange(maps[i : i + 1], i) for i in range(len(self.images))])
        (rows, columns), (height, width), batch = self.counts, self.window, maps.shape[0]
        maps = maps.reshape(batch, rows, height, columns, width, x.shape[2])
        return maps.transpose(2, 3).reshape(batch * rows * columns, height * width, x.shape[2])

    def join(self, windows: Tensor, batch: int) -> Tensor:
        """The inverse of :meth:`split` for a batch of that many; zeros outside the images' own parts."""
        (rows, columns), (height, width) = self.counts, self.window
        maps = windows.reshape(batch, rows, columns, height, width, windows.shape[2])
        maps = maps.transpose(2, 3).reshape(batch, *self.frame, windows.shape[2])
        if len(self.images) == 1:
            maps = self._restore(maps, 0)
        else:
            maps = torch.cat([self._restore(maps[i : i + 1], i) for i in range(len(self.images))])
        return maps.flatten(1, 2)

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What :meth:`split` and :meth:`join` do to images that fill the map, as indices of tokens.

        Returns:
            For each token of the windows its index in the map, for padding that of any token; and for each token of the
            map its index in the windows.
        """
        (height, width), (window_height, window_width) = self.size, self.window
        (down, across), (rows, columns) = self.shifts[0], self.counts
        row, column = (
            torch.arange(rows * window_height, device=device),
            torch.arange(columns * window_width, device=device),
        )
        row, column = row.roll(-down).clamp(max=height - 1), column.roll(-across).clamp(max=width - 1)
        of_windows = (row[:, None] * width + column).view(rows, window_height, columns, window_width).transpose(1, 2)
        row, column = torch.arange(height, device=device) - down, torch.arange(width, device=device) - across
        row, column = row % self.frame[0], column % self.frame[1]
        window = (row // window_height)[:, None] * columns + column // window_width
        inside = (row % window_height)[:, None] * window_width + column % window_width
        return of_windows.flatten(), (window * window_height * window_width + inside).flatten()

    def codes(self, device: torch.device) -> Tensor:
        """Which tokens of a window belong together: those of the same positive code; 0 is padding.

        Returns:
            ``[n, tokens]`` for one image that stands for all, ``[B * n, tokens]`` for a padded batch.
        """
        rows, columns = (torch.arange(side, device=device) for side in self.size)
        codes = [
            1 + 2 * (rows < shift[0]).long()[:, None] + (columns < shift[1]).long()[None, :] for shift in self.shifts
        ]
        return self.split(torch.stack(codes).flatten(1).unsqueeze(-1)).squeeze(-1)

    def own_windows(self, num_windows: int) -> list[Size] | None:
        """For each window of the batch, the part that its image fills if it is smaller than the window, else all."""
        height, width = self.window
        own = [(min(h, height), min(w, width)) for h, w in self.images]
        if all(size == self.window for size in own):
            return None
        return [size for size in own for _ in range(num_windows // len(own))]

    def _arrange(self, maps: Tensor, image: int) -> Tensor:
        (height, width), padded, shift = self.images[image], self.padded[image], self.shifts[image]
        maps = _pad_to(maps[:, :height, :width], padded)
        if shift != (0, 0):
            maps = maps.roll((-shift[0], -shift[1]), (1, 2))
        return _pad_to(maps, self.frame)

    def _restore(self, maps: Tensor, image: int) -> Tensor:
        (height, width), padded, shift = self.images[image], self.padded[image], self.shifts[image]
        maps = maps[:, : padded[0], : padded[1]]
        if shift != (0, 0):
            maps = maps.roll(shift, (1, 2))
        return _pad_to(maps[:, :height, :width], self.size)


def _clip(window: int | None, side: int) -> int:
    # Not min(): a compiled graph for any size keeps a plain number for the window.
    return side if window is None or side <= window else window


def _shift(side: int, window: int | None) -> int:
    return 0 if window is None or side <= window else window // 2


def _count(side: int, window: int | None) -> int:
    return 1 if window is None or side <= window else (side + window - 1) // window


def _pad_to(maps: Tensor, size: Size) -> Tensor:
    """Pad ``[B, H, W, C]`` with zeros at the right and bottom."""
    bottom, right = size[0] - maps.shape[1], size[1] - maps.shape[2]
    return F.pad(maps, (0, 0, 0, right, 0, bottom)) if bottom or right else maps


def _repeat_to(x: Tensor, count: int) -> Tensor:
    """Repeat the windows of one image for all images of a batch."""
    return x if x.shape[0] == count else x.repeat(count // x.shape[0], *[1] * (x.ndim - 1))
