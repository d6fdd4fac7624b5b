"""A resumed training obeys the options of its command line, also where torch and Lightning would take the old ones."""

from __future__ import annotations

import math
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from flatten_dense.callbacks.batch_count import recount_batches

_Groups = list[dict[str, Any]]


class Resumption(Callback):
    """Puts the options of the optimiser in place of those that come back with its state, and names a changed length.

    Where nothing has changed, neither does a bit of the training. A scheduler of another kind than ours, LambdaLR,
    keeps the rates that it comes back with.
    """

    def __init__(self) -> None:
        self._total_steps = math.inf
        self._total_before: float | None = None
        self._saved: dict[str, Any] | None = None
        self._options: _Groups = []
        self._resumes = False

    def state_dict(self) -> dict[str, Any]:
        """The length of training."""
        return {"total_steps": self._total_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the length of the training that is resumed."""
        self._total_before = state_dict["total_steps"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on at the right batch, and with the weights themselves if their average is not wanted any more."""
        if trainer.state.fn != "fit":
            return
        self._resumes = True
        recount_batches(trainer, checkpoint)
        self._saved = checkpoint["optimizer_states"][0]
        is_averaged = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if "current_model_state" in checkpoint and not is_averaged:
            pl_module.load_state_dict(checkpoint["current_model_state"])
            rank_zero_info("The checkpoint holds an average of the weights too, which this run does not go on with.")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the options, before the state of the optimiser comes back, and the length.

        Raises:
            ValueError: the state is of other parameters.
        """
        self._total_steps = trainer.estimated_stepping_batches
        groups = trainer.optimizers[0].param_groups
        self._options = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        if self._saved is not None:
            _require_same_parameters(self._saved, groups)
            self._saved = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the options in place, and say what has become of the length."""
        if not self._resumes:
            return
        groups = trainer.optimizers[0].param_groups
        old_rate = groups[0]["lr"]
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        kept = set() if all(isinstance(scheduler, LambdaLR) for scheduler in schedulers) else {"lr", "initial_lr"}
        for group, options in zip(groups, self._options, strict=True):
            group.update({name: value for name, value in options.items() if name not in kept})
        for scheduler in schedulers:
            if isinstance(scheduler, LambdaLR):
                _catch_up(scheduler, trainer.global_step)
        if self._total_before not in (None, self._total_steps):
            _say(trainer.global_step, self._total_before, self._total_steps, old_rate, groups[0]["lr"])
        self._resumes = False


def _catch_up(scheduler: LambdaLR, step: int) -> None:
    """Let a schedule be as if it had been in force from the first step on."""
    scheduler.last_epoch = step
    scheduler.base_lrs = [group["initial_lr"] for group in scheduler.optimizer.param_groups]
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def _require_same_parameters(saved: dict[str, Any], groups: _Groups) -> None:
    theirs, ours = ([len(group["params"]) for group in some] for some in (saved["param_groups"], groups))
    names = [name for group in saved["param_groups"] for name in group["params"]]
    parameters = [parameter for group in groups for parameter in group["params"]]
    if theirs != ours or any(
        not _fits(saved["state"].get(name, {}), parameter) for name, parameter in zip(names, parameters, strict=True)
    ):
        raise ValueError(
            f"--ckpt_path: the optimiser of the checkpoint has groups of {theirs} parameters, that of this run {ours}. "
            "Which parameters learn, decay, or have a rate of their own (--model.groups, --model.freeze) cannot change "
            "within a training: take back the change, or start a new fit from the weights alone, --model.weights FILE"
        )


def _fits(state: dict[str, Any], parameter: Tensor) -> bool:
    """Whether moments are those of a parameter; step counters are scalars."""
    return all(value.shape == parameter.shape for value in state.values() if isinstance(value, Tensor) and value.ndim)


def _say(step: int, before: float, now: float, old_rate: float, rate: float) -> None:
    was, is_now = ("without end" if steps == math.inf else f"{steps:,} steps" for steps in (before, now))
    change = f"stays {rate:.4g}" if rate == old_rate else f"is {rate:.4g} from here on, was {old_rate:.4g}"
    rank_zero_info(
        f"The length of training is now {is_now}, was {was}; {step:,} are done. The schedule of the learning rate is "
        f"that of the new length: the rate {change}."
    )
