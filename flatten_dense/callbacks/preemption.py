"""A run that a cluster takes its machine away from saves itself before it ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from flatten_dense.callbacks.last_checkpoint import LastCheckpoint

EXIT_STATUS = 128 + signal.SIGTERM
STEPS_BETWEEN_TALKS = 10
"""Optimiser steps after which several processes ask one another for a signal: a GPU has to wait for the answer."""


class Preemption(Checkpoint):
    """After a SIGTERM, saves the last checkpoint as soon as an optimiser step is complete, and ends with status 143.

    Of several processes it is enough that one gets the signal; all end after the same step, at most
    ``STEPS_BETWEEN_TALKS`` later. A single process does not wait for the end of a validation: the resumed run repeats
    it.

    Lightning's own answer to the signal would save nothing, and its message among processes, sent from within the
    signal handler, can come in the midst of another one. What it does about SIGUSR1, by which SLURM announces that it
    will queue the job again, stays as it is.

    Args:
        last: saves, and comes before this in the list of callbacks.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last
        self._is_asked = self._is_saved = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handler, which the Trainer removes with its own at the end."""
        self._is_asked, self._is_saved = trainer.received_sigterm, False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Save here, if it is so wished and a step is complete; what was logged of the step is written after this."""
        if trainer.world_size == 1 or trainer.global_step % STEPS_BETWEEN_TALKS == 0:
            self._save_if_asked(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's signature
        """End, if the step before was the last one."""
        self._end_if_saved(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same."""
        self._end_if_saved(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same; the last checkpoint knows by now that a validation is due."""
        self._end_if_saved(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and end; several processes have different numbers of batches, and cannot agree here."""
        if self._is_asked and trainer.world_size == 1 and self.last.can_save(trainer):
            self.last.save(trainer)
            self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if it is so wished; the next step is not waited for."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_if_asked(trainer)

    def _save_if_asked(self, trainer: Trainer) -> None:
        if self.last.can_save(trainer) and trainer.strategy.reduce_boolean_decision(self._is_asked, all=False):
            self.last.save(trainer)
            self._is_saved = True

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self._is_asked = True

    def _end_if_saved(self, trainer: Trainer) -> None:
        if self._is_saved:
            self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        rank_zero_info(
            f"\nSIGTERM: saved after step {trainer.global_step}; go on with `flatten-dense fit --ckpt_path "
            f"{self.last.path}`"
        )
        raise SystemExit(EXIT_STATUS)
