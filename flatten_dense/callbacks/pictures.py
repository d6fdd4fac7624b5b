"""Pictures of a run: predictions beside their truth, and curves."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from flatten_dense.callbacks.photo import photo_of
from flatten_dense.structures import InputFormat, LabelSpace
from flatten_dense.visualization import plot_curves, prediction_sheet

Sample = TypeVar("Sample")


class EvaluationPlotter(Callback, Generic[Sample]):
    """Draw some images of an evaluation in one picture, spread evenly over the set, the same ones every time.

    The picture goes into a file, `validation_step_000500.png` or `test.png`, and to TensorBoard.

    Args:
        directory: where the files go.
        num_images: how many to draw.
    """

    def __init__(self, directory: Path, num_images: int) -> None:
        self.directory = directory
        self.num_images = num_images
        self._samples: list[Sample] = []

    @abstractmethod
    def sample(self, outputs: Any, batch: dict[str, Any]) -> Sample:  # noqa: ANN401 - what the task's step returns
        """What is needed to draw the first image of a batch, on the CPU."""

    @abstractmethod
    def draw(self, samples: list[Sample]) -> Image.Image:
        """The picture."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first image of this batch if it is one of those to draw."""
        self._keep(outputs, batch, batch_idx, trainer.num_val_batches[0])

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
        self._keep(outputs, batch, batch_idx, trainer.num_test_batches[0])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture of this validation."""
        name = f"validation_step_{trainer.global_step:06d}" if trainer.state.fn == "fit" else "validation"
        self._write(trainer, name)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture of the test."""
        self._write(trainer, "test")

    def _keep(self, outputs: Any, batch: dict[str, Any], batch_idx: int, num_batches: int | float) -> None:  # noqa: ANN401
        images = min(self.num_images, int(num_batches))
        # The first image of each of `images` equal parts of the set: the same ones at every validation.
        if (batch_idx * images) % int(num_batches) < images:
            self._samples.append(self.sample(outputs, batch))

    def _write(self, trainer: Trainer, name: str) -> None:
        samples, self._samples = self._samples, []
        if not samples or trainer.sanity_checking or not trainer.is_global_zero:
            return
        picture = self.draw(samples)
        self.directory.mkdir(parents=True, exist_ok=True)
        picture.save(self.directory / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
                pixels = pixels.view(picture.height, picture.width, 3)
                logger.experiment.add_image("predictions", pixels, trainer.global_step, dataformats="HWC")


class PredictionPlotter(EvaluationPlotter[tuple[Tensor, Tensor, Tensor, str]]):
    """Draw evaluation images, truth, prediction and errors of semantic segmentation side by side.

    Args:
        directory: where `validation_step_000500.png` and `test.png` go.
        labels: names and colours of the classes.
        input_format: how the images were normalised.
        num_images: rows of the picture.
    """

    def __init__(self, directory: Path, labels: LabelSpace, input_format: InputFormat, num_images: int = 6) -> None:
        super().__init__(directory, num_images)
        self.labels = labels
        self.input_format = input_format

    def sample(self, outputs: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, str]:  # noqa: ANN401
        """Photo, truth, prediction and name."""
        mask = batch["mask"][0]
        photo = photo_of(batch["image"][0], self.input_format, mask.shape)
        return photo, mask.cpu(), outputs["masks"][0].cpu(), Path(batch["path"][0]).name

    def draw(self, samples: list[tuple[Tensor, Tensor, Tensor, str]]) -> Image.Image:
        """One row for each."""
        photos, truths, predictions, titles = (list(column) for column in zip(*samples, strict=True))
        return prediction_sheet(photos, truths, predictions, self.labels, titles, max_rows=self.num_images)


class CurvePlotter(Callback):
    """Draw `curves.png` from `metrics.csv` after every validation and at the end of a fit.

    Args:
        directory: the run's directory, which holds metrics.csv.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what there is."""
        if not trainer.sanity_checking:
            self._draw(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw all of it."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        metrics = self.directory / "metrics.csv"
        if trainer.is_global_zero and metrics.exists():
            plot_curves(metrics, self.directory / "curves.png")
