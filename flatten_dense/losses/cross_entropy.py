"""Cross-entropy of pixels: of all, of the labelled, of the hardest ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flatten_dense.losses.base import SegmentationLoss, check_class_weights, resized_logits, weights_tensor

Average = Literal["all", "labelled"]


def segmentation_cross_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    class_weights: Sequence[float] | None = None,
    average: Average = "all",
    balance: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits brought to the target's size, averaged over pixels.

    Ignored pixels add nothing to the sum. With ``average="all"`` they count in its denominator, unlike in torch's own
    mean: a crop that is mostly unlabelled weighs less. Either way a batch without a label gives 0 with zero gradients.
    Class weights multiply the terms of the sum; the denominator stays a number of pixels, where torch divides by the
    sum of their weights. Weights of mean 1 over the pixels therefore keep the loss at its size.

    Args:
        logits: ``[B, K, h, w]``, any floating type; resized bilinearly (``align_corners=False``).
        target: ``[B, H, W]`` int64, 0..K-1 or ``ignore_index``.
        ignore_index: the target's value that is not learnt.
        class_weights: factor of each class; None is 1 for all.
        average: what the sum is divided by: the number of ``all`` pixels, or of the ``labelled`` ones.
        balance: how far rare classes are lifted, 0 to 1, see :func:`balancing_weights`.

    Returns:
        A float32 scalar, also under autocast.

    Raises:
        ValueError: if there is not one weight for each class.

    Source: mmseg's ``CrossEntropyLoss``; ``all`` is its ``avg_non_ignore=False``.
    """
    losses = pixel_cross_entropy(logits, target, ignore_index)
    weights = weights_tensor(class_weights, logits)
    if balance:
        balanced = balancing_weights(target, logits.shape[1], ignore_index, balance)
        weights = balanced if weights is None else weights * balanced
    if weights is not None:
        losses = losses * pixel_weights(weights, target, ignore_index)
    return mean_over_pixels(losses, target, ignore_index, average)


def balancing_weights(target: Tensor, num_classes: int, ignore_index: int, balance: float) -> Tensor:
    """Weights of the classes of one batch that lift the rare ones: share of the labelled pixels to ``-balance``.

    Their mean over the labelled pixels is 1. With a balance of 0 every pixel counts the same, with 1 every class does;
    between them a class counts by its share to the power ``1 - balance``.

    Args:
        target: ``[B, H, W]`` int64, 0..K-1 or ``ignore_index``.
        num_classes: K.
        ignore_index: the target's value that is not learnt.
        balance: 0 to 1.

    Returns:
        float32 ``[K]``; 0 for classes that do not occur.
    """
    pixels = torch.bincount(target[target != ignore_index], minlength=num_classes).float()
    weights = torch.where(pixels > 0, pixels.clamp(min=1) ** -balance, 0)
    return weights * (pixels.sum() / (weights * pixels).sum().clamp(min=1))


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Cross-entropy of the pixels that the model finds hard (online hard example mining).

    Kept are the labelled pixels whose true class has a probability below ``threshold``, and at least the
    ``min_kept`` times B hardest ones of the batch; the loss is the mean over the kept pixels.

    Args:
        logits: ``[B, K, h, w]``, any floating type; resized bilinearly (``align_corners=False``).
        target: ``[B, H, W]`` int64, 0..K-1 or ``ignore_index``.
        ignore_index: the target's value that is not learnt.
        threshold: probability, above 0 and at most 1.
        min_kept: pixels per image, at least 1.
        class_weights: factor of each class on its pixels' losses, not on the choice of pixels; None is 1 for all.

    Returns:
        A float32 scalar, also under autocast; 0 with zero gradients for a batch without a label.

    Raises:
        ValueError: if there is not one weight for each class.

    Source: Shrivastava et al., Training Region-based Object Detectors with Online Hard Example Mining (CVPR 2016); the
    choice is that of mmseg's ``OHEMPixelSampler``. Changed: pixels as hard as the last of ``min_kept`` are kept too, so
    equal probabilities never leave none; the mean is over the kept pixels, where mmseg's is over all.
    """
    losses = pixel_cross_entropy(logits, target, ignore_index)
    weights = weights_tensor(class_weights, logits)
    hardness = torch.where(target == ignore_index, -1.0, losses.detach())
    labelled = int((hardness >= 0).sum())
    if labelled == 0:
        return losses.sum()
    count = min(labelled, min_kept * len(target))
    easiest_kept = torch.kthvalue(hardness.flatten(), hardness.numel() - count + 1).values
    kept = (hardness > -math.log(threshold)) | (hardness >= easiest_kept)
    if weights is not None:
        losses = losses * pixel_weights(weights, target, ignore_index)
    return losses[kept].mean()


class CrossEntropyLoss(SegmentationLoss):
    """See :func:`segmentation_cross_entropy`.

    Args:
        class_weights: factor of each class; None is 1 for all.
        average: what the sum is divided by: the number of ``all`` pixels, or of the ``labelled`` ones.
        balance: how far the rare classes of each batch are lifted: 0 counts every pixel the same, 1 every class.

    Raises:
        ValueError: if a weight is negative, or ``balance`` outside 0..1.
    """

    def __init__(
        self, class_weights: Sequence[float] | None = None, average: Average = "all", balance: float = 0.0
    ) -> None:
        if not 0 <= balance <= 1:
            raise ValueError(f"balance must lie in 0..1, got {balance}")
        self.class_weights = check_class_weights(class_weights)
        self.average: Average = average
        self.balance = balance

    def __call__(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """The loss of one batch."""
        return segmentation_cross_entropy(logits, target, ignore_index, self.class_weights, self.average, self.balance)


class OHEMCrossEntropyLoss(SegmentationLoss):
    """See :func:`ohem_cross_entropy`.

    Args:
        threshold: pixels whose true class has a lower probability are kept.
        min_kept: pixels per image that are kept at least.
        class_weights: factor of each class; None is 1 for all.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self, threshold: float = 0.7, min_kept: int = 100_000, class_weights: Sequence[float] | None = None
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be a probability above 0 and at most 1, got {threshold}")
        if min_kept < 1:
            raise ValueError(f"min_kept must be at least 1 pixel per image, got {min_kept}")
        self.threshold = threshold
        self.min_kept = min_kept
        self.class_weights = check_class_weights(class_weights)

    def __call__(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """The loss of one batch."""
        return ohem_cross_entropy(logits, target, ignore_index, self.threshold, self.min_kept, self.class_weights)


def pixel_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Cross-entropy of each pixel, float32 ``[B, H, W]``; 0 where ignored."""
    return F.cross_entropy(resized_logits(logits, target), target, ignore_index=ignore_index, reduction="none")


def pixel_weights(weights: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The weight of each pixel's class ``[B, H, W]``; 0 where ignored."""
    ignored = target == ignore_index
    return weights[target.masked_fill(ignored, 0)].masked_fill(ignored, 0)


def mean_over_pixels(losses: Tensor, target: Tensor, ignore_index: int, average: Average) -> Tensor:
    """Mean of losses ``[B, H, W]``, which are 0 at ignored pixels, over the pixels that ``average`` says.

    Raises:
        ValueError: if ``average`` is another word.
    """
    if average == "all":
        return losses.mean()
    if average == "labelled":
        return losses.sum() / (target != ignore_index).sum().clamp(min=1)
    raise ValueError(f"average must be 'all' or 'labelled', got {average!r}")
