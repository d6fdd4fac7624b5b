"""Pictures of a run: predictions beside their truth, and curves."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from flatten_dense.callbacks.photo import photo_of
from flatten_dense.structures import InputFormat, LabelSpace
from flatten_dense.visualization import plot_curves, prediction_sheet


class PredictionPlotter(Callback):
    """Draw evaluation images, truth, prediction and errors side by side, spread evenly over the set.

    Args:
        directory: where `validation_step_000500.png` and `test.png` go.
        labels: names and colours of the classes.
        input_format: how the images were normalised.
        num_images: rows of the picture.
    """

    def __init__(self, directory: Path, labels: LabelSpace, input_format: InputFormat, num_images: int = 6) -> None:
        self.directory = directory
        self.labels = labels
        self.input_format = input_format
        self.num_images = num_images
        self._rows: list[tuple[Tensor, Tensor, Tensor, str]] = []

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
        self._keep(outputs["masks"], batch, batch_idx, trainer.num_val_batches[0])

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
        self._keep(outputs["masks"], batch, batch_idx, trainer.num_test_batches[0])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture of this validation."""
        name = f"validation_step_{trainer.global_step:06d}" if trainer.state.fn == "fit" else "validation"
        self._draw(trainer, name)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture of the test."""
        self._draw(trainer, "test")

    def _keep(self, predictions: list[Tensor], batch: dict[str, Any], batch_idx: int, num_batches: int | float) -> None:
        rows = min(self.num_images, int(num_batches))
        # The first row of each of `rows` equal parts of the set: the same images at every validation.
        if (batch_idx * rows) % int(num_batches) >= rows:
            return
        mask = batch["mask"][0]
        photo = photo_of(batch["image"][0], self.input_format, mask.shape)
        self._rows.append((photo, mask.cpu(), predictions[0].cpu(), Path(batch["path"][0]).name))

    def _draw(self, trainer: Trainer, name: str) -> None:
        rows, self._rows = self._rows, []
        if not rows or trainer.sanity_checking or not trainer.is_global_zero:
            return
        photos, truths, predictions, titles = (list(column) for column in zip(*rows, strict=True))
        sheet = prediction_sheet(photos, truths, predictions, self.labels, titles, max_rows=self.num_images)
        self.directory.mkdir(parents=True, exist_ok=True)
        sheet.save(self.directory / f"{name}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                pixels = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8)
                pixels = pixels.view(sheet.height, sheet.width, 3)
                logger.experiment.add_image("predictions", pixels, trainer.global_step, dataformats="HWC")


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
