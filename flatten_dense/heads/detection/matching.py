"""Which anchors and regions stand for which object, and which of them a step learns from."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

IGNORED = -2
NO_OBJECT = -1


def match(
    boxes: Tensor,
    objects: Tensor,
    positive: float,
    negative: float,
    low_quality_floor: float | None = None,
    low_quality_takes_over: bool = True,
) -> Tensor:
    """Give each box the object it overlaps most.

    Args:
        boxes: ``[N, 4]``.
        objects: ``[G, 4]``.
        positive: IoU from which on a box stands for an object.
        negative: IoU below which it stands for none; in between it is ignored.
        low_quality_floor: if not None, the boxes that overlap an object most stand for an object too, provided this
            IoU; so every object may have one.
        low_quality_takes_over: whether they stand for that object, of several the last; otherwise for their own best.

    Returns:
        int64 ``[N]``: the index of an object, ``NO_OBJECT`` or ``IGNORED``.

    Source: mmdet's ``MaxIoUAssigner`` and torchvision's ``Matcher``. Changed: an object that no box touches takes none.
    """
    if len(objects) == 0 or len(boxes) == 0:
        return torch.full((len(boxes),), NO_OBJECT, dtype=torch.int64, device=boxes.device)
    overlaps = box_iou(objects, boxes)
    best, own = overlaps.max(0)
    matched = torch.where(best >= positive, own, torch.where(best < negative, NO_OBJECT, IGNORED))
    if low_quality_floor is None:
        return matched
    highest = overlaps.amax(1, keepdim=True)
    nearest = (overlaps == highest) & (highest >= low_quality_floor) & (highest > 0)
    if not low_quality_takes_over:
        return torch.where(nearest.any(0), own, matched)
    numbers = torch.arange(1, len(objects) + 1, device=boxes.device)
    last = (nearest * numbers[:, None]).amax(0)
    return torch.where(last > 0, last - 1, matched)


def sample(matched: Tensor, number: int, positive_share: float) -> tuple[Tensor, Tensor]:
    """Draw at most ``number`` boxes at random, at most this share of them positive.

    Args:
        matched: as :func:`match` gives it.
        number: of boxes in all.
        positive_share: of them that stand for an object, at most; boxes without fill the rest.

    Returns:
        Indices of positive and of negative boxes, int64.
    """
    positive, negative = (mask.nonzero()[:, 0] for mask in (matched >= 0, matched == NO_OBJECT))
    positive = _draw(positive, int(number * positive_share))
    return positive, _draw(negative, number - len(positive))


def _draw(indices: Tensor, number: int) -> Tensor:
    if len(indices) <= number:
        return indices
    return indices[torch.randperm(len(indices), device=indices.device)[:number]]
