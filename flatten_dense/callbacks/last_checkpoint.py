"""The checkpoint that an interrupted run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Saves the state of the training every so many optimiser steps, and where it ends.

    Where a validation follows such a step, it saves again before it, so that a run that is stopped in the validation
    repeats it; and after it, so that the scores are not forgotten.

    Args:
        path: the file, replaced each time.
        every_n_steps: optimiser steps between two savings.
    """

    def __init__(self, path: Path, every_n_steps: int) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self._step = self._saved_step = 0
        self._batch_of_step = self._saved_batch = -1

    def can_save(self, trainer: Trainer) -> bool:
        """Whether the last batch completed a step: between two steps there are gradients, which no checkpoint holds."""
        return self._batch_of_step == trainer.fit_loop.total_batch_idx

    def save(self, trainer: Trainer) -> None:
        """Save now; to be called in every process."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved_step = trainer.global_step
            self._saved_batch = trainer.fit_loop.total_batch_idx

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not save what was just loaded."""
        self._step = self._saved_step = trainer.global_step
        # A validation that is repeated was saved before it; after it, it has to be saved again.
        self._batch_of_step = self._saved_batch = trainer.fit_loop.total_batch_idx

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Save where it is due."""
        step = trainer.global_step
        if step == self._step:
            return
        self._step, self._batch_of_step = step, trainer.fit_loop.total_batch_idx
        # At the end of the loop, Lightning would count an epoch that ends early as a whole one.
        if step % self.every_n_steps == 0 or step == trainer.max_steps:
            self.save(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save again, if this validation follows a step that was saved."""
        if trainer.state.fn == "fit" and self._saved_batch == trainer.fit_loop.total_batch_idx >= 0:
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save again, with what the callbacks have learnt from the validation."""
        self.on_validation_start(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a validation begin anew that is not over, where Lightning would go on without the scores so far."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
        is_over = progress["is_last_batch"] and progress["current"]["completed"] == progress["current"]["ready"]
        if trainer.state.fn == "fit" and trainer.validating and not is_over:
            for counts in progress["total"], progress["current"]:
                # As if it had been stopped in its first batch.
                counts.update(ready=1, started=1, processed=0, completed=0)
        else:
            # Lightning never counts the batch that was stopped as done, and would repeat the next validation too.
            progress["total"].update(ready=progress["total"]["completed"], started=progress["total"]["completed"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step, if it was none of those."""
        if self._saved_step != trainer.global_step:
            self.save(trainer)
