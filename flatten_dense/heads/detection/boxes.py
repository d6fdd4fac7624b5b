"""Boxes as four numbers to regress: offsets of centre and size relative to another box."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Weights: TypeAlias = tuple[float, float, float, float]

_LARGEST = math.log(1000 / 16)  # of the logarithm of a change of size


def encode_boxes(targets: Tensor, boxes: Tensor, weights: Weights) -> Tensor:
    """What turns boxes into their targets: (dx, dy, dw, dh) times ``weights``.

    Args:
        targets: ``[N, 4]``, (left, top, right, bottom).
        boxes: ``[N, 4]``.
        weights: inverse standard deviations of the four numbers.

    Source: Girshick et al., R-CNN (CVPR 2014), appendix C.
    """
    centres, sizes = _centres_and_sizes(boxes)
    target_centres, target_sizes = _centres_and_sizes(targets)
    shifts = (target_centres - centres) / sizes
    growths = (target_sizes / sizes).log()
    return torch.cat([shifts, growths], -1) * boxes.new_tensor(weights)


def decode_boxes(offsets: Tensor, boxes: Tensor, weights: Weights, clamps_shrinking: bool) -> Tensor:
    """The inverse of :func:`encode_boxes`; a side grows 62.5 times at most.

    Args:
        offsets: ``[..., 4]``.
        boxes: ``[..., 4]``, broadcast against them.
        weights: as they were encoded with.
        clamps_shrinking: whether a side shrinks 62.5 times at most, too.
    """
    centres, sizes = _centres_and_sizes(boxes.float())
    changes = offsets.float() / boxes.new_tensor(weights, dtype=torch.float32)
    shifts, growths = changes[..., :2], changes[..., 2:]
    growths = growths.clamp(-_LARGEST if clamps_shrinking else None, _LARGEST)
    centres, half = shifts * sizes + centres, growths.exp() * sizes / 2
    return torch.cat([centres - half, centres + half], -1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut boxes ``[..., 4]`` off at the edges of an image of (H, W); a corner that is no number becomes 0.

    RoIAlign reads wherever a region lies, and "nowhere" is outside its memory.
    """
    height, width = size
    return boxes.nan_to_num(0).clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def has_sides(boxes: Tensor, least: float) -> Tensor:
    """Whether both sides of boxes ``[N, 4]`` are positive and at least this long: bool ``[N]``."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return ((sides >= least) & (sides > 0)).all(1)


def box_l1(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """Sum of the smooth L1 loss; beta 0 is L1."""
    return F.smooth_l1_loss(prediction, target, reduction="sum", beta=beta)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sizes = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sizes / 2, sizes
