"""Dice loss: overlap of each class, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.losses.base import SegmentationLoss, check_class_weights, resized_logits, weights_tensor


def dice_loss(
    logits: Tensor, target: Tensor, ignore_index: int = 255, class_weights: Sequence[float] | None = None
) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes that occur in the batch.

    Of a class, with softmax probabilities p and truth t (0 or 1), summed over all labelled pixels of the batch:
    ``2 sum(p t) / (sum(p) + sum(t))``. A class without a pixel in the truth takes no part: its coefficient is 0
    whatever the model says.

    Args:
        logits: ``[B, K, h, w]``, any floating type; resized bilinearly (``align_corners=False``).
        target: ``[B, H, W]`` int64, 0..K-1 or ``ignore_index``.
        ignore_index: the target's value that is not learnt.
        class_weights: weight of each class in the mean, which is divided by their sum; None is 1 for all.

    Returns:
        A float32 scalar from 0 to 1, also under autocast; 0 with zero gradients for a batch without a label.

    Raises:
        ValueError: if there is not one weight for each class.

    Source: Milletari et al., V-Net (3DV 2016), with sums instead of sums of squares in the denominator.
    """
    weights = weights_tensor(class_weights, logits)
    labelled = (target != ignore_index).unsqueeze(1)
    classes = target.unsqueeze(1).masked_fill(~labelled, 0)
    probabilities = resized_logits(logits, target).softmax(dim=1) * labelled
    of_truth = probabilities.gather(1, classes)
    overlap = probabilities.new_zeros(logits.shape[1]).index_add(0, classes.flatten(), of_truth.flatten())
    pixels = torch.bincount(classes[labelled], minlength=logits.shape[1])
    dice = 2 * overlap / (probabilities.sum(dim=(0, 2, 3)) + pixels).clamp(min=1)
    share = (pixels > 0).float() if weights is None else weights * (pixels > 0)
    return ((1 - dice) * share).sum() / share.sum().clamp(min=torch.finfo(share.dtype).tiny)


class DiceLoss(SegmentationLoss):
    """See :func:`dice_loss`.

    Args:
        class_weights: weight of each class in the mean; None is 1 for all.

    Raises:
        ValueError: if a weight is negative.
    """

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        self.class_weights = check_class_weights(class_weights)

    def __call__(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """The loss of one batch."""
        return dice_loss(logits, target, ignore_index, self.class_weights)
