"""Masks and overlays of `predict`, written as they come."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor

from flatten_dense.callbacks.photo_writer import PhotoWriter
from flatten_dense.data.images import DataError, mask_image
from flatten_dense.data.mask_tiff import MaskTiff, read_mask_preview
from flatten_dense.data.rasters import LargeTiff
from flatten_dense.structures import LabelSpace
from flatten_dense.visualization import overlay

PREVIEW_SIDE = 2048
"""Longest side in pixels of the overlay of a large TIFF."""

_SECONDS_BETWEEN_REPORTS = 30.0


class PredictionWriter(PhotoWriter):
    """Write each predicted mask and its overlay as it comes.

    `DIRECTORY/masks/NAME.png` holds the data set's own label values, `DIRECTORY/overlays/NAME.png` the photo with the
    classes coloured. Of a large TIFF the mask is `masks/NAME.tif`, tiled and with the photo's georeference, written
    while the model runs; the overlay then shows it reduced to at most 2048 pixels a side.

    Args:
        directory: an empty or new folder.
        labels: label values and colours.
    """

    def __init__(self, directory: Path, labels: LabelSpace) -> None:
        super().__init__(directory)
        self.labels = labels

    @property
    def summary(self) -> str:
        """Where masks and overlays are."""
        return f"{self.num_written} masks are in {self.directory}/masks, overlays in {self.directory}/overlays"

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the masks of one batch; those of large TIFFs are made here, strip by strip."""
        self.failed += batch["failed"]
        masks, streams = outputs[: len(batch["name"])], outputs[len(batch["name"]) :]
        for mask, photo, name in zip(masks, batch["photo"], batch["name"], strict=True):
            self._save(mask_image(mask, self.labels), "masks", name)
            self._save_overlay(photo.cpu(), mask.cpu(), name)
            self.num_written += 1
        for strips, photo, name in zip(streams, batch["large"], batch["large_name"], strict=True):
            try:
                self._write_large(strips, photo, name)
            except DataError as error:
                self.failed.append(str(error))
            except ValueError as error:  # the model refuses this size; another file may suit it
                self.failed.append(f"{photo.path}: {error}")
            else:
                self.num_written += 1

    def _write_large(self, strips: Iterator[Tensor], photo: LargeTiff, name: str) -> None:
        path = self.path_of("masks", f"{name}.tif")
        progress = _Progress(photo)
        with MaskTiff(path, photo, self.labels) as mask:
            for strip in strips:
                mask.write(strip)
                progress.add(len(strip))
        preview = photo.preview(PREVIEW_SIDE)
        reduced = read_mask_preview(path, (preview.shape[-2], preview.shape[-1]), self.labels)
        self._save_overlay(preview, reduced, name)

    def _save_overlay(self, photo: Tensor, mask: Tensor, name: str) -> None:
        drawn = overlay(photo, mask, self.labels)
        self._save(Image.fromarray(drawn.permute(1, 2, 0).contiguous().numpy()), "overlays", name)

    def _save(self, image: Image.Image, folder: str, name: str) -> None:
        image.save(self.path_of(folder, f"{name}.png"))


class _Progress:
    """A line now and then about an image that takes minutes."""

    def __init__(self, photo: LargeTiff) -> None:
        self._photo = photo
        self._done = 0
        self._started = self._last = self._reported = time.monotonic()

    def add(self, rows: int) -> None:
        now = time.monotonic()
        if self._done and now - self._reported >= _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            height, width = self._photo.size
            # Rows come in bursts, one for each row of tiles: only up to the last one do rows and time belong together.
            left = (self._last - self._started) * (height - self._done) / self._done - (now - self._last)
            rank_zero_info(
                f"{self._photo.path.name}: {self._done:,} of {height:,} rows of {width:,} pixels, "
                f"about {max(left, 0) / 60:.0f} min left"
            )
        self._done += rows
        self._last = now
