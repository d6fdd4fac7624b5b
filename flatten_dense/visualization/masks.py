"""Masks as pictures: each class in its colour."""

from __future__ import annotations

import torch
from torch import Tensor

from flatten_dense.structures import LabelSpace


def colorize(mask: Tensor, labels: LabelSpace) -> Tensor:
    """Paint each class in its colour: int64 ``[H, W]`` -> uint8 ``[3, H, W]``, ignored pixels black.

    Raises:
        ValueError: if the mask holds anything but the classes and the ignored index.
    """
    is_class = (mask >= 0) & (mask < labels.num_classes)
    strange = mask[~is_class & (mask != labels.ignore_index)]
    if strange.numel():
        raise ValueError(
            f"the mask holds {int(strange[0])}, expected 0..{labels.num_classes - 1} or {labels.ignore_index} (ignored)"
        )
    colours = torch.tensor([*labels.palette, (0, 0, 0)], dtype=torch.uint8, device=mask.device)
    return colours[torch.where(is_class, mask, labels.num_classes)].permute(2, 0, 1)


def overlay(image: Tensor, mask: Tensor, labels: LabelSpace, alpha: float = 0.5) -> Tensor:
    """Lay the colours of a mask over its photo; where the mask is ignored the photo stays as it is.

    Args:
        image: uint8 ``[3, H, W]``.
        mask: int64 ``[H, W]``, of the same size.
        labels: meaning and colour of the mask's values.
        alpha: 0 shows the photo alone, 1 the colours alone.

    Returns:
        uint8 ``[3, H, W]``.

    Raises:
        ValueError: if the sizes differ or ``alpha`` is outside 0..1.
    """
    if image.shape[-2:] != mask.shape:
        raise ValueError(f"image {tuple(image.shape)} and mask {tuple(mask.shape)} differ in size")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0..1, got {alpha}")
    blend = (image * (1 - alpha) + colorize(mask, labels) * alpha).round().to(torch.uint8)
    return torch.where(mask == labels.ignore_index, image, blend)
