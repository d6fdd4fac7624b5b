"""Where the pixels of a photo went: what moves boxes and masks along with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from flatten_dense.data.detection.masks import Segmentation, encode


class PixelMap(tv_tensors.TVTensor):  # type: ignore[misc]  # torchvision ships no types
    """A record of resizing, cropping and mirroring, float64 ``[3, 2]``; it goes through transforms beside the photo.

    So boxes and masks are moved once, when the final place of each pixel is known: polygons are rasterised at the final
    size alone, and only those that are still inside.

    The columns are x and y, the rows factor, shift and the present size: a point at ``p`` of the photo as it was read
    is now at ``factor * p + shift``. The factor of x is negative where it is mirrored.
    """

    @classmethod
    def of(cls, photo: Tensor) -> PixelMap:
        """That of a photo ``[C, H, W]`` as it was read."""
        height, width = photo.shape[-2:]
        return _wrap(torch.tensor([[1, 1], [0, 0], [width, height]], dtype=torch.float64))

    @property
    def image_size(self) -> tuple[int, int]:
        """The present (height, width)."""
        width, height = self.as_subclass(Tensor)[2].tolist()
        return int(height), int(width)

    @property
    def area_factor(self) -> float:
        """How many pixels one pixel became."""
        return abs(float(self.as_subclass(Tensor)[0].prod()))

    def map_boxes(self, boxes: Tensor) -> Tensor:
        """Where boxes of the photo are now: float32 ``[N, 4]``, xyxy, clipped to the image, empty if outside."""
        factor, shift, size = self.as_subclass(Tensor)
        corners = boxes.view(-1, 2, 2).to(torch.float64) * factor + shift
        corners = torch.minimum(corners.clamp(min=0), size)
        return torch.cat([corners.amin(1), corners.amax(1)], 1).to(torch.float32)

    def map_masks(self, segmentations: Sequence[Segmentation], photo_size: tuple[int, int]) -> Tensor:
        """Where masks of the photo, of this (height, width), are now: bool ``[N, h, w]``.

        Polygons are rasterised at the present size, run lengths take the nearest pixel.
        """
        masks = np.zeros((len(segmentations), *self.image_size), dtype=np.uint8)
        for mask, segmentation in zip(masks, segmentations, strict=True):
            if isinstance(segmentation, list):
                self._rasterise(segmentation, mask)
            else:
                mask[:] = self._resample(coco_mask.decode(encode(segmentation, *photo_size)))
        return torch.from_numpy(masks.view(np.bool_))

    def _rasterise(self, polygons: list[list[float]], mask: NDArray[np.uint8]) -> None:
        factor, shift, (width, height) = self.numpy()
        moved = [np.asarray(part).reshape(-1, 2) * factor + shift for part in polygons]
        points = np.concatenate(moved)
        # Few pixels of an image are near one object, and these alone are decoded and written.
        left, top = np.clip(np.floor(points.min(0)) - 1, 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(points.max(0)) + 1, (left, top), (width, height)).astype(int)
        if right > left and bottom > top:
            near = [(part - (left, top)).ravel().tolist() for part in moved]
            mask[top:bottom, left:right] = coco_mask.decode(encode(near, bottom - top, right - left))

    def _resample(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        factors, shifts, sizes = self.numpy()
        columns, rows = (
            np.clip((np.arange(size) + 0.5 - shift) / factor, 0, length - 1).astype(np.int64)
            for factor, shift, size, length in zip(factors, shifts, sizes, mask.shape[::-1], strict=True)
        )
        resampled: NDArray[np.uint8] = mask[rows[:, None], columns]
        return resampled


@F.register_kernel("resize", PixelMap)  # type: ignore[untyped-decorator]
def _resize(pixel_map: PixelMap, size: list[int], **_: object) -> PixelMap:
    factor, shift, old = pixel_map.as_subclass(Tensor)
    new = torch.tensor(size[::-1], dtype=torch.float64)
    return _wrap(torch.stack([factor * new / old, shift * new / old, new]))


@F.register_kernel("crop", PixelMap)  # type: ignore[untyped-decorator]
def _crop(pixel_map: PixelMap, top: int, left: int, height: int, width: int) -> PixelMap:
    factor, shift, _ = pixel_map.as_subclass(Tensor)
    corner, size = torch.tensor([[left, top], [width, height]], dtype=torch.float64)
    return _wrap(torch.stack([factor, shift - corner, size]))


@F.register_kernel("horizontal_flip", PixelMap)  # type: ignore[untyped-decorator]
def _mirror(pixel_map: PixelMap) -> PixelMap:
    mirrored = pixel_map.as_subclass(Tensor).clone()
    mirrored[0, 0] *= -1
    mirrored[1, 0] = mirrored[2, 0] - mirrored[1, 0]
    return _wrap(mirrored)


def _wrap(values: Tensor) -> PixelMap:
    wrapped: PixelMap = values.as_subclass(PixelMap)
    return wrapped
