"""Moving averages of the weights."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

_Tensors = list[Tensor] | tuple[Tensor, ...]


class EMA(EMAWeightAveraging):
    """Keeps an exponential moving average of the weights, which validation uses and checkpoints offer.

    After every optimiser step ``average = decay * average + (1 - decay) * weights``, from the weights that training
    starts with. Buffers of whole numbers or of truth values, such as indices and counters, are copied.

    ``state_dict`` of a checkpoint holds the average, so that is what `test` and `predict` use; ``current_model_state``
    holds what a resumed training goes on with. In the list of callbacks it comes after those that look at the weights
    once a validation is over; the CLI sees to that.

    Args:
        decay: of the average, 0..1.

    Raises:
        ValueError: if ``decay`` is out of its range.
    """

    def __init__(self, decay: float = 0.9998) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1, got {decay}")
        super().__init__(decay=decay)
        self.decay = decay
        self._is_swapped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make room for the average.

        Raises:
            ValueError: if the weights are dealt out among processes.
        """
        if stage == "fit":
            if trainer.strategy.restore_checkpoint_after_setup:
                raise ValueError(
                    "EMA averages whole weights, but this strategy (FSDP) deals them out among the processes: use "
                    "--trainer.strategy ddp, or train without EMA"
                )
            self._is_swapped = False
            self._average_model = AveragedModel(pl_module, multi_avg_fn=self._average, use_buffers=True)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the weights to their device, all but the counter, which is asked after every step."""
        assert self._average_model is not None
        self._average_model.module.to(pl_module.device)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are now."""
        self._begin(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are now."""
        self._begin(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the place of the weights."""
        self._swap(pl_module, average_in_place=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back, after other callbacks have seen what was evaluated."""
        self._swap(pl_module, average_in_place=False)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: Lightning's own class swaps here, and back before other callbacks are done with the weights."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the place of the weights, but keep these for the last checkpoint."""
        self._swap(pl_module, average_in_place=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average, and beside it what training goes on with."""
        if self._average_model is None:
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:
            names = "state_dict", "current_model_state"
            checkpoint.update(zip(names, [checkpoint[name] for name in reversed(names)], strict=True))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore both; from a checkpoint without an average, begin one with its weights."""
        if self._average_model is None:
            return
        if "averaging_state" not in checkpoint:
            rank_zero_info("The checkpoint holds no average of the weights: EMA begins with its weights.")
            return
        average = {f"module.{name}": value for name, value in checkpoint["state_dict"].items()}
        self._average_model.load_state_dict({**average, **checkpoint["averaging_state"]})
        pl_module.load_state_dict(checkpoint["current_model_state"])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the memory."""
        self._average_model = None

    @torch.no_grad()
    def _average(self, averages: _Tensors, weights: _Tensors, num_averaged: Tensor | int) -> None:
        # One call has tensors of one type.
        if averages[0].is_floating_point() or averages[0].is_complex():
            torch._foreach_lerp_(averages, weights, 1 - self.decay)
        else:
            torch._foreach_copy_(averages, weights)

    def _begin(self, pl_module: LightningModule) -> None:
        assert self._average_model is not None
        if self._average_model.n_averaged == 0:
            self._average_model.update_parameters(pl_module)  # the first time it copies

    def _swap(self, pl_module: LightningModule, average_in_place: bool) -> None:
        if self._average_model is not None and self._is_swapped != average_in_place:
            self._swap_models(pl_module)
            self._is_swapped = average_in_place
