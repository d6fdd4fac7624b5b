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


class Preemption(Checkpoint):
    """After a SIGTERM, saves the last checkpoint as soon as an optimiser step is complete, and ends with status 143.

    Of several processes it is enough that one gets the signal; all end after the same step. A single process does not
    wait for the end of a validation: the resumed run repeats it.

    Lightning's own answer to the signal would save nothing, and its message among processes, sent from within the
    signal handler, can come in the midst of another one. What it does about SIGUSR1, by which SLURM announces that it
    will queue the job again, stays as it is.

    Args:
        last: saves, and comes before this in the list of callbacks.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last
        self._is_asked = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handler, which the Trainer removes with its own at the end."""
        self._is_asked = trainer.received_sigterm
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
        """End here, if it is so wished and a step is complete."""
        if self.last.can_save(trainer) and trainer.strategy.reduce_boolean_decision(self._is_asked, all=False):
            self._end(trainer)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """The same within a validation; several processes have different numbers of batches, and cannot agree here."""
        if self._is_asked and trainer.world_size == 1 and self.last.can_save(trainer):
            self._end(trainer)

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self._is_asked = True

    def _end(self, trainer: Trainer) -> None:
        self.last.save(trainer)
        rank_zero_info(
            f"\nSIGTERM: saved after step {trainer.global_step}; go on with `flatten-dense fit --ckpt_path "
            f"{self.last.path}`"
        )
        raise SystemExit(EXIT_STATUS)
