"""How many images an evaluation took as a whole, in windows, in tiles."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torchmetrics import Metric

from flatten_dense.inference.options import Inference

_MODES = ("whole", "slide", "tiled")


class ModesUsed(Metric):
    """Count the images that each mode was used for, over all processes."""

    is_differentiable = False
    full_state_update = False

    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("images", default=torch.zeros(len(_MODES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, inference: Inference, sizes: Iterable[tuple[int, int]]) -> None:
        """Count images of these (height, width), as the model received them."""
        for size in sizes:
            self.images[_MODES.index(inference.mode_for(size))] += 1

    def compute(self) -> dict[str, int]:
        """Images since the last reset: ``{"whole": 3, "slide": 0, "tiled": 1}``."""
        return dict(zip(_MODES, self.images.tolist(), strict=True))
