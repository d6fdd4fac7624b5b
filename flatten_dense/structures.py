"""What the floors hand to one another: the meaning of labels and the scale of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelSpace:
    """What the integers of a semantic mask mean, enough to read a mask and to write one back.

    Inside the package classes are 0..K-1. On disk they are 0..K-1 too, or 1..K when ``reduce_zero_label`` is set:
    then 0 on disk is unlabelled and becomes ``ignore_index``.

    Attributes:
        class_names: K names, in the order of the class indices.
        palette: K colours, 8-bit RGB.
        reduce_zero_label: whether 0 on disk means "not labelled" and classes start at 1.
        ignore_index: the index that neither loss nor metric counts, the same on disk and inside.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    reduce_zero_label: bool = False
    ignore_index: int = 255

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("a label space needs at least one class, got none")
        if len(self.palette) != self.num_classes:
            raise ValueError(f"the palette has {len(self.palette)} colours for {self.num_classes} classes")
        if self.num_classes > self.ignore_index:
            raise ValueError(
                f"{self.num_classes} classes do not fit below ignore_index={self.ignore_index}; "
                "8-bit masks hold at most 255"
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def from_disk(self, mask: Tensor) -> Tensor:
        """Turn the values of a mask file into class indices, int64, any shape."""
        mask = mask.to(torch.int64)
        if not self.reduce_zero_label:
            return mask
        unlabelled = (mask == 0) | (mask == self.ignore_index)
        return torch.where(unlabelled, self.ignore_index, mask - 1)

    def to_disk(self, mask: Tensor) -> Tensor:
        """Turn class indices into the values of a mask file, uint8, any shape; the inverse of :meth:`from_disk`."""
        mask = mask.to(torch.int64)
        if self.reduce_zero_label:
            mask = torch.where(mask == self.ignore_index, 0, mask + 1)
        return mask.to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for a checkpoint read with ``weights_only=True``."""
        return {
            **asdict(self),
            "class_names": list(self.class_names),
            "palette": [list(colour) for colour in self.palette],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSpace:
        """The inverse of :meth:`to_dict`."""
        palette = tuple((int(r), int(g), int(b)) for r, g, b in values["palette"])
        return cls(**{**values, "class_names": tuple(values["class_names"]), "palette": palette})


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Distinct 8-bit RGB colours by spreading the bits of the index over the channels.

    Source: the colour map of the PASCAL VOC development kit, started at index 1 so that no class is black.
    """

    def colour(index: int) -> tuple[int, int, int]:
        channels = [0, 0, 0]
        for shift in range(7, -1, -1):
            for channel in range(3):
                channels[channel] |= (index >> channel & 1) << shift
            index >>= 3
        return channels[0], channels[1], channels[2]

    return tuple(colour(index + 1) for index in range(num_classes))


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
        scale: (long, short) bounds in pixels that an image is resized to, aspect kept; None keeps its own size.
        normalization: of the pixels.
    """

    scale: tuple[int, int] | None = None
    normalization: Normalization = Normalization()

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for a checkpoint read with ``weights_only=True``."""
        return {"scale": self.scale and list(self.scale), "normalization": self.normalization.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputFormat:
        """The inverse of :meth:`to_dict`."""
        scale = values["scale"]
        return cls(scale and (int(scale[0]), int(scale[1])), Normalization.from_dict(values["normalization"]))
