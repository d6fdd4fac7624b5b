"""Masks predicted on a small grid over each box, brought to the size of the image and encoded one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from flatten_dense.structures import RLE

_THRESHOLD = 0.5


def encode_masks(probabilities: Tensor, boxes: Tensor, size: tuple[int, int], integer_paste: bool = False) -> list[RLE]:
    """Paste masks into an image and encode them, never holding more than one at full size.

    Args:
        probabilities: float ``[N, M, M]``, over each box.
        boxes: ``[N, 4]`` in pixels of the image.
        size: (H, W) of the image.
        integer_paste: whether boxes are rounded to whole pixels first, as torchvision does; otherwise masks are
            sampled at the centres of pixels, as mmdet does.
    """
    paste = _paste_into_whole_pixels if integer_paste else _paste
    encoded = []
    canvas = np.zeros(size, dtype=np.uint8, order="F")
    for mask, window in paste(probabilities.cpu(), boxes.cpu(), size):
        canvas[window] = mask.numpy()
        encoded.append(coco_mask.encode(canvas))
        canvas[window] = 0
    return encoded


def _paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> Iterator[tuple[Tensor, tuple[slice, slice]]]:
    """Each mask, and where it lies."""
    for probability, (left, top, right, bottom) in zip(probabilities, boxes.tolist(), strict=True):
        rows, columns = _pixels(top, bottom, size[0]), _pixels(left, right, size[1])
        y = _relative(rows, top, bottom)
        x = _relative(columns, left, right)
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)[None]
        sampled = F.grid_sample(probability[None, None], grid, align_corners=False)[0, 0]
        yield sampled >= _THRESHOLD, (slice(rows.start, rows.stop), slice(columns.start, columns.stop))


def _pixels(start: float, stop: float, side: int) -> range:
    """Pixels of a side that a box may reach; beyond it a mask is interpolated towards zero."""
    return range(max(0, math.floor(start) - 1), max(0, min(side, math.ceil(stop) + 1)))


def _relative(pixels: range, start: float, stop: float) -> Tensor:
    """Centres of pixels as -1 at the start of a box to 1 at its end."""
    centres = torch.arange(pixels.start, pixels.stop, dtype=torch.float32) + 0.5
    return (centres - start) / max(stop - start, 1e-6) * 2 - 1


def _paste_into_whole_pixels(
    probabilities: Tensor, boxes: Tensor, size: tuple[int, int]
) -> Iterator[tuple[Tensor, tuple[slice, slice]]]:
    for probability, box in zip(probabilities, boxes, strict=True):
        pasted = paste_masks_in_image(probability[None, None], box[None], size)[0, 0]
        yield pasted >= _THRESHOLD, (slice(0, size[0]), slice(0, size[1]))
