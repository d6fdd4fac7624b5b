"""Counting pixels by their true and their predicted class: what all scores of semantic segmentation are read off."""

from __future__ import annotations

import torch
from torch import Tensor

_PIXELS_AT_ONCE = 2**24


def confusion_matrix(
    prediction: Tensor,
    target: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    unclassified_index: int | None = None,
) -> Tensor:
    """Count pixels by true class (row) and predicted class (column).

    Args:
        prediction: class indices 0..K-1 or ``unclassified_index``, integers of any shape.
        target: true class indices 0..K-1 or ``ignore_index``, integers of the same shape. Where it is ignored, the
            prediction does not matter.
        num_classes: K.
        ignore_index: the truth's value that is not counted.
        unclassified_index: the prediction's value for "no class", no class index itself. Such a pixel is wrong: one of
            its true class that was not found, and a false alarm of no class. None refuses such predictions.

    Returns:
        int64 ``[K, K + 1]``; the last column holds the unclassified pixels.

    Raises:
        ValueError: if shapes differ, values are no integers, or values lie outside the classes.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    for name, values in (("prediction", prediction), ("target", target)):
        if values.is_floating_point():
            raise ValueError(f"{name} must hold integer class indices, got {values.dtype}; take the argmax first")
    counts = torch.zeros(num_classes * (num_classes + 1), dtype=torch.int64, device=target.device)
    # In pieces: the temporaries of a large image would take several times its own memory.
    prediction, target = prediction.reshape(-1), target.reshape(-1)
    for start in range(0, len(target), _PIXELS_AT_ONCE):
        piece = slice(start, start + _PIXELS_AT_ONCE)
        # 64 bits first: an 8-bit value would be compared with the remainder of -1 or 256.
        columns = _columns(prediction[piece].long(), num_classes, unclassified_index)
        true = target[piece].long()
        counted = true != ignore_index
        rows = true[counted]
        _check_range("target", rows, num_classes, ignore_index, "ignored")
        counts += torch.bincount(rows * (num_classes + 1) + columns[counted], minlength=len(counts))
    return counts.view(num_classes, num_classes + 1)


def _columns(prediction: Tensor, num_classes: int, unclassified_index: int | None) -> Tensor:
    if unclassified_index is None:
        _check_range("prediction", prediction, num_classes)
        return prediction
    classified = prediction != unclassified_index
    _check_range("prediction", prediction[classified], num_classes, unclassified_index, "no class")
    return torch.where(classified, prediction, num_classes)


def _check_range(name: str, values: Tensor, num_classes: int, special: int | None = None, meaning: str = "") -> None:
    if values.numel() == 0:
        return
    low, high = (int(bound) for bound in values.aminmax())
    if low < 0 or high >= num_classes:
        other = "" if special is None else f" or {special} ({meaning})"
        raise ValueError(
            f"{name} holds values {low}..{high}, expected classes 0..{num_classes - 1}{other}; "
            "check num_classes and whether the masks need reduce_zero_label"
        )
