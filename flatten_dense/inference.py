"""From images to masks: pure functions over any callable that maps images to logits.

``predict`` is that callable: images ``[B, 3, h, w]`` -> logits ``[B, K, any, any]``, in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CLASSES_AT_ONCE = 16


def whole_image_logits(predict: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits of whole images at their original size.

    Args:
        predict: images -> logits at any size.
        image: normalised and resized for inference, ``[3, h, w]`` or ``[B, 3, h, w]``.
        size: the original (H, W).

    Returns:
        float32 logits ``[K, H, W]`` or ``[B, K, H, W]``: resized to (h, w), then to (H, W), bilinearly both times.

    Source: mmseg's whole-image inference.
    """
    batch = image if image.ndim == 4 else image.unsqueeze(0)
    logits = _resize(_logits_at_input_size(predict, batch), size)
    return logits if image.ndim == 4 else logits.squeeze(0)


def segment(predict: Callable[[Tensor], Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
    """The most likely class of each pixel of one image: ``[3, h, w]`` -> int64 ``[H, W]`` at the original size."""
    return segment_batch(predict, [image], [size])[0]


@torch.no_grad()
def segment_batch(
    predict: Callable[[Tensor], Tensor], images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
) -> list[Tensor]:
    """Segment images of any sizes, each as if it were alone.

    Images of equal size share a forward pass; nothing is ever padded, so no result depends on its neighbours.

    Args:
        predict: images -> logits at any size.
        images: normalised and resized for inference, each ``[3, h, w]``.
        sizes: the original (H, W) of each.

    Returns:
        One int64 mask ``[H, W]`` per image, in the given order.

    Raises:
        ValueError: if there are not as many sizes as images.
    """
    if len(images) != len(sizes):
        raise ValueError(f"got {len(images)} images but {len(sizes)} original sizes")
    same_size: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        same_size.setdefault(image.shape, []).append(index)
    masks: dict[int, Tensor] = {}
    for indices in same_size.values():
        logits = _logits_at_input_size(predict, torch.stack([images[index] for index in indices]))
        for row, index in enumerate(indices):
            masks[index] = _argmax_at(logits[row : row + 1], sizes[index])
    return [masks[index] for index in range(len(images))]


def _logits_at_input_size(predict: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    # float32 before resizing: interpolated half-precision logits tie, and ties fall to the lower class.
    return _resize(predict(images).float(), (images.shape[-2], images.shape[-1]))


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _argmax_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Argmax over K of ``[1, K, h, w]`` after resizing to ``size``, exact, a few classes at a time.

    All 150 classes of a 12-megapixel photo would take 7 GB; softmax would change nothing but the memory.
    """
    best, mask = _resize(logits[:, :_CLASSES_AT_ONCE], size).max(dim=1)
    for first in range(_CLASSES_AT_ONCE, logits.shape[1], _CLASSES_AT_ONCE):
        value, index = _resize(logits[:, first : first + _CLASSES_AT_ONCE], size).max(dim=1)
        better = value > best
        mask = torch.where(better, index + first, mask)
        best = torch.where(better, value, best)
    return mask.squeeze(0)
