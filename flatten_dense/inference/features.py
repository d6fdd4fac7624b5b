"""Features of a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from flatten_dense.data.images import DataError


@torch.inference_mode()
def extract_features(
    pooled: Callable[[Tensor], Tensor],
    batches: Iterable[dict[str, Any]],
    num_images: int,
    device: torch.device,
    progress: Callable[[int], object] = lambda done: None,
) -> tuple[Tensor, Tensor, list[str]]:
    """Run a model over classified photos.

    Args:
        pooled: gives ``[B, C]`` for images ``[B, 3, H, W]``, and is in evaluation mode.
        batches: with image, label and path.
        num_images: in all batches.
        device: of the model.
        progress: called with the number of images done.

    Returns:
        Features, float32 ``[N, C]``, and classes, int64 ``[N]``, both on the CPU; the files.

    Raises:
        DataError: a feature is not finite.
    """
    features, labels, paths = torch.empty(0), torch.empty(num_images, dtype=torch.int64), list[str]()
    for batch in batches:
        found = pooled(batch["image"].to(device, non_blocking=True)).float().cpu()
        if not found.isfinite().all():
            row = int((~found.isfinite()).any(1).nonzero()[0])
            raise DataError(f"the model gives features of {batch['path'][row]} that are not finite: did it diverge?")
        if not paths:
            features = torch.empty(num_images, found.shape[1])
        own = slice(len(paths), len(paths) + len(found))
        features[own], labels[own] = found, batch["label"]
        paths += batch["path"]
        progress(len(paths))
    return features, labels, paths
