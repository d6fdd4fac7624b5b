"""Training transforms for detection, on torchvision.transforms.v2: they move a photo and a pixel map side by side.

All random numbers come from torch's global generator, as in :mod:`flatten_dense.data.transforms`, whose evaluation
transform serves detection too. Nothing is padded here: batches are padded where they are put together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from flatten_dense.data.detection.pixel_map import PixelMap
from flatten_dense.data.transforms import (
    Normalize,
    PhotometricDistortion,
    RandomRescale,
    check_scale,
    resized_size,
)
from flatten_dense.structures import Normalization


class RandomShortSide(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Resize with the aspect kept: the short side to one of several lengths, unless the long one got above ``longest``.

    Args:
        short_sides: in pixels.
        longest: in pixels, at least the longest of ``short_sides``.
    """

    def __init__(self, short_sides: Sequence[int], longest: float = math.inf) -> None:
        super().__init__()
        self.short_sides = short_sides
        self.longest = longest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the length."""
        height, width = flat_inputs[0].shape[-2:]
        short = self.short_sides[int(torch.randint(len(self.short_sides), ()))]
        return {"size": list(resized_size(height, width, (self.longest, short)))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Resize."""
        resized: Tensor = F.resize(inpt, params["size"], antialias=True)
        return resized


class RandomSizedCrop(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Crop at a random place, to a height and a width drawn each from ``side_range``, ends included.

    A side of the image bounds the range. The crop may hold no object.
    """

    def __init__(self, side_range: tuple[int, int]) -> None:
        super().__init__()
        self.side_range = side_range

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size and the place."""
        sides = flat_inputs[0].shape[-2:]
        lowest, highest = self.side_range
        return _place(sides, [_whole_number(min(side, lowest), min(side, highest)) for side in sides])

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Crop."""
        cropped: Tensor = F.crop(inpt, **params)
        return cropped


class CropIntoBounds(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Crop at a random place what is longer than ``scale``: bounds for the longer and the shorter side, in pixels."""

    def __init__(self, scale: tuple[int, int]) -> None:
        super().__init__()
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place."""
        height, width = flat_inputs[0].shape[-2:]
        return _place((height, width), self.cropped_size(height, width))

    def cropped_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what is left of an image of this size."""
        longer, shorter = max(self.scale), min(self.scale)
        bounds = (longer, shorter) if height > width else (shorter, longer)
        return min(height, bounds[0]), min(width, bounds[1])

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Crop."""
        cropped: Tensor = F.crop(inpt, **params)
        return cropped


class DetectionTrainTransform:
    """The published augmentations: resize to one scale or several, crop before that, or large-scale jitter; mirror.

    Args:
        scale: (long, short) bounds of the image in pixels, aspect kept.
        short_sides: lengths of which one is drawn in place of the short bound; None is that bound alone.
        crop: probability of a random crop before the image is resized, on which it gets larger.
        crop_short_sides: lengths of which one is drawn for the short side of an image that is cropped.
        crop_range: of the height and the width of the crop, drawn each by itself.
        scale_jitter: range of a random factor on ``scale``, whose result is cropped into ``scale``: large-scale jitter
            (0.1 to 2, with a square scale). It takes the place of ``short_sides`` and ``crop``.
        flip: probability of mirroring left to right.
        photometric: whether to distort brightness, contrast, saturation and hue.
        normalization: mean and standard deviation of the images.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        scale: tuple[int, int] = (1333, 800),
        short_sides: Sequence[int] | None = None,
        crop: float = 0.0,
        crop_short_sides: Sequence[int] = (400, 500, 600),
        crop_range: tuple[int, int] = (384, 600),
        scale_jitter: tuple[float, float] | None = None,
        flip: float = 0.5,
        photometric: bool = False,
        normalization: Normalization | None = None,
    ) -> None:
        check_scale(scale)
        for name, probability in (("flip", flip), ("crop", crop)):
            if not 0 <= probability <= 1:
                raise ValueError(f"{name} must be a probability between 0 and 1, got {probability}")
        for name, lengths in (("short_sides", short_sides), ("crop_short_sides", crop_short_sides)):
            if lengths is not None and (not lengths or min(lengths) < 1):
                raise ValueError(f"{name} must be lengths of at least 1 pixel, got {list(lengths)}")
        for name, limits in (("crop_range", crop_range), ("scale_jitter", scale_jitter)):
            if limits is not None and not 0 < limits[0] <= limits[1]:
                raise ValueError(f"{name} must be two positive numbers in ascending order, got {tuple(limits)}")
        if short_sides and max(short_sides) > max(scale):
            raise ValueError(f"short_sides {list(short_sides)} exceed the long bound of scale, {max(scale)}")
        if scale_jitter is not None and (short_sides or crop):
            raise ValueError("scale_jitter takes the place of short_sides and crop; choose one of both ways")
        if scale_jitter is not None:
            resizing = [RandomRescale(scale, scale_jitter), CropIntoBounds(scale)]
        else:
            resizing = [RandomShortSide(short_sides or (min(scale),), max(scale))]
            if crop:
                closer = [RandomShortSide(crop_short_sides), RandomSizedCrop(crop_range)]
                resizing.insert(0, v2.RandomApply(closer, p=crop))
        self._scale = scale
        self._bounds = (max(scale), max(short_sides)) if short_sides else scale
        self._largest_factor = scale_jitter[1] if scale_jitter else None
        self._pipeline = v2.Compose(
            [
                *resizing,
                v2.RandomHorizontalFlip(flip),
                PhotometricDistortion() if photometric else v2.Identity(),
            ]
        )
        self._normalize = Normalize(normalization or Normalization())

    def __call__(self, photo: Tensor) -> tuple[Tensor, PixelMap]:
        """Augment a photo, uint8 RGB ``[3, H, W]``.

        Returns:
            The image, uint8 ``[3, h, w]``, not normalised yet; and where the pixels of the photo went.
        """
        image, pixel_map = self._pipeline(tv_tensors.Image(photo), PixelMap.of(photo))
        return image.as_subclass(Tensor), pixel_map

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the largest image that a photo of this size can become, if it is not cropped first."""
        if self._largest_factor is None:
            return resized_size(height, width, self._bounds)
        factor = self._largest_factor
        rescaled = resized_size(height, width, (self._scale[0] * factor, self._scale[1] * factor))
        return CropIntoBounds(self._scale).cropped_size(*rescaled)

    def normalize(self, image: Tensor) -> Tensor:
        """Turn the image into normalised float32, when nothing is pasted into it any more."""
        normalized: Tensor = self._normalize(tv_tensors.Image(image))
        return normalized.as_subclass(Tensor)


def _whole_number(lowest: int, highest: int) -> int:
    return int(torch.randint(lowest, highest + 1, ()))


def _place(sides: Sequence[int], crop: Sequence[int]) -> dict[str, int]:
    top, left = (_whole_number(0, side - length) for side, length in zip(sides, crop, strict=True))
    return {"top": top, "left": left, "height": crop[0], "width": crop[1]}
