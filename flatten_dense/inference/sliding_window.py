"""Windows that slide over an image, their logits averaged: mmseg's evaluation of models that want square inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flatten_dense.inference.images import WindowedImage
from flatten_dense.inference.rows import Rows
from flatten_dense.inference.tiles import Axis, blended_rows, normalized, resize


def sliding_rows(predict: Callable[[Tensor], Tensor], image: WindowedImage, window: int, stride: int) -> Rows:
    """Logits of an image at its own size, averaged over the windows that hold a pixel.

    The logits of a window are resized to the window's size before.

    Args:
        predict: images ``[1, 3, h, w]`` -> logits ``[1, K, any, any]``.
        image: any image; a side shorter than a window has one window of its own length.
        window: side of the windows in pixels.
        stride: pixels from one window to the next.

    Source: mmseg's ``slide_inference``. Changed: windows are summed one row of them at a time.
    """

    def at_input_size(tiles: Tensor) -> Tensor:
        return resize(predict(tiles).float(), (tiles.shape[-2], tiles.shape[-1]))

    vertical, horizontal = (_axis(length, window, stride) for length in image.size)
    return blended_rows(at_input_size, image, vertical, horizontal, cell=1)


def window_spans(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(start, stop) of the windows along a side; the last ones are moved back into the image."""
    count = max(length - window + stride - 1, 0) // stride + 1
    stops = (min(index * stride + window, length) for index in range(count))
    return [(max(stop - window, 0), stop) for stop in stops]


def _axis(length: int, window: int, stride: int) -> Axis:
    spans = window_spans(length, window, stride)
    ones = [torch.ones(stop - start, dtype=torch.float64) for start, stop in spans]
    return Axis(spans, normalized(spans, ones, cell=1))
