"""Classification: one class for a whole image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback
from lightning.pytorch.utilities import rank_zero_info
from timm.data.mixup import Mixup
from torch import Tensor
from torch.optim import AdamW, Optimizer

from flatten_dense.backbones import TimmClassifier, load_weights
from flatten_dense.callbacks import ClassificationPlotter, ClassificationReport, ClassificationWriter, MetricsFile
from flatten_dense.data.transforms import EvalTransform
from flatten_dense.metrics import (
    ClassificationConfusion,
    ClassificationScores,
    classification_as_dict,
    describe_classification,
)
from flatten_dense.optim import Freezing, ParameterGroups, Schedule
from flatten_dense.structures import ClassLabels, InputFormat
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.speed import Speed


@dataclass(frozen=True)
class Mixing:
    """How the images of a training batch are mixed with one another; the defaults are the published recipe's.

    Args:
        mixup: alpha of the share of the other image in Mixup; 0 for no Mixup.
        cutmix: alpha of the area in CutMix; 0 for no CutMix.
        probability: of mixing a batch at all.
        switch: probability of CutMix where both are used.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch: float = 0.5


class ClassificationTask(BaseTask):
    """Train, evaluate and use a classifier.

    Args:
        backbone: any timm model; its classifier gets as many classes as the data have.
        labels: what the classes are called; the CLI takes it from the data.
        input_format: how a photo becomes an input; the CLI takes it from the data, `predict` from the checkpoint.
        optimizer: built as ``optimizer(parameter_groups)``.
        groups: which parameters decay, and which learn faster than others.
        schedule: learning rate per step; None keeps it constant.
        weights: what the model starts a fit from: a file, an https URL, ``hf-hub:OWNER/NAME``, ``timm:NAME``.
        freeze: which stages of the backbone stay as they start, and until when.
        speed: compilation, memory format, gradient checkpointing.
        mixing: Mixup and CutMix; None for none.
        label_smoothing: share of the target that is spread over all classes.

    Raises:
        ValueError: if an option is out of its range.
    """

    labels_type = ClassLabels
    monitor = "val/top1"
    max_pixels = 2**27
    labels: ClassLabels
    backbone: TimmClassifier

    def __init__(
        self,
        backbone: TimmClassifier,
        labels: ClassLabels | None = None,
        input_format: InputFormat | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] = AdamW,
        groups: ParameterGroups = ParameterGroups(),  # noqa: B008 - frozen
        schedule: Schedule | None = None,
        weights: str | None = None,
        freeze: Freezing = Freezing(),  # noqa: B008 - frozen
        speed: Speed = Speed(),  # noqa: B008 - frozen
        mixing: Mixing | None = Mixing(),
        label_smoothing: float = 0.1,
    ) -> None:
        super().__init__(backbone, labels, input_format, optimizer, groups, schedule, weights, freeze, speed)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"--model.label_smoothing must be from 0 to below 1, got {label_smoothing}")
        backbone.set_num_classes(self.labels.num_classes)
        self.label_smoothing = label_smoothing
        self.mixup = _make_mixup(mixing, label_smoothing, self.labels.num_classes)
        self.confusion = ClassificationConfusion(self.labels.num_classes)
        self.scores: ClassificationScores | None = None
        """Of the last validation or test that ended."""

    def load_whole(self) -> str:
        """Take all weights from ``weights``, the classifier too, to be evaluated without a checkpoint.

        Returns:
            The source.

        Raises:
            ValueError: as :func:`flatten_dense.backbones.load_weights`, or some parameter or class is not in them.
        """
        assert self._weights is not None
        report = load_weights(self.backbone, self._weights, class_names=self.labels.class_names)
        rank_zero_info(f"{report}\n")
        fresh = report.largest("re-initialised")
        if fresh:
            raise ValueError(
                f"{report.source} does not hold all of the model, so it cannot be scored: fresh would be {fresh}. "
                "Name weights of this model and of these classes, or train it first: flatten-dense fit"
            )
        return self._weights

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` of normalised images ``[B, 3, H, W]``."""
        logits: Tensor = self.backbone(images)
        return logits

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy of one batch, mixed."""
        images, target = batch["image"], batch["label"]
        if self.mixup is not None:
            if len(images) % 2:
                raise ValueError(
                    f"--model.mixing mixes images in pairs, but a training batch holds {len(images)}: make "
                    "--data.batch_size even, or set --model.mixing null"
                )
            images, target = self.mixup(images, target)
        smoothing = self.label_smoothing if self.mixup is None else 0.0  # Mixup has smoothed already
        loss = F.cross_entropy(self(images).float(), target, label_smoothing=smoothing)
        self.log_training({"loss": loss}, batch_size=len(images))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Count what is right; return ``probabilities`` ``[B, K]`` for callbacks to draw."""
        logits = self(batch["image"]).float()
        self.confusion.update(logits, batch["label"])
        return {"probabilities": logits.softmax(1)}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The same as validation."""
        return self.validation_step(batch, batch_idx)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Tensor]:
        """Probabilities ``[K]`` of each photo; photos of one size go through the model together."""
        images: list[Tensor] = batch["image"]
        if len({image.shape for image in images}) == 1:
            return list(self(torch.stack(images)).float().softmax(1))
        return [self(image[None]).float().softmax(1)[0] for image in images]

    @torch.inference_mode()
    def classify(self, image: Tensor) -> Tensor:
        """Probabilities ``[K]`` of one photo ``[3, H, W]``, uint8 RGB as `read_image` gives it."""
        with self.evaluating():
            logits = self(EvalTransform(self.input_format)(image)[None].to(self.device))
        probabilities: Tensor = logits[0].float().softmax(0)
        return probabilities

    def evaluation_callbacks(self, run: Path, facts: dict[str, Any]) -> list[Callback]:
        """Pictures, metrics.json, tables and mistakes."""
        facts = {"input": self.input_format.to_dict(), **facts}
        return [
            ClassificationPlotter(run / "pictures", self.labels, self.input_format),
            MetricsFile(run / "metrics.json", lambda: self.scores, self._describe, facts),
            ClassificationReport(run, lambda: self.scores, self.labels, self.input_format),
        ]

    def prediction_writer(self, directory: Path) -> ClassificationWriter:
        """One table."""
        return ClassificationWriter(directory, self.labels)

    def describe_metrics(self, metrics: dict[str, Any]) -> str:
        """Accuracy of each class, top-1 and top-5."""
        return describe_classification(metrics)

    def _describe(self, scores: ClassificationScores) -> dict[str, Any]:
        return classification_as_dict(scores, self.labels.class_names)

    def log_scores(self, prefix: str) -> None:
        """Log top-1 and top-5."""
        self.scores = self.confusion.compute()
        self.confusion.reset()
        self.log(f"{prefix}/top1", self.scores.top1, prog_bar=True)
        self.log(f"{prefix}/top5", self.scores.top5)


def _make_mixup(mixing: Mixing | None, label_smoothing: float, num_classes: int) -> Mixup | None:
    """Timm's Mixup and CutMix, one choice for a whole batch.

    Raises:
        ValueError: if a value is out of its range.
    """
    if mixing is None or not (mixing.mixup or mixing.cutmix):
        return None
    for name in ("mixup", "cutmix"):
        if getattr(mixing, name) < 0:
            raise ValueError(f"--model.mixing.{name} must not be negative, got {getattr(mixing, name)}")
    for name in ("probability", "switch"):
        if not 0 <= getattr(mixing, name) <= 1:
            raise ValueError(f"--model.mixing.{name} must be from 0 to 1, got {getattr(mixing, name)}")
    return Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=mixing.mixup,
        cutmix_alpha=mixing.cutmix,
        prob=mixing.probability,
        switch_prob=mixing.switch,
        mode="batch",
        label_smoothing=label_smoothing,
        num_classes=num_classes,
    )
