"""What a task may rely on in a detection head."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from flatten_dense.heads.detection.conventions import ConventionsName, conventions_of
from flatten_dense.layers import TokenGrid, own_grids
from flatten_dense.structures import ImageBatch

_PUBLISHED_CHANNELS = 256


class RawDetections(NamedTuple):
    """What a head found in one image, highest score first, in pixels of the model's input.

    Attributes:
        boxes: float32 ``[N, 4]``, (left, top, right, bottom), inside the image.
        scores: float32 ``[N]``.
        labels: int64 ``[N]``, from 0.
        masks: float32 ``[N, M, M]``, probabilities over each box; None from a head of boxes alone.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


class DetectionHead(nn.Module, ABC):
    """Turns feature maps into losses, or into boxes and masks in pixels of the model's input.

    A subclass takes these three arguments first and by position, its own ones after them: a recipe names the class
    and its own arguments, the task supplies these.

    Args:
        in_channels: channels of the incoming maps, the same in all.
        strides: their strides, each twice the one before.
        num_classes: K.
        conventions: whose conventions are followed where implementations differ.

    Attributes:
        iou_types: what can be evaluated, of ``bbox`` and ``segm``.
        conventions: the answers that ``conventions`` stands for.

    Raises:
        ValueError: if levels do not fit a detector, or there is no class.
    """

    iou_types: tuple[str, ...] = ("bbox",)

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        conventions: ConventionsName = "mmdet",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not in_channels or len(in_channels) != len(strides):
            raise ValueError(f"{name} needs one stride per level, got in_channels={in_channels} and strides={strides}")
        if len(set(in_channels)) > 1 or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(
                f"{name} needs levels of equal channels, each of twice the stride of the one before, got in_channels="
                f"{tuple(in_channels)} and strides={tuple(strides)}: put a neck before it, "
                "--model.neck flatten_dense.necks.FPN (SimplePyramid for a plain transformer)"
            )
        if num_classes < 1:
            raise ValueError(f"{name} needs at least one class, got num_classes={num_classes}")
        self.in_channels = in_channels[0]
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.conventions = conventions_of(conventions)

    @abstractmethod
    def loss(
        self, features: Sequence[Tensor], images: ImageBatch, targets: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Losses by name, to be added up.

        Args:
            features: maps ``[B, C, H_i, W_i]``, zero outside the images' own parts.
            images: the padded batch.
            targets: of each image ``boxes`` ``[N, 4]`` in its pixels, ``labels`` ``[N]`` from 0, and for a head with
                masks ``masks`` ``[N, h, w]``, bool.
        """

    @abstractmethod
    def predict(self, features: Sequence[Tensor], images: ImageBatch) -> list[RawDetections]:
        """What is found in each image; arguments as for :meth:`loss`."""

    def grids(self, features: Sequence[Tensor], images: ImageBatch) -> list[TokenGrid]:
        """Of each map, which part belongs to which image; all of it where padding counts as image."""
        return own_grids(features, self.strides, None if self.conventions.padding_is_image else images.sizes)


def init_conv(conv: nn.Conv2d, bias: float = 0.0) -> nn.Conv2d:
    """Normal weights of std 0.01 and a constant bias, as detectors' dense layers start.

    0.01 is published for maps of 256 channels; on narrower ones the weights are larger, so that signals are not.
    """
    nn.init.normal_(conv.weight, std=0.01 * math.sqrt(_PUBLISHED_CHANNELS / conv.in_channels))
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)
    return conv
