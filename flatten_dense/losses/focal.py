"""Focal loss: cross-entropy that pays less heed to what is right already."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.losses.base import SegmentationLoss, check_class_weights, weights_tensor
from flatten_dense.losses.cross_entropy import Average, mean_over_pixels, pixel_cross_entropy, pixel_weights


def focal_loss(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    gamma: float = 2.0,
    class_weights: Sequence[float] | None = None,
    average: Average = "all",
) -> Tensor:
    """Focal loss over the softmax: each pixel's cross-entropy times ``(1 - p) ** gamma``, p of its true class.

    The classes exclude each other here as in prediction; the sigmoid form, one decision per class, is another loss.
    With ``gamma=0`` it is :func:`segmentation_cross_entropy`.

    Args:
        logits: ``[B, K, h, w]``, any floating type; resized bilinearly (``align_corners=False``).
        target: ``[B, H, W]`` int64, 0..K-1 or ``ignore_index``.
        ignore_index: the target's value that is not learnt.
        gamma: at least 0.
        class_weights: factor of each class (the paper's alpha); None is 1 for all.
        average: what the sum is divided by: the number of ``all`` pixels, or of the ``labelled`` ones.

    Returns:
        A float32 scalar, also under autocast; 0 with zero gradients for a batch without a label.

    Raises:
        ValueError: if there is not one weight for each class.

    Source: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017), with the softmax in place of the sigmoid and
    a mean over pixels in place of the number of objects.
    """
    losses = pixel_cross_entropy(logits, target, ignore_index)
    # 1 - p without cancellation; the bound keeps the gradient finite at p = 1 for gamma below 1.
    wrong = -torch.expm1(-losses)
    losses = losses * wrong.clamp(min=1e-12) ** gamma
    weights = weights_tensor(class_weights, logits)
    if weights is not None:
        losses = losses * pixel_weights(weights, target, ignore_index)
    return mean_over_pixels(losses, target, ignore_index, average)


class FocalLoss(SegmentationLoss):
    """See :func:`focal_loss`.

    Args:
        gamma: at least 0.
        class_weights: factor of each class; None is 1 for all.
        average: what the sum is divided by: the number of ``all`` pixels, or of the ``labelled`` ones.

    Raises:
        ValueError: if a number is negative.
    """

    def __init__(
        self, gamma: float = 2.0, class_weights: Sequence[float] | None = None, average: Average = "all"
    ) -> None:
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}")
        self.gamma = gamma
        self.class_weights = check_class_weights(class_weights)
        self.average: Average = average

    def __call__(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """The loss of one batch."""
        return focal_loss(logits, target, ignore_index, self.gamma, self.class_weights, self.average)
