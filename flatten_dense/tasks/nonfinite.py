"""What becomes of a step whose loss is not finite: a message, and a file that replays it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

REPLAY_KEY = "replay"


class NonFiniteLossError(ValueError):
    """A loss is infinite or no number; the message names the images and the file that holds the batch.

    Args:
        message: as above.
        losses: of the step, by name.
    """

    def __init__(self, message: str, losses: Mapping[str, float]) -> None:
        super().__init__(message)
        self.losses = losses


def require_finite(
    task: LightningModule, losses: Mapping[str, Tensor], batch: dict[str, Any], random_state: Tensor
) -> None:
    """Stop a training whose loss is not finite, with all that is needed to see why.

    The file `nonfinite_step_N_rank_R.ckpt` lies in the run's directory: a checkpoint of the weights that the step was
    taken with, which also holds the batch and the state of the CPU's random numbers; `tools/replay_batch.py` takes the
    step again.

    Args:
        task: which has computed the losses.
        losses: by name.
        batch: with ``image_id``.
        random_state: of torch on the CPU, before the losses were computed.

    Raises:
        NonFiniteLossError: one of them is not finite.
    """
    # One look for all of them: a GPU is waited for at each.
    if bool(torch.stack([value.detach() for value in losses.values()]).isfinite().all()):
        return
    wrong = [name for name, value in losses.items() if not bool(value.isfinite())]
    plain = {name: float(value.detach()) for name, value in losses.items()}
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    checkpoint[REPLAY_KEY] = {
        "batch": batch,
        "random_state": random_state,
        "step": task.global_step,
        "precision": str(task.trainer.precision),
        "losses": plain,
    }
    directory = Path(task.trainer.default_root_dir)
    path = directory / f"nonfinite_step_{task.global_step}_rank_{task.global_rank}.ckpt"
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    values = ", ".join(f"{name} {plain[name]}" for name in wrong)
    raise NonFiniteLossError(
        f"step {task.global_step}: {values}, for images {', '.join(map(str, batch['image_id']))}. The weights and the "
        f"batch are in {path}; `python tools/replay_batch.py {path}` takes the step again and says where the first "
        "value goes wrong. A lower learning rate, gradient clipping (--trainer.gradient_clip_val) or "
        "--trainer.precision bf16-mixed often help",
        plain,
    )
