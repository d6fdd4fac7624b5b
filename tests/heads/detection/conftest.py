from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from flatten_dense.structures import ImageBatch

STRIDES = (4, 8, 16, 32, 64)
SIZES = [(128, 96), (100, 128)]


@pytest.fixture
def images() -> ImageBatch:
    """Two images of different size in a batch of 128 x 128."""
    return ImageBatch(torch.zeros(2, 3, 128, 128), SIZES)


@pytest.fixture
def make_maps(images) -> Callable[..., list[Tensor]]:
    """Random maps, zero outside the images' own parts if asked for."""

    def make(channels: int = 16, strides=STRIDES, clear: bool = True) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        maps = []
        for stride in strides:
            feature = torch.randn(2, channels, 128 // stride, 128 // stride, generator=generator)
            for own, (height, width) in zip(feature, images.sizes, strict=True):
                if clear:
                    own[:, -(-height // stride) :] = 0
                    own[:, :, -(-width // stride) :] = 0
            maps.append(feature)
        return maps

    return make


@pytest.fixture
def targets() -> list[dict[str, Any]]:
    """Three objects and one."""
    boxes = [
        torch.tensor([[10.0, 12, 50, 60], [40, 30, 90, 110], [5, 90, 30, 120]]),
        torch.tensor([[60.0, 8, 120, 90]]),
    ]
    made = []
    for own, labels, (height, width) in zip(boxes, ([0, 2, 1], [2]), SIZES, strict=True):
        masks = torch.zeros(len(own), height, width, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, own.int().tolist(), strict=True):
            mask[top:bottom, left:right] = True
            mask[(top + bottom) // 2 :, : (left + right) // 2] = False
        made.append({"boxes": own, "labels": torch.tensor(labels), "masks": masks})
    return made


@pytest.fixture
def no_targets() -> list[dict[str, Any]]:
    """Images without an object."""
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [{**empty, "masks": torch.zeros(0, *size, dtype=torch.bool)} for size in SIZES]
