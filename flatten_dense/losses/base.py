"""What a task may rely on in a loss, and sums of losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class SegmentationLoss(ABC):
    """A loss with its options, as a recipe names it.

    Logits are brought to the target's size and computed with in float32, also under autocast. Where every pixel is
    ignored the loss is 0 with zero gradients.
    """

    @abstractmethod
    def __call__(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """The loss of one batch.

        Args:
            logits: ``[B, K, h, w]``, any floating type.
            target: ``[B, H, W]`` int64, 0..K-1 or ``ignore_index``.
            ignore_index: the target's value that is not learnt.

        Returns:
            A float32 scalar.
        """


class WeightedSum(SegmentationLoss):
    """Several losses of the same logits, added up.

    Args:
        losses: at least one.
        weights: factor of each; None is 1 for all.

    Raises:
        ValueError: if there is no loss, or not one weight for each.
    """

    def __init__(self, losses: Sequence[SegmentationLoss], weights: Sequence[float] | None = None) -> None:
        self.losses = tuple(losses)
        self.weights = (1.0,) * len(self.losses) if weights is None else tuple(weights)
        if not self.losses or len(self.losses) != len(self.weights):
            raise ValueError(
                f"WeightedSum needs losses and a weight for each, got {len(self.losses)} and {len(self.weights)}"
            )

    def __call__(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """The loss of one batch."""
        resized = resized_logits(logits, target)
        terms = [loss(resized, target, ignore_index) for loss in self.losses]
        return torch.stack([w * term for w, term in zip(self.weights, terms, strict=True)]).sum()


def resized_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Logits in float32 at the target's size: bilinear, ``align_corners=False``."""
    with torch.autocast(logits.device.type, enabled=False):
        if logits.shape[-2:] == target.shape[-2:]:
            return logits.float()
        return F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)


def check_class_weights(class_weights: Sequence[float] | None) -> tuple[float, ...] | None:
    """Class weights as a recipe gives them.

    Raises:
        ValueError: if one is negative or no number.
    """
    if class_weights is not None and not all(0 <= weight < float("inf") for weight in class_weights):
        raise ValueError(f"class_weights must be numbers from 0, got {list(class_weights)}")
    return None if class_weights is None else tuple(class_weights)


def weights_tensor(class_weights: Sequence[float] | None, logits: Tensor) -> Tensor | None:
    """Class weights beside logits ``[B, K, h, w]``.

    Raises:
        ValueError: if there are not K of them.
    """
    if class_weights is None:
        return None
    if len(class_weights) != logits.shape[1]:
        raise ValueError(
            f"class_weights must hold a number for each of the {logits.shape[1]} classes, got {len(class_weights)}"
        )
    return torch.tensor(class_weights, dtype=torch.float32, device=logits.device)
