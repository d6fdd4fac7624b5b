"""How photos become inputs, and padded batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per RGB channel, of pixels scaled to 0..1. The default is ImageNet's."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def undo(self, images: Tensor) -> Tensor:
        """Bring normalised images ``[..., 3, H, W]`` back to uint8."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        return ((images * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for a checkpoint read with ``weights_only=True``."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Sequence[float]]) -> Normalization:
        """The inverse of :meth:`to_dict`."""
        mean, std = ((float(r), float(g), float(b)) for r, g, b in (values["mean"], values["std"]))
        return cls(mean, std)


@dataclass(frozen=True)
class InputFormat:
    """How a photo becomes the input of a model.

    Attributes:
        scale: (long, short) bounds in pixels that an image is resized to; None keeps its own size.
        normalization: of the pixels.
        resize: ``fit`` keeps the aspect ratio and stays within both bounds; ``short_side`` keeps it and brings the
            shorter side to the lesser bound; ``squash`` takes the bounds as (height, width).
        crop: (height, width) cut out of the middle after resizing, smaller images padded with zeros; None keeps all.
        interpolation: of resizing.
    """

    scale: tuple[int, int] | None = None
    normalization: Normalization = Normalization()
    resize: Literal["fit", "short_side", "squash"] = "fit"
    crop: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for a checkpoint read with ``weights_only=True``."""
        return {
            "scale": self.scale and list(self.scale),
            "normalization": self.normalization.to_dict(),
            "resize": self.resize,
            "crop": self.crop and list(self.crop),
            "interpolation": self.interpolation,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputFormat:
        """The inverse of :meth:`to_dict`; fields that an older file lacks take their defaults."""
        given: dict[str, Any] = {name: values[name] for name in ("resize", "interpolation") if name in values}
        for name in ("scale", "crop"):
            given[name] = (int(values[name][0]), int(values[name][1])) if values.get(name) else None
        return cls(normalization=Normalization.from_dict(values["normalization"]), **given)


class ImageBatch(NamedTuple):
    """Images of several sizes, padded with zeros at the right and bottom to one.

    Attributes:
        tensor: ``[B, C, H, W]``.
        sizes: (h, w) of each image's own part.
    """

    tensor: Tensor
    sizes: list[tuple[int, int]]

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.tensor.shape[-2], self.tensor.shape[-1]


def pad_images(images: Sequence[Tensor], multiple: int = 32) -> ImageBatch:
    """Pad images ``[C, h, w]`` to one size, a multiple of this many pixels, and stack them."""
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = (-(-max(sides) // multiple) * multiple for sides in zip(*sizes, strict=True))
    padded = [F.pad(image, (0, width - w, 0, height - h)) for image, (h, w) in zip(images, sizes, strict=True)]
    return ImageBatch(torch.stack(padded), sizes)
