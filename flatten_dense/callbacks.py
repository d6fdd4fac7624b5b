"""What a run leaves behind beside its checkpoints: pictures, curves, metrics.json, predictions."""

import hashlib
import json
import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor, nn

from flatten_dense.metrics.segmentation import PROTOCOL, SegmentationScores
from flatten_dense.structures import InputFormat, LabelSpace
from flatten_dense.visualization import overlay, plot_curves, prediction_sheet


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
        photo = self.input_format.normalization.undo(batch["image"][0])
        photo = F.interpolate(photo[None].float(), size=mask.shape, mode="bilinear", antialias=True)[0].byte()
        path = Path(batch["path"][0]).name
        self._rows.append((photo.cpu(), mask.cpu(), predictions[0].cpu(), path))

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


class MetricsFile(Callback):
    """Write `metrics.json`: of the best validation in a fit, of the set evaluated otherwise.

    Args:
        path: the file.
        scores: gives the scores of the evaluation that has just ended.
        labels: names of the classes.
        facts: what else the file should say (split, resolution, checkpoint).
    """

    def __init__(
        self, path: Path, scores: Callable[[], SegmentationScores | None], labels: LabelSpace, facts: dict[str, Any]
    ) -> None:
        self.path = path
        self.scores = scores
        self.labels = labels
        self.facts = facts
        self.best = -math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file; in a fit, if these are the best scores of the run so far."""
        scores = self.scores()
        if scores is None or trainer.sanity_checking:
            return
        if trainer.state.fn == "fit" and not scores.mIoU > self.best:
            return
        self.best = scores.mIoU
        self._write(trainer, pl_module, scores)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        scores = self.scores()
        if scores is not None:
            self._write(trainer, pl_module, scores)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, so that a resumed run does not replace it by a worse one."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best so far."""
        self.best = state_dict["best"]

    def _write(self, trainer: Trainer, module: nn.Module, scores: SegmentationScores) -> None:
        if not trainer.is_global_zero:
            return
        per_class = {
            name: {"IoU": _number(iou), "Acc": _number(acc)}
            for name, iou, acc in zip(self.labels.class_names, scores.iou.tolist(), scores.acc.tolist(), strict=True)
        }
        content = {
            "mIoU": _number(scores.mIoU),
            "mAcc": _number(scores.mAcc),
            "aAcc": _number(scores.aAcc),
            "per_class": per_class,
            "protocol": PROTOCOL,
            **self.facts,
            "step": trainer.global_step,
            "weights_sha256": weights_hash(module),
            "versions": {name: version(name) for name in ("flatten-dense", "torch", "lightning", "timm")},
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


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


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of a module's state, in hex: equal for equal weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _number(value: float) -> float | None:
    # JSON has no NaN: a class that occurs nowhere has null.
    return None if math.isnan(value) else float(value)
