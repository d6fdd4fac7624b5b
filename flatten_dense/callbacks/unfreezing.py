"""Let the frozen stages of a backbone learn one after the other."""

import math
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch.optim import Optimizer

from flatten_dense.backbones import TimmModel
from flatten_dense.optim import Freezing


class GradualUnfreezing(Callback):
    """Which stages are frozen follows from the optimiser step alone, so that a resumed run goes on as it would have.

    One process computes no gradients for frozen stages. Several have agreed on whose gradients they exchange before the
    first step, so they compute them all and drop those of frozen stages before the step: the weights are the same.

    Args:
        backbone: of the task.
        freezing: when.
    """

    def __init__(self, backbone: TimmModel, freezing: Freezing) -> None:
        self.backbone, self.freezing = backbone, freezing
        self._frozen = freezing.begin(backbone.num_stages)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let everything that will ever learn into the optimiser, and into the exchange of several processes."""
        if stage == "fit":
            self.backbone.freeze(self.freezing.at_end(self.backbone.num_stages))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the steps.

        Raises:
            ValueError: the training has no end.
        """
        self._total = trainer.estimated_stepping_batches
        if self._total == math.inf:
            raise ValueError("freeze.unfreeze_at are shares of the training, whose length is not known: set max_steps")
        self._freeze(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401 - Lightning's signature
        """Unfreeze when the time has come."""
        if self.freezing.at(trainer.global_step, self._total, self.backbone.num_stages) != self._frozen:
            self._freeze(trainer)
            rank_zero_info(
                f"From step {trainer.global_step} of {self._total} on, {self.backbone.num_stages - self._frozen} of "
                f"the backbone's {self.backbone.num_stages} stages learn."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the gradients that several processes had to exchange; there is then no step, and no decay."""
        if self.exchanges_gradients(trainer):
            for parameter in self.backbone.resting_parameters:
                parameter.grad = None

    @staticmethod
    def exchanges_gradients(trainer: Trainer) -> bool:
        """Whether the gradients of parameters that learn later are needed from the first step on."""
        return trainer.world_size > 1

    def _freeze(self, trainer: Trainer) -> None:
        self._frozen = self.freezing.at(trainer.global_step, self._total, self.backbone.num_stages)
        if self.exchanges_gradients(trainer):
            self.backbone.rest(self._frozen)
        else:
            self.backbone.freeze(self._frozen)
