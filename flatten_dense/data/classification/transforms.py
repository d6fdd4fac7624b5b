"""The published augmentation of ImageNet training, by timm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import Tensor

from flatten_dense.structures import Normalization


@dataclass(frozen=True)
class Augmentation:
    """How photos become training images; the defaults are the published recipe's.

    Args:
        size: (height, width) of training images in pixels.
        crop_scale: range of the share of a photo's area that a training image shows.
        crop_ratio: range of a crop's width over its height.
        flip: probability of mirroring left to right.
        auto_augment: policy of augmentation in timm's words; None for none.
        color_jitter: strength of random brightness, contrast and saturation; only without ``auto_augment``.
        erase: probability of filling a random rectangle with noise.
        interpolation: of resizing: ``bicubic``, ``bilinear`` or ``random``.

    Raises:
        ValueError: if a value is out of its range.
    """

    size: tuple[int, int] = (224, 224)
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    erase: float = 0.25
    interpolation: str = "bicubic"

    def check(self) -> None:
        """Refuse values that are out of their range.

        Raises:
            ValueError: if there are any.
        """
        option = "--data.augmentation"
        if min(self.size) < 1:
            raise ValueError(f"{option}.size must be (height, width) of at least 1 pixel, got {tuple(self.size)}")
        for name, chance in (("flip", self.flip), ("erase", self.erase)):
            if not 0 <= chance <= 1:
                raise ValueError(f"{option}.{name} must be a probability between 0 and 1, got {chance}")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"{option}.crop_scale must be two shares of the area, ascending, got {low, high}")
        low, high = self.crop_ratio
        if not 0 < low <= high:
            raise ValueError(f"{option}.crop_ratio must be two positive numbers, ascending, got {low, high}")


class ClassificationTrainTransform:
    """Random resized crop, mirror, RandAugment or colour jitter, normalise, erase: timm's transform for training.

    Random numbers come from torch's, numpy's and Python's global generators.

    Args:
        augmentation: how.
        normalization: mean and standard deviation of the images.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(self, augmentation: Augmentation, normalization: Normalization) -> None:
        augmentation.check()
        try:
            self.pipeline: Any = create_transform(
                augmentation.size,
                is_training=True,
                scale=augmentation.crop_scale,
                ratio=augmentation.crop_ratio,
                hflip=augmentation.flip,
                auto_augment=augmentation.auto_augment,
                color_jitter=augmentation.color_jitter,
                re_prob=augmentation.erase,
                re_mode="pixel",
                re_count=1,
                interpolation=augmentation.interpolation,
                mean=normalization.mean,
                std=normalization.std,
            )
        except (AssertionError, KeyError, ValueError) as error:
            raise ValueError(
                f"timm cannot make a transform with --data.augmentation.auto_augment {augmentation.auto_augment} and "
                f"--data.augmentation.interpolation {augmentation.interpolation}: {type(error).__name__} {error}"
            ) from error

    def __call__(self, image: Tensor) -> Tensor:
        """Augment one image, uint8 RGB ``[3, H, W]``: float32 ``[3, *size]``, normalised."""
        augmented: Tensor = self.pipeline(Image.fromarray(image.permute(1, 2, 0).numpy()))
        return augmented
