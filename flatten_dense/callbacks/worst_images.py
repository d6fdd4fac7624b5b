"""The images that a model segments worst, in one picture."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor, distributed

from flatten_dense.callbacks.best_evaluation import BestEvaluation
from flatten_dense.callbacks.photo import photo_of
from flatten_dense.metrics import SegmentationScores, confusion_matrix, score_confusion
from flatten_dense.structures import InputFormat, LabelSpace
from flatten_dense.visualization import describe_errors, prediction_sheet

_LONGEST_SIDE = 640  # of the copies that are kept; a cell of the sheet is smaller still


class _Image(NamedTuple):
    """An image of an evaluation: its score, its path, small copies, and how much of it is wrong."""

    score: float
    path: str
    photo: Tensor
    truth: Tensor
    prediction: Tensor
    errors: str


class WorstImages(BestEvaluation[SegmentationScores]):
    """Draw the images with the lowest scores, worst first: of the best validation in a fit, else of the set evaluated.

    An image's score is its own mean IoU: the mean, over the classes that its truth or its prediction holds, of
    intersection over union, counted on its labelled pixels. So a small object that is missed weighs as much as the
    sky. Images without a labelled pixel have no score and are left out; of equal scores the first path comes first.

    Only small copies of the worst so far are kept. With several processes each keeps its own, and one draws the worst
    of all.

    Args:
        path: the picture.
        scores: gives the scores of the evaluation that has just ended.
        labels: names and colours of the classes.
        input_format: how the images were normalised.
        num_images: how many to draw, 8 at most.
    """

    def __init__(
        self,
        path: Path,
        scores: Callable[[], SegmentationScores | None],
        labels: LabelSpace,
        input_format: InputFormat,
        num_images: int = 8,
    ) -> None:
        super().__init__(scores)
        self.path = path
        self.labels = labels
        self.input_format = input_format
        self.num_images = num_images
        self._worst: list[_Image] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last evaluation."""
        self._worst = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last evaluation."""
        self._worst = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images of this batch that are among the worst so far."""
        for image, truth, prediction, path in zip(
            batch["image"], batch["mask"], outputs["masks"], batch["path"], strict=True
        ):
            counts = confusion_matrix(prediction, truth, self.labels.num_classes, self.labels.ignore_index)
            score = score_confusion(counts).mIoU
            if not math.isnan(score) and self._is_among_worst(score, path):
                self._worst = self._first([*self._worst, self._copy(score, path, image, truth, prediction)])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same for `test`."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def write(self, trainer: Trainer, pl_module: LightningModule, scores: SegmentationScores) -> None:
        """Collect the worst of all processes and draw them in one."""
        worst = self._worst
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(gathered, worst)
            worst = self._first([image for images in gathered for image in images])
        if not worst or not trainer.is_global_zero:
            return
        sheet = prediction_sheet(
            [image.photo for image in worst],
            [image.truth.long() for image in worst],
            [image.prediction.long() for image in worst],
            self.labels,
            [f"mean IoU {image.score:.3f}   {Path(image.path).name}" for image in worst],
            self.num_images,
            [image.errors for image in worst],
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(self.path)

    def _is_among_worst(self, score: float, path: str) -> bool:
        if len(self._worst) < self.num_images:
            return True
        last = self._worst[-1]
        return (score, path) < (last.score, last.path)

    def _first(self, images: list[_Image]) -> list[_Image]:
        return sorted(images, key=lambda image: (image.score, image.path))[: self.num_images]

    def _copy(self, score: float, path: str, image: Tensor, truth: Tensor, prediction: Tensor) -> _Image:
        factor = min(1.0, _LONGEST_SIDE / max(truth.shape))
        size = [max(1, round(side * factor)) for side in truth.shape]
        small_truth, small_prediction = (
            F.interpolate(mask[None, None].float(), size=size, mode="nearest-exact")[0, 0].int().cpu()
            for mask in (truth, prediction)
        )
        errors = describe_errors(truth, prediction, self.labels.ignore_index)
        return _Image(score, path, photo_of(image, self.input_format, size), small_truth, small_prediction, errors)
