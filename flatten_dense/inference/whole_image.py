"""Images given to the model as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flatten_dense.inference.rows import Rows


def whole_rows(predict: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> list[Rows]:
    """Logits of images of one size, from one forward pass, as the model gives them.

    Args:
        predict: images ``[B, 3, h, w]`` -> logits ``[B, K, any, any]``.
        images: each ``[3, h, w]``.
    """
    # float32 before resizing: interpolated half-precision logits tie, and ties fall to the lower class.
    logits = predict(torch.stack(list(images))).float()
    return [Rows((own.shape[-2], own.shape[-1]), iter([own.transpose(0, 1)])) for own in logits]
