"""`metrics.json`: the scores of a run, and what they were measured on."""

import hashlib
import json
import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn

from flatten_dense.metrics.segmentation import PROTOCOL, SegmentationScores
from flatten_dense.structures import LabelSpace


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
