"""Semantic segmentation: a class for every pixel."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from flatten_dense.backbones import TimmBackbone
from flatten_dense.callbacks import EvaluationReport, MetricsFile, PredictionPlotter, PredictionWriter, WorstImages
from flatten_dense.data.rasters import LargeTiff
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.heads.base import SegmentationHead
from flatten_dense.inference import Inference, ModesUsed, segment_batch, segment_strips
from flatten_dense.losses import CrossEntropyLoss, SegmentationLoss
from flatten_dense.metrics import describe_scores, scores_as_dict
from flatten_dense.metrics.segmentation import SegmentationConfusion, SegmentationScores
from flatten_dense.optim import Freezing, ParameterGroups, Schedule
from flatten_dense.structures import InputFormat, LabelSpace
from flatten_dense.tasks.dense import DenseTask
from flatten_dense.tasks.speed import Speed


class SemanticSegmentationTask(DenseTask):
    """Train, evaluate and use a semantic segmentation model.

    Args:
        backbone: any timm model through TimmBackbone.
        head: built as ``head(in_channels, strides, num_classes)``.
        neck: built as ``neck(in_channels, strides)``, or None.
        labels: what the classes are called and how they are written; the CLI takes it from the data.
        input_format: how a photo becomes an input; the CLI takes it from the data, `predict` from the checkpoint.
        optimizer: built as ``optimizer(parameter_groups)``.
        groups: which parameters decay, and which learn faster than others.
        schedule: learning rate per step; None keeps it constant.
        weights: what the backbone starts a fit from: a file, an https URL, ``hf-hub:OWNER/NAME``, ``timm:NAME``.
        freeze: which stages of the backbone stay as they start, and until when.
        speed: compilation, memory format, gradient checkpointing.
        loss: of the logits; None is the cross-entropy of the published recipes.
        auxiliary_head: a second head on the same maps, built as ``head``, that only training uses; or None.
        auxiliary_weight: factor of its loss.
        inference: whether images are taken whole, in sliding windows or in tiles, at which scales.
        protocol: how classes that do not occur are averaged: ``mmseg``, ``sceneparsing`` (ADE20K's benchmark) or
            ``detectron2``.

    Raises:
        ValueError: if a part does not fit the others.
    """

    labels_type = LabelSpace
    monitor = "val/mIoU"
    labels: LabelSpace

    def __init__(
        self,
        backbone: TimmBackbone,
        head: Callable[[Sequence[int], Sequence[int], int], SegmentationHead],
        neck: Callable[[Sequence[int], Sequence[int]], nn.Module] | None = None,
        labels: LabelSpace | None = None,
        input_format: InputFormat | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW,
        groups: ParameterGroups = ParameterGroups(),  # noqa: B008 - frozen
        schedule: Schedule | None = None,
        weights: str | None = None,
        freeze: Freezing = Freezing(),  # noqa: B008 - frozen
        speed: Speed = Speed(),  # noqa: B008 - frozen
        loss: SegmentationLoss | None = None,
        auxiliary_head: Callable[[Sequence[int], Sequence[int], int], SegmentationHead] | None = None,
        auxiliary_weight: float = 0.4,
        inference: Inference = Inference(),  # noqa: B008 - frozen
        protocol: str = "mmseg",
    ) -> None:
        super().__init__(backbone, neck, labels, input_format, optimizer, groups, schedule, weights, freeze, speed)
        parts = self.feature_channels, self.feature_strides, self.labels.num_classes
        self.head = head(*parts)
        self.auxiliary_head = auxiliary_head(*parts) if auxiliary_head else None
        self.auxiliary_weight = auxiliary_weight
        self.loss = loss or CrossEntropyLoss()
        self.confusion = SegmentationConfusion(self.labels.num_classes, self.labels.ignore_index, protocol)
        self.inference = inference
        self.max_pixels = inference.max_pixels
        self.modes_used = ModesUsed()
        self.inference_used: dict[str, Any] = asdict(inference)
        """The options of inference and, after a validation or test, how many images were taken in which way."""
        self.scores: SegmentationScores | None = None
        """Of the last validation or test that ended."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K, h, w]`` at the finest stride, from normalised images ``[B, 3, H, W]``."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch, the auxiliary head's share included."""
        features = self.features(batch["image"])
        losses = {"loss": self._loss_of(self.head(features), batch)}
        if self.auxiliary_head is not None:
            auxiliary = self._loss_of(self.auxiliary_head(features), batch)
            losses = {
                "loss": losses["loss"] + self.auxiliary_weight * auxiliary,
                "loss_head": losses["loss"],
                "loss_auxiliary": auxiliary,
            }
        self.log_training(losses, batch_size=len(batch["image"]))
        return losses["loss"]

    def _loss_of(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        return self.loss(logits, batch["mask"], self.labels.ignore_index)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Tensor]]:
        """Predict masks at the original sizes and count them; return them as ``masks`` for callbacks to draw."""
        sizes = [mask.shape[-2:] for mask in batch["mask"]]
        predictions = segment_batch(self, batch["image"], sizes, self.inference)
        self.modes_used.update(self.inference, [image.shape[-2:] for image in batch["image"]])
        for prediction, mask in zip(predictions, batch["mask"], strict=True):
            self.confusion.update(prediction, mask)
        return {"masks": predictions}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, list[Tensor]]:
        """The same as validation."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor | Iterator[Tensor]]:
        """Masks ``[H, W]`` of class indices at each photo's own size; after them, of each large TIFF, strips of one.

        The model runs while the strips are taken.
        """
        masks = segment_batch(self, batch["image"], batch["size"], self.inference)
        return [*masks, *map(self._strips_of, batch.get("large", ()))]

    def _strips_of(self, photo: LargeTiff) -> Iterator[Tensor]:
        weight = next(self.parameters())
        kind = weight.device.type
        # Strips are taken when the Trainer has left the precision of this step.
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

        def predict(tile: Tensor) -> Tensor:
            with torch.autocast(kind, dtype, enabled):
                logits: Tensor = self(tile.to(weight))
            return logits

        def strips() -> Iterator[Tensor]:
            with photo.open(self.input_format) as image:
                yield from segment_strips(predict, image, photo.size, self.inference)

        return strips()

    def evaluation_callbacks(self, run: Path, facts: dict[str, Any]) -> list[Callback]:
        """Pictures of predictions and of the worst images, metrics.json, and tables of the classes."""
        facts = {
            "resolution": {"resized_to": self.input_format.scale or "own size", "scored_at": "the mask's own size"},
            "inference": self.inference_used,  # filled in at the end of each evaluation
            **facts,
        }
        return [
            PredictionPlotter(run / "pictures", self.labels, self.input_format),
            MetricsFile(run / "metrics.json", lambda: self.scores, self._describe, facts),
            EvaluationReport(run, lambda: self.scores, self.labels),
            WorstImages(run / "pictures" / "worst.png", lambda: self.scores, self.labels, self.input_format),
        ]

    def prediction_writer(self, directory: Path) -> PredictionWriter:
        """Masks and overlays."""
        return PredictionWriter(directory, self.labels)

    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """IoU and accuracy of each class and in the mean."""
        return describe_scores(metrics)

    def _describe(self, scores: SegmentationScores) -> dict[str, Any]:
        return scores_as_dict(scores, self.labels.class_names)

    def log_scores(self, prefix: str) -> None:
        """Log the means over classes and pixels."""
        self.scores = self.confusion.compute()
        self.confusion.reset()
        self.inference_used["images"] = self.modes_used.compute()
        self.modes_used.reset()
        self.log(f"{prefix}/mIoU", self.scores.mIoU, prog_bar=True)
        self.log_dict({f"{prefix}/mAcc": self.scores.mAcc, f"{prefix}/aAcc": self.scores.aAcc})

    @torch.inference_mode()
    def segment(self, image: Tensor) -> Tensor:
        """Class indices ``[H, W]``, int64, of one photo ``[3, H, W]``, uint8 RGB as `read_image` gives it."""
        transform = EvalTransform(self.input_format)
        normalized = transform(image).to(self.device)
        with self.evaluating():
            (mask,) = segment_batch(self, [normalized], [(image.shape[-2], image.shape[-1])], self.inference)
        return mask
