"""Masks and overlays of `predict`, written as they come."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from PIL import Image

from flatten_dense.structures import LabelSpace
from flatten_dense.visualization import overlay


class PredictionWriter(Callback):
    """Write each predicted mask and its overlay as it comes.

    `DIRECTORY/masks/NAME.png` holds the data set's own label values, `DIRECTORY/overlays/NAME.png` the photo with the
    classes coloured.

    Args:
        directory: an empty or new folder.
        labels: label values and colours.
    """

    def __init__(self, directory: Path, labels: LabelSpace) -> None:
        self.directory = directory
        self.labels = labels
        self.num_written = 0
        self.failed: list[str] = []
        """Messages about photos that could not be read."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the masks of one batch."""
        self.failed += batch["failed"]
        for mask, photo, name in zip(outputs, batch["photo"], batch["name"], strict=True):
            values = self.labels.to_disk(mask.cpu())
            self._save(Image.fromarray(values.numpy()), "masks", name)
            drawn = overlay(photo.cpu(), mask.cpu(), self.labels)
            self._save(Image.fromarray(drawn.permute(1, 2, 0).numpy()), "overlays", name)
            self.num_written += 1

    def _save(self, image: Image.Image, folder: str, name: str) -> None:
        path = self.directory / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
