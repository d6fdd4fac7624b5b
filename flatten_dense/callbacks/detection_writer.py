"""What `predict` leaves of a detector: overlays, and one result file."""

import json
from pathlib import Path
from typing import Any, TextIO

from lightning import LightningModule, Trainer

from flatten_dense.callbacks.coco_rows import result_rows
from flatten_dense.callbacks.photo_writer import PhotoWriter
from flatten_dense.structures import DetectionLabels, Detections
from flatten_dense.visualization import draw_detections
from flatten_dense.visualization.boxes import MIN_SCORE


class DetectionWriter(PhotoWriter):
    """Write an overlay of each photo as it comes, and the detections of all photos into one file.

    `DIRECTORY/overlays/NAME.png` shows what has a score of at least ``min_score``. `DIRECTORY/detections.json` is a
    COCO result file of all detections. Photos have no numbers, so they get them by their names' order, from 1; which
    photo has which number says `DIRECTORY/images.json`, an annotation file without annotations. Tools of COCO load
    both: ``COCO("images.json").loadRes("detections.json")``. Detections are written as they come, none are kept; while
    the model runs they are in `detections.json.partial`.

    Args:
        directory: an empty or new folder.
        labels: names, colours and numbers of the classes.
        min_score: of the boxes that are drawn.
    """

    def __init__(self, directory: Path, labels: DetectionLabels, min_score: float = MIN_SCORE) -> None:
        super().__init__(directory)
        self.labels = labels
        self.min_score = min_score
        self.num_detections = 0
        self._images: list[dict[str, Any]] = []
        self._file: TextIO | None = None

    @property
    def summary(self) -> str:
        """Where detections and overlays are."""
        return (
            f"{self.num_detections} objects in {self.num_written} photos are in {self.directory}/detections.json, "
            f"whose image ids {self.directory}/images.json explains; overlays in {self.directory}/overlays"
        )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file.

        Raises:
            ValueError: if there is more than one process.
        """
        if trainer.world_size > 1:
            raise ValueError(
                f"predict writes the detections of all photos into one file; got {trainer.world_size} processes, "
                "leave --trainer.devices and --trainer.num_nodes at 1"
            )
        self._file = self._partial.open("w", encoding="utf-8")
        self._file.write("[")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the overlays and detections of one batch."""
        self.failed += batch["failed"]
        self.failed += [
            f"{photo.path}: {photo.size[1]} x {photo.size[0]} pixels are too many to detect objects in; cut the image "
            "into parts, or save a smaller copy"
            for photo in batch["large"]
        ]
        for found, photo, name, path in zip(outputs, batch["photo"], batch["name"], batch["path"], strict=True):
            self.num_written += 1
            height, width = photo.shape[-2:]
            self._images.append(
                {"id": self.num_written, "file_name": Path(path).name, "width": width, "height": height}
            )
            self._write(found)
            overlay = draw_detections(photo, found, self.labels, self.min_score)
            overlay.save(self.path_of("overlays", f"{name}.png"))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete both files."""
        assert self._file is not None
        self._file.write("\n]\n")
        self._file.close()
        categories = [
            {"id": number, "name": name}
            for number, name in zip(self.labels.category_ids, self.labels.class_names, strict=True)
        ]
        content = {"images": self._images, "annotations": [], "categories": categories}
        self.path_of("", "images.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
        self._partial.replace(self._partial.with_suffix(""))

    @property
    def _partial(self) -> Path:
        return self.path_of("", "detections.json.partial")

    def _write(self, found: Detections) -> None:
        assert self._file is not None
        for row in result_rows(found, self.num_written, self.labels.category_ids):
            if "segmentation" in row:
                row["segmentation"] = {**row["segmentation"], "counts": row["segmentation"]["counts"].decode("ascii")}
            self._file.write(("," if self.num_detections else "") + "\n" + json.dumps(row, allow_nan=False))
            self.num_detections += 1
