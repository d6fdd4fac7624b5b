"""Losses: functions of prediction and target only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def segmentation_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
    """Cross-entropy of logits brought to the target's size, averaged over ALL pixels.

    Ignored pixels add nothing to the sum but count in its denominator, unlike torch's own mean: a crop that is mostly
    unlabelled weighs less, and one that is wholly unlabelled gives 0 with zero gradients instead of NaN.

    Args:
        logits: ``[B, K, h, w]``, any floating type; resized bilinearly (``align_corners=False``).
        target: ``[B, H, W]`` int64, 0..K-1 or ``ignore_index``.
        ignore_index: the target's value that is not learnt.

    Returns:
        A float32 scalar, also under autocast.

    Source: mmseg's ``CrossEntropyLoss`` with ``avg_non_ignore=False``.
    """
    with torch.autocast(logits.device.type, enabled=False):
        resized = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(resized, target, ignore_index=ignore_index, reduction="none").mean()
