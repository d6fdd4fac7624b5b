"""What `predict` leaves of a classifier: one table, and a sheet of the first photos."""

import csv
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from flatten_dense.callbacks.classification_report import guesses_of
from flatten_dense.callbacks.photo_writer import PhotoWriter
from flatten_dense.structures import ClassLabels
from flatten_dense.visualization import ClassifiedPhoto, classification_sheet

_DRAWN = 24


class ClassificationWriter(PhotoWriter):
    """Write `DIRECTORY/predictions.csv`, a line per photo as it comes, and `DIRECTORY/predictions.png`.

    A line holds the photo's path and its five most probable classes with their probabilities; the picture shows the
    first photos.

    Args:
        directory: an empty or new folder.
        labels: names of the classes.
    """

    def __init__(self, directory: Path, labels: ClassLabels) -> None:
        super().__init__(directory)
        self.labels = labels
        self._drawn: list[ClassifiedPhoto] = []

    @property
    def summary(self) -> str:
        """Where the table is."""
        return f"the classes of {self.num_written} photos are in {self.directory}/predictions.csv"

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the table.

        Raises:
            ValueError: if there is more than one process.
        """
        if trainer.world_size > 1:
            raise ValueError(
                f"predict writes the classes of all photos into one table; got {trainer.world_size} processes, leave "
                "--trainer.devices and --trainer.num_nodes at 1"
            )
        numbers = range(1, min(5, self.labels.num_classes) + 1)
        self._append([["photo", *(word for n in numbers for word in (f"class_{n}", f"probability_{n}"))]])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the photos of one batch."""
        self.failed += batch["failed"]
        self.failed += [
            f"{photo.path}: {photo.size[1]} x {photo.size[0]} pixels are too many for one class; save a smaller copy"
            for photo in batch["large"]
        ]
        rows = []
        for probabilities, photo, path in zip(outputs, batch["photo"], batch["path"], strict=True):
            guesses = guesses_of(probabilities, self.labels)
            rows.append([path, *(word for name, share in guesses for word in (name, f"{share:.6f}"))])
            self.num_written += 1
            if len(self._drawn) < _DRAWN:
                self._drawn.append(ClassifiedPhoto(photo.cpu(), None, guesses, Path(path).name))
        self._append(rows)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the first photos."""
        if self._drawn:
            classification_sheet(self._drawn).save(self.path_of("", "predictions.png"))

    def _append(self, rows: list[list[str]]) -> None:
        with self.path_of("", "predictions.csv").open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
