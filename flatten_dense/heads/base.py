"""What a task may rely on in a head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class SegmentationHead(nn.Module, ABC):
    """Turns feature maps into logits at the finest stride; resizing further is the task's business.

    A subclass takes these three arguments first and by position, its own ones after them: a recipe names the class
    and its own arguments, the task supplies these.

    Args:
        in_channels: channels of the incoming maps, finest first.
        strides: their strides, strictly growing.
        num_classes: K.

    Raises:
        ValueError: if there are not as many strides as channels, strides do not grow, or there is no class.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        super().__init__()
        name = type(self).__name__
        if not in_channels or len(in_channels) != len(strides):
            raise ValueError(f"{name} needs one stride per level, got in_channels={in_channels} and strides={strides}")
        if any(coarse <= fine for fine, coarse in pairwise(strides)):
            raise ValueError(
                f"{name} expects levels from finest to coarsest, got strides={tuple(strides)}{_hint(strides)}"
            )
        if num_classes < 1:
            raise ValueError(f"{name} needs at least one class, got num_classes={num_classes}")
        self.in_channels = tuple(in_channels)
        self.strides = tuple(strides)
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps ``[B, C_i, H_i, W_i]``, finest first -> logits ``[B, K, H_0, W_0]``."""


def make_classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """The 1x1 convolution that ends a head: normal with std 0.01, zero biases."""
    classifier = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(classifier.weight, std=0.01)
    if classifier.bias is not None:
        nn.init.zeros_(classifier.bias)
    return classifier


def _hint(strides: Sequence[int]) -> str:
    if len(set(strides)) > 1:
        return ""
    return (
        ". A plain vision transformer gives maps of one stride: take its last one with --model.backbone.out_indices "
        "[-1], and make levels of it with --model.neck flatten_dense.necks.SimplePyramid"
    )
