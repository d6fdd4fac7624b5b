"""Tokens in chunks, and keys with all that belongs to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from flatten_dense.ops.streaming.focus import Focus, Rows
from flatten_dense.ops.table_resizing import BandResizer

NUMBERS = 2**18  # in a chunk: 1 MiB of float32, measured
NUMBERS_ELSEWHERE = 2**23  # a graphics card wants large chunks; this only bounds the memory

Chunk = tuple[slice, slice]  # of a batch: images, tokens


def chunks(x: Tensor, step: int = 1) -> Iterator[Chunk]:
    """Cut ``[B, N, C]`` into chunks of about ``NUMBERS``: of several images, or of a multiple of ``step`` tokens."""
    batch, tokens, channels = x.shape
    numbers = NUMBERS if x.is_cpu else NUMBERS_ELSEWHERE
    images = max(1, numbers // max(1, tokens * channels))
    length = tokens if images > 1 else max(1, numbers // (channels * step)) * step
    for start in range(0, tokens, max(1, length)):
        for image in range(0, batch, images):
            yield slice(image, min(image + images, batch)), slice(start, min(start + length, tokens))


class Keys:
    """Keys and values of the operator, by chunk.

    Args:
        focus: their feature map.
        k: ``[B, M, C]``.
        v: ``[B, M, C]``.
        encoding: ``[E, h * w, C]``.
        key_padding_mask: ``[B, M]`` bool, True = ignore.
        encoding_size: (h, w).
        kv_size: (H, W).

    Attributes:
        count: how many are not ignored; a number, or one for each image ``[B, 1, 1, 1]``.
    """

    def __init__(
        self,
        focus: Focus,
        k: Tensor,
        v: Tensor,
        encoding: Tensor,
        key_padding_mask: Tensor | None,
        encoding_size: Sequence[int],
        kv_size: Sequence[int],
    ) -> None:
        self.focus, self.k, self.v, self.encoding, self.mask = focus, k, v, encoding, key_padding_mask
        self.width = kv_size[1]
        self.resizer = None
        if tuple(encoding_size) != tuple(kv_size):
            self.resizer = BandResizer(encoding_size, kv_size)
            self.encoding = focus.offset(encoding)  # stretched, it is the offset of what would be stretched
        self.count: Tensor | int = k.shape[1]
        if key_padding_mask is not None:
            self.count = (~key_padding_mask).sum(dim=1).clamp(min=1).view(-1, 1, 1, 1)

    def chunks(self) -> Iterator[Chunk]:
        """Of whole rows of the map where the encoding has to be stretched."""
        return chunks(self.k, 1 if self.resizer is None else self.width)

    def rows(self, chunk: Chunk) -> Rows:
        """The feature map of keys with their encoding; r is 0 for those ignored."""
        prepared, ignored = self.focus.prepare(self.k[chunk], self._offset(chunk)), self.ignored(chunk)
        if ignored is None:
            return self.focus.rows(prepared)
        rows = self.focus.rows(prepared.masked_fill_(ignored, 1))
        rows.ratio.masked_fill_(ignored, 0)
        return rows

    def values(self, rows: Rows, chunk: Chunk) -> Tensor:
        """The values times r."""
        values, ignored = self.focus.widen(self.v[chunk]) * rows.ratio, self.ignored(chunk)
        return values if ignored is None else values.masked_fill_(ignored, 0)

    def ignored(self, chunk: Chunk) -> Tensor | None:
        """The mask, ``[b, n, 1]``."""
        return None if self.mask is None else self.mask[chunk].unsqueeze(-1)

    def add_encoding_gradient(self, dk: Tensor, chunk: Chunk, into: Tensor) -> None:
        """Add what a chunk of keys gives."""
        if into.shape[0] > 1:
            into[chunk] += dk
        elif self.resizer is None:
            into[0, chunk[1]] += dk.sum(0)
        else:
            self.resizer.add_band_gradient(dk.sum(0), *self._band(chunk), into)

    def _offset(self, chunk: Chunk) -> Tensor:
        if self.resizer is not None:
            return self.resizer.band(self.encoding, *self._band(chunk))
        images, tokens = chunk
        return self.focus.offset(self.encoding[images if self.encoding.shape[0] > 1 else slice(None), tokens])

    def _band(self, chunk: Chunk) -> tuple[int, int]:
        """The rows of the map."""
        return chunk[1].start // self.width, chunk[1].stop // self.width
