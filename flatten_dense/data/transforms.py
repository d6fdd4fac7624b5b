"""Training and evaluation transforms on torchvision.transforms.v2; the only place that normalises.

All random numbers come from torch's global generator, which a data loader seeds differently in each worker.
Images are resized bilinearly with antialiasing: it changes nothing when enlarging and little at the published scales,
while without it large photos alias badly. Masks take the nearest pixel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from flatten_dense.structures import InputFormat, Normalization


def resized_size(height: int, width: int, scale: tuple[float, float] | None) -> tuple[int, int]:
    """Size of an image after fitting it into ``scale`` with its aspect ratio kept.

    Args:
        height: in pixels.
        width: in pixels.
        scale: bounds in pixels for the longer and the shorter side; None keeps the size.

    Returns:
        (height, width), both at least 1.
    """
    if scale is None:
        return height, width
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


class RandomRescale(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Resize image and mask into ``scale`` times a random ratio, aspect kept; None is the image's own size."""

    def __init__(self, scale: tuple[int, int] | None, ratio_range: tuple[float, float]) -> None:
        super().__init__()
        self.scale = scale
        self.ratio_range = ratio_range

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the ratio."""
        height, width = flat_inputs[0].shape[-2:]
        ratio = _uniform(*self.ratio_range)
        longer, shorter = self.scale or (max(height, width), min(height, width))
        return {"size": list(resized_size(height, width, (longer * ratio, shorter * ratio)))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Resize."""
        resized: Tensor = F.resize(inpt, params["size"], antialias=True)
        return resized


class ClassBalancedCrop(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Crop image and mask at a random place where no class fills too much.

    Up to ``tries`` places are drawn until the largest class has less than ``max_class_share`` (at most 1) of the
    labelled pixels, so there are two at least; failing that, the last one stays. A side shorter than the crop is kept.
    """

    tries = 10

    def __init__(self, size: tuple[int, int], max_class_share: float, ignore_index: int) -> None:
        super().__init__()
        self.size = size
        self.max_class_share = max_class_share
        self.ignore_index = ignore_index

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place."""
        mask = next(item for item in flat_inputs if isinstance(item, tv_tensors.Mask)).as_subclass(Tensor)
        height, width = (min(crop, side) for crop, side in zip(self.size, mask.shape, strict=True))
        for _ in range(self.tries):
            top = int(torch.randint(mask.shape[0] - height + 1, ()))
            left = int(torch.randint(mask.shape[1] - width + 1, ()))
            if self._is_balanced(mask[top : top + height, left : left + width]):
                break
        return {"top": top, "left": left, "height": height, "width": width}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Crop, into memory of its own, channel by channel: what follows works on channels."""
        cropped: Tensor = tv_tensors.wrap(F.crop(inpt, **params).contiguous(), like=inpt)
        return cropped

    def _is_balanced(self, crop: Tensor) -> bool:
        counts = torch.bincount(crop.flatten())
        counts[self.ignore_index : self.ignore_index + 1] = 0
        return float(counts.max()) < self.max_class_share * float(counts.sum())


class PhotometricDistortion(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Change brightness, contrast, saturation and hue of a uint8 image, each with probability one half.

    Brightness comes first and hue after saturation; contrast is drawn to come right after brightness or last. Every
    step ends in uint8, cut off to 0..255 and to whole numbers, so the order matters as it did in the published recipe.

    Source: the distortion of SSD (Liu et al., ECCV 2016) as described for mmsegmentation. Changed: saturation and hue
    are computed in floating point instead of on 8-bit HSV, and the hue angle is continuous.

    Args:
        brightness: largest value added or subtracted, in grey levels of 255.
        contrast: range of the factor on all values.
        saturation: range of the factor on HSV saturation.
        hue: largest turn of the hue, in degrees of 360.
    """

    def __init__(
        self,
        brightness: float = 32,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 36,
    ) -> None:
        super().__init__()
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw which steps to take, and their strengths."""
        draws = {
            "brightness": _uniform(-self.brightness, self.brightness),
            "contrast": _uniform(*self.contrast),
            "saturation": _uniform(*self.saturation),
            "hue": _uniform(-self.hue, self.hue),
        }
        taken = {name: value for name, value in draws.items() if _chance(0.5)}
        return {**taken, "contrast_last": _chance(0.5)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Distort an image, pass anything else."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = inpt.as_subclass(Tensor)
        if "brightness" in params:
            image = _to_uint8(image.float().add_(params["brightness"]))
        if "contrast" in params and not params["contrast_last"]:
            image = _to_uint8(image.float().mul_(params["contrast"]))
        if "saturation" in params:
            image = _scale_saturation(image, params["saturation"])
        if "hue" in params:
            image = _turn_hue(image, params["hue"])
        if "contrast" in params and params["contrast_last"]:
            image = _to_uint8(image.float().mul_(params["contrast"]))
        distorted: Tensor = tv_tensors.wrap(image, like=inpt)
        return distorted


class PadToSize(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Pad at the right and bottom up to ``size``: images with 0, masks with ``ignore_index``."""

    def __init__(self, size: tuple[int, int], ignore_index: int) -> None:
        super().__init__()
        self.size = size
        self.ignore_index = ignore_index

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Pad."""
        height, width = inpt.shape[-2:]
        padding = [0, 0, max(0, self.size[1] - width), max(0, self.size[0] - height)]
        if not any(padding):
            return inpt
        fill = self.ignore_index if isinstance(inpt, tv_tensors.Mask) else 0
        padded: Tensor = F.pad(inpt, padding, fill=fill)
        return padded


class SegmentationTrainTransform:
    """The published augmentation: rescale, class-balanced crop, mirror, photometric distortion, normalise, pad.

    Args:
        scale: bounds in pixels for the longer and the shorter side at ratio 1, aspect kept; None is its own size.
        ratio_range: range of the random factor on ``scale``.
        crop_size: (height, width) of the result in pixels.
        max_class_share: a crop is drawn again, up to ten times in all, while one class has at least this share.
        flip: probability of mirroring left to right.
        photometric: whether to distort brightness, contrast, saturation and hue.
        normalization: mean and standard deviation of the images.
        ignore_index: the mask's value for pixels without label, and for padding.

    Attributes:
        pipeline: the steps, of an image and a mask as tv_tensors.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        scale: tuple[int, int] | None = (2048, 512),
        ratio_range: tuple[float, float] = (0.5, 2.0),
        crop_size: tuple[int, int] = (512, 512),
        max_class_share: float = 0.75,
        flip: float = 0.5,
        photometric: bool = True,
        normalization: Normalization | None = None,
        ignore_index: int = 255,
    ) -> None:
        check_scale(scale)
        if not 0 < ratio_range[0] <= ratio_range[1]:
            raise ValueError(f"ratio_range must be two positive numbers in ascending order, got {tuple(ratio_range)}")
        if min(crop_size) < 1:
            raise ValueError(f"crop_size must be (height, width) of at least 1 pixel, got {tuple(crop_size)}")
        if not 0 < max_class_share <= 1:
            raise ValueError(f"max_class_share must be above 0 and at most 1, got {max_class_share}")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability between 0 and 1, got {flip}")
        self.pipeline = v2.Compose(
            [
                RandomRescale(scale, ratio_range),
                ClassBalancedCrop(crop_size, max_class_share, ignore_index),
                v2.RandomHorizontalFlip(flip),
                PhotometricDistortion() if photometric else v2.Identity(),
                Normalize(normalization or Normalization()),
                PadToSize(crop_size, ignore_index),
                v2.ToPureTensor(),
            ]
        )

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Augment one sample.

        Args:
            image: uint8 ``[3, H, W]``, RGB.
            mask: integers ``[H, W]``, class indices or ``ignore_index``.

        Returns:
            The image, float32 ``[3, *crop_size]``, normalised; the mask, ``[*crop_size]``, of its own type.
        """
        image, mask = self.pipeline(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image, mask


class EvalTransform:
    """Resize, crop and normalise an image. Its truth is left alone, so predictions are judged at the original size.

    Args:
        input_format: how.

    Raises:
        ValueError: if a size is not positive, or the crop reaches beyond every resized image.
    """

    def __init__(self, input_format: InputFormat) -> None:
        check_scale(input_format.scale)
        if input_format.crop is not None and min(input_format.crop) < 1:
            raise ValueError(f"crop must be (height, width) of at least 1 pixel, got {tuple(input_format.crop)}")
        _check_crop(input_format)
        self.input_format = input_format
        self._interpolation = F.InterpolationMode(input_format.interpolation)
        self._normalize = Normalize(input_format.normalization)

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this size gets."""
        return self.input_format.crop or self.resized_size(height, width)

    def __call__(self, image: Tensor) -> Tensor:
        """Prepare one image, uint8 RGB ``[3, H, W]``, for inference: float32 ``[3, h, w]``."""
        size = self.resized_size(image.shape[-2], image.shape[-1])
        resized = F.resize(tv_tensors.Image(image), list(size), self._interpolation, antialias=True)
        if self.input_format.crop is not None:
            resized = F.center_crop(resized, list(self.input_format.crop))
        prepared: Tensor = self._normalize(resized)
        return prepared.as_subclass(Tensor)

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image after resizing, before the crop."""
        scale, resize = self.input_format.scale, self.input_format.resize
        if scale is None or resize == "fit":
            return resized_size(height, width, scale)
        if resize == "squash":
            return scale
        short, long = min(scale), int(min(scale) * max(height, width) / min(height, width))  # cut off, as torchvision
        return (short, long) if height <= width else (long, short)


def _check_crop(input_format: InputFormat) -> None:
    """Refuse a crop that would be filled up with zeros in all images, as when only the scale was changed."""
    scale, crop, resize = input_format.scale, input_format.crop, input_format.resize
    if scale is None or crop is None or resize == "fit":
        return
    least = scale if resize == "squash" else (min(scale), min(scale))
    if crop[0] > least[0] or crop[1] > least[1]:
        raise ValueError(
            f"--data.input_format.crop {list(crop)} reaches beyond images resized to {list(scale)} ({resize}): set it "
            "to null for no crop, or to a size within"
        )


class Normalize(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Turn uint8 images into float32 of the given mean and standard deviation (of values 0 to 1)."""

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.mean = 255 * torch.tensor(normalization.mean).view(-1, 1, 1)
        self.std = 255 * torch.tensor(normalization.std).view(-1, 1, 1)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Normalise an image, pass anything else."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        image = inpt.as_subclass(Tensor).to(torch.float32, memory_format=torch.contiguous_format)
        normalized: Tensor = tv_tensors.wrap(image.sub_(self.mean).div_(self.std), like=inpt)
        return normalized


def _scale_saturation(image: Tensor, factor: float) -> Tensor:
    """Multiply HSV saturation, cut off at 1: distances from the brightest channel scale, so value and hue stay."""
    value, lowest = _extremes(image)
    value = value.float()
    to_full_saturation = value / (value - lowest).clamp_(min=1)
    return _to_uint8(image.float().sub_(value).mul_(to_full_saturation.clamp_(max=factor)).add_(value))


def _turn_hue(image: Tensor, degrees: float) -> Tensor:
    """Turn HSV hue: every channel is a trapezium over the hue, between the lowest and the brightest channel."""
    red, green, blue = pixels = image.float()
    value, lowest = _extremes(pixels)
    chroma = value - lowest
    # The hue as a number from -1 to 5, with red at 0, green at 2 and blue at 4; times the chroma at first.
    hue = torch.sub(red, green).add_(chroma, alpha=4)
    hue.lerp_(torch.sub(blue, red).add_(chroma, alpha=2), torch.eq(green, value).float())
    hue.lerp_(green - blue, torch.eq(red, value).float())
    hue.div_(chroma.clamp(min=1)).add_(1 + (degrees / 60 - 1) % 6)  # a turn of 1 to 7, so all are positive
    hue.sub_((hue >= 6).float(), alpha=6)
    share_red = (hue - 3).abs_().sub_(1)
    share_green = (hue - 2).abs_().neg_().add_(2)
    share_blue = hue.sub_(4).abs_().neg_().add_(2)
    lowest += 0.5  # to the nearest whole number
    turned = torch.empty_like(image)
    for channel, share in zip(turned, (share_red, share_green, share_blue), strict=True):
        channel.copy_(share.clamp_(0, 1).mul_(chroma).add_(lowest))
    return turned


def _extremes(image: Tensor) -> tuple[Tensor, Tensor]:
    """The brightest and the darkest channel of each pixel, ``[H, W]``; amax and amin are three times as slow."""
    red, green, blue = image
    return torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)


def _to_uint8(image: Tensor) -> Tensor:
    return image.clamp_(0, 255).to(torch.uint8)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability


def check_scale(scale: tuple[int, int] | None) -> None:
    """Refuse bounds for the sides of an image that no image fits in.

    Raises:
        ValueError: if one is not positive.
    """
    if scale is not None and min(scale) < 1:
        raise ValueError(f"scale must bound (longer side, shorter side) by at least 1 pixel each, got {tuple(scale)}")
