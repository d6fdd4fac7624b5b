"""What a detector finds."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

RLE: TypeAlias = dict[str, Any]
"""A mask as pycocotools encodes it: ``size`` [H, W] and ``counts``, compressed bytes."""


class Detections(NamedTuple):
    """What was found in one image, highest score first.

    Attributes:
        boxes: float32 ``[N, 4]``, (left, top, right, bottom) in pixels.
        scores: float32 ``[N]``, 0..1.
        labels: int64 ``[N]``, class indices.
        masks: N masks of the image's size; None from a model of boxes alone.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[RLE] | None = None
