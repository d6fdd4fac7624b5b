"""Simple copy-paste: objects of one image put into another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Sample = tuple[Tensor, dict[str, Tensor]]


def paste_objects(image: Tensor, target: dict[str, Tensor], source: Sample) -> Sample:
    """Cut a random subset of another image's objects out and paste it, corner on corner.

    What lies under a pasted object loses these pixels, and is left out if it has none left. Boxes and areas of objects
    whose mask became smaller, also by the border, are those of what remains; edges are not blended.

    Source: Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, CVPR 2021.
    Changed: the two images are not padded to one size before.

    Args:
        image: uint8 ``[3, h, w]``.
        target: of the image: ``boxes``, ``labels``, ``area``, ``iscrowd`` and ``masks``.
        source: image and target to take objects from, of any size.

    Returns:
        A new image of the first one's size, and its target: first the objects it had, then the pasted ones.
    """
    source_image, source_target = source
    number = len(source_target["boxes"])
    chosen = torch.randperm(number)[: int(torch.randint(number + 1, ()))].sort().values
    pasted = {name: values[chosen] for name, values in source_target.items()}
    pixels_before = torch.cat([_pixels(target["masks"]), _pixels(pasted["masks"])])
    pasted["masks"] = _fit(pasted["masks"], image)
    covered = torch.from_numpy(pasted["masks"].numpy().any(0))
    below = {**target, "masks": target["masks"] & ~covered}
    together = {name: torch.cat([values, pasted[name]]) for name, values in below.items()}
    composed = torch.where(covered, _fit(source_image, image), image)
    return composed, _shrink(together, pixels_before)


def _pixels(masks: Tensor) -> Tensor:
    # NumPy counts and joins bools many times as fast as torch.
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)


def _boxes_around(masks: Tensor) -> Tensor:
    """float32 ``[N, 4]`` of masks that are not empty, to the far edges of the outermost pixels."""
    boxes = []
    for mask in masks.numpy():
        columns, rows = mask.any(0).nonzero()[0], mask.any(1).nonzero()[0]
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return torch.tensor(boxes, dtype=torch.float32).view(-1, 4)


def _fit(maps: Tensor, image: Tensor) -> Tensor:
    """Cut off or fill up with 0 at the right and bottom, to the size of the image."""
    fitted = maps.new_zeros(*maps.shape[:-2], *image.shape[-2:])
    height, width = (min(sides) for sides in zip(maps.shape[-2:], image.shape[-2:], strict=True))
    fitted[..., :height, :width] = maps[..., :height, :width]
    return fitted


def _shrink(target: dict[str, Tensor], pixels_before: Tensor) -> dict[str, Tensor]:
    """Leave out objects that lost all their pixels, and fit boxes to those that lost some."""
    pixels = _pixels(target["masks"])
    lost = pixels < pixels_before
    kept = (pixels > 0) | ~lost
    target = {name: values[kept] for name, values in target.items()}
    changed = lost[kept]
    target["boxes"][changed] = _boxes_around(target["masks"][changed])
    target["area"][changed] = pixels[kept][changed].float()
    return target
