"""A resumed run draws the random numbers that it would have drawn without the interruption."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import distributed

_KEY = "random_states"


class RandomStates(Callback):
    """Keeps the states of torch's, numpy's and Python's generators in checkpoints: those of every process.

    They are restored when a resumed training starts, as late as possible: what was drawn to build the model, say, must
    not count. In a new training each process but the first begins with numbers of its own: all build the same model,
    but should not drop the same paths, or mix their images alike. Training data have seeds of their own
    (:class:`flatten_dense.data.seeded.SeededDataset`).
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the states of all processes, as plain types and tensors."""
        states: list[Any] = [_states(pl_module.device)]
        if trainer.world_size > 1:
            states = states * trainer.world_size
            distributed.all_gather_object(states, states[0])
        checkpoint[_KEY] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state of this process for the start of training."""
        states = checkpoint.get(_KEY, [])
        if len(states) == trainer.world_size:
            self._restored = states[trainer.global_rank]
        elif trainer.state.fn == "fit":
            rank_zero_info(
                f"The checkpoint holds the random states of {len(states)} processes, this run has "
                f"{trainer.world_size}: it goes on with other random numbers than it would have had."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore them, after all that comes before the first batch; or part the processes."""
        if self._restored is not None:
            _restore(self._restored, pl_module.device)
            self._restored = None
        elif trainer.global_rank:
            _reseed(int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.global_rank)


def _reseed(seed: int, rank: int) -> None:
    words = np.random.SeedSequence([seed, rank]).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(words[1])
    random.seed(int(words[2]))


def _states(device: torch.device) -> dict[str, Any]:
    name, words, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (str(name), torch.from_numpy(np.asarray(words, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def _restore(states: dict[str, Any], device: torch.device) -> None:
    # A checkpoint may have been read onto another device.
    torch.set_rng_state(states["torch"].cpu())
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    name, words, *rest = states["numpy"]
    np.random.set_state((name, words.cpu().numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
