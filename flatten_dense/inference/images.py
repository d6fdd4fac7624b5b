"""What a mask is made from: an image in memory or in a file, read window by window."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class WindowedImage(Protocol):
    """A normalised image of which windows can be had.

    Attributes:
        size: (height, width) as the model is to receive it.
    """

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window that lies inside the image: float ``[3, height, width]``."""
        ...

    def resized(self, size: tuple[int, int]) -> WindowedImage:
        """The same image at another (height, width)."""
        ...


class TensorImage:
    """An image in memory: normalised, ``[3, h, w]``."""

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window, not copied."""
        return self.pixels[:, top : top + height, left : left + width]

    def resized(self, size: tuple[int, int]) -> TensorImage:
        """Resized bilinearly with antialiasing."""
        # Antialiased resizing knows no half precision on the CPU.
        pixels = F.interpolate(self.pixels[None].float(), size=size, mode="bilinear", antialias=True)[0]
        return TensorImage(pixels.to(self.pixels.dtype))


class MirroredImage:
    """Another image, left for right."""

    def __init__(self, image: WindowedImage) -> None:
        self.image = image

    @property
    def size(self) -> tuple[int, int]:
        """That of the other image."""
        return self.image.size

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window of the mirrored image."""
        return self.image.read(top, self.size[1] - left - width, height, width).flip(-1)

    def resized(self, size: tuple[int, int]) -> MirroredImage:
        """The other image resized, then mirrored."""
        return MirroredImage(self.image.resized(size))
