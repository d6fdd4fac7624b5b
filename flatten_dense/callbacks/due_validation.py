"""A run that was stopped in the validation after its very last step still gets it."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class DueValidation(Callback):
    """Lets a run that is resumed at ``max_steps`` begin, if its checkpoint was saved amid a validation.

    Lightning repeats such a validation, but at ``max_steps`` it ends before that. So one step more is allowed until the
    validation starts; none is taken. Callbacks that ask for the length of training in ``on_fit_start`` come before
    this one.
    """

    def __init__(self) -> None:
        self._is_due = self._is_raised = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """See whether a validation is missing."""
        seen = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["total"]
        is_amid = seen["processed"] < seen["started"]
        self._is_due = trainer.state.fn == "fit" and is_amid and checkpoint["global_step"] == trainer.max_steps
        if trainer.strategy.restore_checkpoint_after_setup:  # on_fit_start has been
            self.on_fit_start(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Allow a step, not before the schedule knows the length of training."""
        if self._is_due:
            trainer.fit_loop.epoch_loop.max_steps += 1
            self._is_due, self._is_raised = False, True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it back, if the options are such that Lightning would train instead of validating."""
        loop = trainer.fit_loop
        if self._is_raised and not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):  # type: ignore[arg-type]
            self.on_validation_start(trainer, pl_module)
            rank_zero_info(
                f"The validation after step {trainer.global_step} was stopped, and these options have none there: "
                f"`flatten-dense validate --ckpt_path {trainer.ckpt_path}` gives the scores."
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it back."""
        if self._is_raised:
            trainer.fit_loop.epoch_loop.max_steps -= 1
            self._is_raised = False
