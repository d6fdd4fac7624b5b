"""Lightning's count of batches in a checkpoint, where the resumed run counts otherwise."""

from __future__ import annotations

import math
from typing import Any

from lightning import Trainer

from flatten_dense.data.base import BaseDataModule


def recount_batches(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Let Lightning stand at the batch that the data go on with.

    That is not where it was saved if batch size, processes or accumulation have changed, or if it was saved between two
    optimiser steps, whose gradients no checkpoint holds: those batches come again.

    Args:
        trainer: of the resumed run, with its data set up.
        checkpoint: changed in place, before Lightning restores its loops.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    state = checkpoint.get(type(data).__qualname__, {})
    if not isinstance(data, BaseDataModule) or "samples" not in state:
        return
    loops = checkpoint["loops"]["fit_loop"]
    progress = loops["epoch_loop.batch_progress"]
    current, total, is_at_end = progress["current"], progress["total"], progress["is_last_batch"]
    batching = state["batch_size"], state["processes"]
    if is_at_end:
        stepped, batch = current["processed"], data.batches_per_epoch(data.batch_size, data.processes[0])
        is_same = batch == data.batches_per_epoch(*batching)
    else:
        stepped, batch = state["samples"] // math.prod(batching), data.first_batch(state)
        is_same = batch == current["processed"]
    if is_same:
        return
    without_step = current["processed"] - stepped
    # Amid or after a validation, Lightning has to find it due at this batch too. Elsewhere a checkpoint must look as if
    # it had been saved at the end of the batch, which is not yet counted as completed then.
    is_whole_epoch = is_at_end and trainer.val_check_interval == trainer.limit_train_batches == 1.0
    is_due_again = not without_step and (is_whole_epoch or trainer.check_val_every_n_epoch is None)
    open_batches = 0 if is_due_again and current["completed"] == current["processed"] else 1
    for counts, number in ((current, batch), (total, total["processed"] - without_step)):
        counts.update(ready=number, started=number, processed=number, completed=number - open_batches)
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"] - 1
