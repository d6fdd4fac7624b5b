"""How sharp attention is, and what rank it has, while a model learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from flatten_dense.analysis.capture import AttentionInputs, attention_paths, capture_attention, part_that_runs
from flatten_dense.analysis.matrices import attention_weights, num_heads
from flatten_dense.analysis.statistics import numerical_rank, row_entropy

MAX_TOKENS = 784
"""Queries or keys of the largest block that is measured, 28 x 28: a head's rank takes 0.1 s then."""

_MAX_HEADS = 32  # of a block; more, as of Hydra attention, are measured in part


class AttentionStatistics(Callback):
    """Logs the entropy and the rank of attention after validations.

    ``attention/entropy/BLOCK`` is in nats, the mean over the rows of the N x M matrices of a block, its heads and the
    images; ``attention/rank/BLOCK`` the mean numerical rank of these matrices, without the convolution. BLOCK is a name
    like ``stages.0.blocks.1``. ``attention/entropy`` and ``attention/rank`` are means over the blocks. Blocks of more
    than ``MAX_TOKENS`` tokens are left out. The first process alone measures, with the weights that validation used.
    With four images of 224 pixels that took 0.5 s of a CPU core for FLatten-DeiT-T, and 5 s for FLatten-Swin-T.

    Args:
        every_n_epochs: of training; validations within the epochs between are passed over.
        num_images: of the first batch.
        blocks: indices in the order of the model, from the end where negative; None for all.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(self, every_n_epochs: int = 1, num_images: int = 4, blocks: Sequence[int] | None = None) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("num_images", num_images)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.every_n_epochs = every_n_epochs
        self.num_images = num_images
        self.blocks = blocks
        self._images: list[Tensor] = []
        self._has_warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look whether there is something to measure.

        Raises:
            ValueError: the model has no attention, there is no such block, or several processes hold parts of it each.
        """
        attention_paths(part_that_runs(pl_module), self.blocks)
        if trainer.strategy.restore_checkpoint_after_setup:
            raise ValueError(
                "AttentionStatistics runs the model in one process, but this strategy (FSDP) deals it out among them: "
                "use --trainer.strategy ddp, or leave the callback out"
            )

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep some images of the first batch."""
        if batch_idx == dataloader_idx == 0 and trainer.is_global_zero and self._is_due(trainer):
            self._images = [image.detach() for image in batch["image"][: self.num_images]]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, and log."""
        images, self._images = self._images, []
        found: dict[str, list[tuple[float, float]]] = {}
        skipped: list[str] = []
        for image in images:  # one by one: their sizes may differ
            for call in capture_attention(pl_module, image[None], self.blocks):
                if max(call.q.shape[1], call.k.shape[1]) > MAX_TOKENS:
                    skipped.append(call.name)
                else:
                    found.setdefault(call.name, []).append(_measure(call))
        self._warn(skipped)
        for index, kind in enumerate(("entropy", "rank")):
            means = {f"/{name}": fmean(values[index] for values in of_images) for name, of_images in found.items()}
            if means:
                means[""] = fmean(means.values())
            for name, value in means.items():
                pl_module.log(f"attention/{kind}{name}", value, rank_zero_only=True)

    def _is_due(self, trainer: Trainer) -> bool:
        is_due = trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return is_due and not trainer.sanity_checking

    def _warn(self, skipped: Sequence[str]) -> None:
        if skipped and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                f"AttentionStatistics leaves out blocks of more than {MAX_TOKENS} tokens: "
                f"{', '.join(dict.fromkeys(skipped))}"
            )


def _measure(call: AttentionInputs) -> tuple[float, float]:
    """Entropy and rank, means over the heads; in float64 on the CPU, which has fast singular values of small matrices.

    Both are NaN where the weights are not finite.
    """
    core = copy.deepcopy(call.core).cpu().double()
    q, k, v = (x.cpu().double() for x in (call.q, call.k, call.v))
    count = num_heads(core)
    heads = range(0, count, math.ceil(count / _MAX_HEADS))
    weights = attention_weights(core, q, k, v, call.q_size, call.kv_size, heads)
    if not torch.isfinite(weights).all():
        return math.nan, math.nan
    return row_entropy(weights).mean().item(), numerical_rank(weights)[0].double().mean().item()
