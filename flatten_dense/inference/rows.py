"""Logits that come from top to bottom, so that those of a large image never exist all at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Of a strip of logits. Smaller ones stay in a CPU's cache; a GPU wants enough work at a time.
_ELEMENTS_ON_CPU, _ELEMENTS_ON_GPU = 2**21, 2**26


class Rows(NamedTuple):
    """The logits of an image, from top to bottom.

    Attributes:
        size: (height, width) of all of them together.
        strips: float32 ``[rows, K, width]`` each, of any number of rows; they sum up to ``height``.
    """

    size: tuple[int, int]
    strips: Iterator[Tensor]


def resize_rows(rows: Rows, size: tuple[int, int]) -> Rows:
    """Resize bilinearly, as ``F.interpolate(align_corners=False)`` would resize the whole, to (height, width).

    Heights of the strips that come out follow from ``size`` and K alone.
    """
    return Rows(size, _resized(rows, size))


def resize_twice(rows: Rows, input_size: tuple[int, int], size: tuple[int, int]) -> Rows:
    """Resize logits to the size of the model's input, then to that of the original image."""
    at_input_size = resize_rows(rows, input_size)
    return at_input_size if input_size == size else resize_rows(at_input_size, size)


def _resized(rows: Rows, size: tuple[int, int]) -> Iterator[Tensor]:
    height, width = size
    ratio = rows.size[0] / height
    incoming = _single_rows(rows, width)
    held: deque[Tensor] = deque()
    first = 0  # index of held[0]
    held.append(next(incoming))
    num_classes = held[0].shape[0]
    rows_at_once = _rows_at_once(num_classes, width, held[0].device)
    for top in range(0, height, rows_at_once):
        strip = held[0].new_empty(min(rows_at_once, height - top), num_classes, width)
        for y, out in enumerate(strip, start=top):
            position = max(0.0, (y + 0.5) * ratio - 0.5)
            above = min(int(position), rows.size[0] - 1)
            below = min(above + 1, rows.size[0] - 1)
            while first + len(held) <= below:
                held.append(next(incoming))
            while first < above:
                held.popleft()
                first += 1
            torch.lerp(held[0], held[below - above], position - above, out=out)
        yield strip


def _single_rows(rows: Rows, width: int) -> Iterator[Tensor]:
    """Every row ``[K, width]``, stretched."""
    for strip in rows.strips:
        step = _rows_at_once(strip.shape[1], width, strip.device)
        for first in range(0, len(strip), step):
            part = strip[first : first + step]
            stretched = F.interpolate(part, size=width, mode="linear") if rows.size[1] != width else part
            yield from stretched.unbind()


def _rows_at_once(num_classes: int, width: int, device: torch.device) -> int:
    elements = _ELEMENTS_ON_CPU if device.type == "cpu" else _ELEMENTS_ON_GPU
    return max(1, elements // (num_classes * width))
