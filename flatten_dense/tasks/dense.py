"""What the tasks that predict from maps share: a backbone and a neck before the head."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from flatten_dense.backbones import TimmBackbone
from flatten_dense.optim import Freezing, ParameterGroups, Schedule
from flatten_dense.structures import InputFormat, Labels
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.speed import Speed


class DenseTask(BaseTask):
    """A backbone and an optional neck; subclasses add the head, the loss and the metric.

    Args:
        backbone: gives ``channels``, ``strides`` and a list of NCHW maps.
        neck: built as ``neck(in_channels, strides)``; None hands the backbone's maps to the head.
        labels: as all that follow, of :class:`BaseTask`.
        input_format: as there.
        optimizer: as there.
        groups: as there.
        schedule: as there.
        weights: as there.
        freeze: as there.
        speed: as there.
    """

    backbone: TimmBackbone

    def __init__(
        self,
        backbone: TimmBackbone,
        neck: Callable[[Sequence[int], Sequence[int]], nn.Module] | None = None,
        labels: Labels | None = None,
        input_format: InputFormat | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW,
        groups: ParameterGroups = ParameterGroups(),  # noqa: B008 - frozen
        schedule: Schedule | None = None,
        weights: str | None = None,
        freeze: Freezing = Freezing(),  # noqa: B008 - frozen
        speed: Speed = Speed(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(backbone, labels, input_format, optimizer, groups, schedule, weights, freeze, speed)
        self.neck = neck(backbone.channels, backbone.strides) if neck else None
        backbone.leave_out(getattr(self.neck, "start_level", 0))

    @property
    def feature_channels(self) -> Sequence[int]:
        """Channels of each map that the head receives."""
        channels: Sequence[int] = (self.neck or self.backbone).channels  # type: ignore[assignment]
        return channels

    @property
    def feature_strides(self) -> Sequence[int]:
        """Stride, in input pixels, of each map that the head receives."""
        strides: Sequence[int] = (self.neck or self.backbone).strides  # type: ignore[assignment]
        return strides

    def features(self, images: Tensor, image_sizes: Sequence[tuple[int, int]] | None = None) -> list[Tensor]:
        """Maps for the head, finest first, from normalised images ``[B, 3, H, W]``.

        With ``image_sizes``, (h, w) of each image in a padded batch, they do not depend on what it was batched with.
        """
        if image_sizes is None:
            maps: list[Tensor] = self.backbone(images)
            return self.neck(maps) if self.neck else maps
        maps = self.backbone(images, image_sizes)
        return self.neck(maps, image_sizes) if self.neck else maps
