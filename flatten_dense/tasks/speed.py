"""What makes training steps faster, or smaller in memory, without changing what is learnt."""

from dataclasses import dataclass

import torch
from torch import nn

from flatten_dense.backbones import TimmModel


@dataclass(frozen=True)
class Speed:
    """Options of a training's speed; weights and their names stay the same, so checkpoints do not depend on them.

    A fused optimiser, accumulation and precision are options of others: ``--model.optimizer.fused true``,
    ``--trainer.accumulate_grad_batches 4``, ``--trainer.precision bf16-mixed``.

    Args:
        compile: compile the backbone for training by torch.compile, which takes minutes at the first step. Evaluation
            images, and padded batches whose images are kept apart, come in ever new sizes and are not compiled.
        channels_last: keep images and the weights of convolutions in channels-last order.
        checkpointing: compute the activations of the backbone's blocks again in the backward pass instead of keeping
            them: less memory, about a third more time. Running statistics of a BatchNorm in it move twice in a step.
    """

    compile: bool = False
    channels_last: bool = False
    checkpointing: bool = False

    def apply(self, task: nn.Module, backbone: TimmModel) -> None:
        """Set a task up.

        Args:
            task: the backbone and what is around it.
            backbone: of the task.

        Raises:
            ValueError: the backbone cannot do one of them.
        """
        if self.channels_last:
            task.to(memory_format=torch.channels_last)
            backbone.memory_format = torch.channels_last
        if self.checkpointing:
            backbone.keep_fewer_activations()
        if self.compile:
            backbone.compile_training()
