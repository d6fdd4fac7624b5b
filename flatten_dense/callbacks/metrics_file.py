"""`metrics.json`: the scores of a run, and what they were measured on."""

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import nn

from flatten_dense.callbacks.best_evaluation import BestEvaluation, S


class MetricsFile(BestEvaluation[S]):
    """Write `metrics.json`: of the best validation in a fit, of the set evaluated otherwise.

    Args:
        path: the file.
        scores: gives the scores of the evaluation that has just ended.
        describe: the scores as JSON holds them.
        facts: what else the file should say (split, resolution, checkpoint).
    """

    def __init__(
        self,
        path: Path,
        scores: Callable[[], S | None],
        describe: Callable[[S], dict[str, Any]],
        facts: dict[str, Any],
    ) -> None:
        super().__init__(scores)
        self.path = path
        self.describe = describe
        self.facts = facts

    def write(self, trainer: Trainer, pl_module: LightningModule, scores: S) -> None:
        """Write the file."""
        if not trainer.is_global_zero:
            return
        content = {
            **self.describe(scores),
            **self.facts,
            "step": trainer.global_step,
            "weights_sha256": weights_hash(pl_module),
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
