"""Object detection and instance segmentation: boxes, and masks, of objects."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from flatten_dense.backbones import TimmBackbone
from flatten_dense.callbacks import DetectionPlotter, DetectionReport, DetectionWriter, MetricsFile
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.heads.detection import DetectionHead
from flatten_dense.inference.detect import to_original
from flatten_dense.metrics import CocoDetection, CocoScores, coco_scores_as_dict, describe_coco
from flatten_dense.optim import Freezing, ParameterGroups, Schedule
from flatten_dense.structures import DetectionLabels, Detections, ImageBatch, InputFormat, pad_images
from flatten_dense.tasks.dense import DenseTask
from flatten_dense.tasks.nonfinite import require_finite
from flatten_dense.tasks.speed import Speed

_PAD_TO = 32


class DetectionTask(DenseTask):
    """Train, evaluate and use a detector.

    Args:
        backbone: any timm model through TimmBackbone.
        head: built as ``head(in_channels, strides, num_classes)``.
        neck: built as ``neck(in_channels, strides)``.
        labels: what the classes are called and numbered; the CLI takes it from the data.
        input_format: how a photo becomes an input; the CLI takes it from the data, `predict` from the checkpoint.
        optimizer: built as ``optimizer(parameter_groups)``.
        groups: which parameters decay, and which learn faster than others.
        schedule: learning rate per step; None keeps it constant.
        weights: what the backbone starts a fit from: a file, an https URL, ``hf-hub:OWNER/NAME``, ``timm:NAME``.
        freeze: which stages of the backbone stay as they start, and until when.
        speed: compilation, memory format, gradient checkpointing.
        padding_mask: whether the images of a padded batch are kept apart, so that detections do not depend on what an
            image was batched with; backbones of timm cannot, nor do PVTv2's pooled forms and torchvision's conventions.

    Raises:
        ValueError: if a part does not fit the others.
    """

    labels_type = DetectionLabels
    monitor = "val/bbox_AP"
    max_pixels = 2**27
    labels: DetectionLabels

    def __init__(
        self,
        backbone: TimmBackbone,
        head: Callable[[Sequence[int], Sequence[int], int], DetectionHead],
        neck: Callable[[Sequence[int], Sequence[int]], nn.Module] | None = None,
        labels: DetectionLabels | None = None,
        input_format: InputFormat | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW,
        groups: ParameterGroups = ParameterGroups(),  # noqa: B008 - frozen
        schedule: Schedule | None = None,
        weights: str | None = None,
        freeze: Freezing = Freezing(),  # noqa: B008 - frozen
        speed: Speed = Speed(),  # noqa: B008 - frozen
        padding_mask: bool = True,
    ) -> None:
        super().__init__(backbone, neck, labels, input_format, optimizer, groups, schedule, weights, freeze, speed)
        self.head = head(self.feature_channels, self.feature_strides, self.labels.num_classes)
        rules = self.head.conventions
        self.padding_mask = padding_mask and backbone.keeps_images_apart and not rules.padding_is_image
        self.coco = CocoDetection(self.head.iou_types)
        self.scores: CocoScores | None = None
        """Of the last validation or test that ended."""

    def forward(self, images: Sequence[Tensor], originals: Sequence[tuple[int, int]]) -> list[Detections]:
        """Detections in pixels of the original images.

        Args:
            images: normalised, ``[3, h, w]`` each.
            originals: (H, W) of the photos that they were resized from.
        """
        batch = self._pad(images)
        found = self.head.predict(self._maps(batch), batch)
        paste = self.head.conventions.integer_paste
        return [to_original(*own, paste) for own in zip(found, batch.sizes, originals, strict=True)]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sum of the head's losses of one batch.

        Raises:
            NonFiniteLossError: it is not finite; the batch lies in a file.
        """
        random_state = torch.get_rng_state()
        losses = self.losses(batch["image"], batch["target"])
        require_finite(self, losses, batch, random_state)
        self.log_training(losses, batch_size=len(batch["image"]))
        return losses["loss"]

    def losses(self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The head's losses by name, and as ``loss`` their sum.

        Args:
            images: normalised, ``[3, h, w]`` each.
            targets: as :meth:`flatten_dense.heads.DetectionHead.loss` takes them.

        Raises:
            ValueError: the head learns masks, and the targets have none.
        """
        if "segm" in self.head.iou_types and any("masks" not in target for target in targets):
            raise ValueError(
                f"{type(self.head).__name__} learns masks, but the training data hold boxes alone, or "
                "--data.with_masks is false: set --model.head.masks false"
            )
        batch = self._pad(images)
        losses = self.head.loss(self._maps(batch), batch, targets)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Detections]]:
        """Detect at the original sizes and keep what was found; return it as ``detections`` for callbacks to draw."""
        detections = self(batch["image"], batch["size"])
        self.coco.update(detections, batch["image_id"])
        return {"detections": detections}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Detections]]:
        """The same as validation."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Detections]:
        """Detections in each photo, at its own size."""
        return self(batch["image"], batch["size"]) if batch["image"] else []

    def on_validation_start(self) -> None:
        """Take the truth of the split."""
        self._begin(self.trainer.val_dataloaders)

    def on_test_start(self) -> None:
        """Take the truth of the split."""
        self._begin(self.trainer.test_dataloaders)

    @torch.inference_mode()
    def detect(self, image: Tensor) -> Detections:
        """What is in one photo ``[3, H, W]``, uint8 RGB as `read_image` gives it."""
        transform = EvalTransform(self.input_format)
        with self.evaluating():
            (detections,) = self([transform(image).to(self.device)], [(image.shape[-2], image.shape[-1])])
        return detections  # type: ignore[no-any-return]

    def evaluation_callbacks(self, run: Path, facts: dict[str, Any]) -> list[Callback]:
        """Pictures, metrics.json, and the report with its result file."""
        facts = {"resolution": {"resized_to": self.input_format.scale or "own size", "scored_at": "own size"}, **facts}
        return [
            DetectionPlotter(run / "pictures", self.labels, self.input_format),
            MetricsFile(run / "metrics.json", lambda: self.scores, coco_scores_as_dict, facts),
            DetectionReport(run, lambda: self.scores, self.coco, self.labels),
        ]

    def prediction_writer(self, directory: Path) -> DetectionWriter:
        """Overlays, and one result file."""
        return DetectionWriter(directory, self.labels)

    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """Twelve numbers for boxes, and for masks."""
        return describe_coco(metrics)

    def _pad(self, images: Sequence[Tensor]) -> ImageBatch:
        # Backbones that keep images apart take any size, so images of one size need no padding at all.
        return pad_images(images, 1 if self.padding_mask else _PAD_TO)

    def _maps(self, images: ImageBatch) -> list[Tensor]:
        if not self.padding_mask:
            return self.features(images.tensor)
        # The edge of a plain transformer's last patch is padding too, to the finer levels that are made of it.
        has_padding = any(size != images.padded_size for size in images.sizes)
        has_padding |= any(side % min(self.backbone.strides) for side in images.padded_size)
        return self.features(images.tensor, images.sizes if has_padding else None)

    def _begin(self, loader: Any) -> None:  # noqa: ANN401 - Lightning's own union
        annotations = getattr(getattr(loader, "dataset", None), "annotations", None)
        if annotations is None:
            raise ValueError(
                "detections are scored against the annotations of a split: give a data set with .annotations and "
                ".labels, as CocoDataModule has"
            )
        rows = annotations.annotations
        if "segm" in self.head.iou_types and rows and not any(row.get("segmentation") for row in rows):
            raise ValueError(
                f"{type(self.head).__name__} finds masks, but {annotations.source} holds boxes alone: set "
                "--model.head.masks false"
            )
        self.coco.begin(annotations.to_coco(), loader.dataset.labels.category_ids)

    def log_scores(self, prefix: str) -> None:
        """Log the scores, and keep them."""
        self.scores = self.coco.compute()
        for iou_type, stats in self.scores.stats.items():
            self.log(f"{prefix}/{iou_type}_AP", stats["AP"], prog_bar=True)
            self.log_dict({f"{prefix}/{iou_type}_{name}": value for name, value in stats.items() if name != "AP"})
