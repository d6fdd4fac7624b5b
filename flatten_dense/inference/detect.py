"""From what a detection head found in the model's input to objects in the original image."""

from __future__ import annotations

from torch import Tensor

from flatten_dense.heads.detection.base import RawDetections
from flatten_dense.inference.paste_masks import encode_masks
from flatten_dense.structures import Detections


def to_original(
    found: RawDetections, size: tuple[int, int], original: tuple[int, int], integer_paste: bool
) -> Detections:
    """Bring the detections of one image to its original size.

    Args:
        found: in pixels of the model's input.
        size: (h, w) of the image there, without padding.
        original: (H, W).
        integer_paste: as :func:`flatten_dense.inference.paste_masks.encode_masks`.

    Returns:
        Detections on the CPU.
    """
    factors = [full / small for full, small in zip(original, size, strict=True)]
    boxes: Tensor = found.boxes.float() * found.boxes.new_tensor([factors[1], factors[0]] * 2)
    masks = None if found.masks is None else encode_masks(found.masks, boxes, original, integer_paste)
    return Detections(boxes.cpu(), found.scores.float().cpu(), found.labels.cpu(), masks)
