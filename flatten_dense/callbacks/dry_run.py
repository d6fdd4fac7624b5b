"""What a dry run measures of a training: time, waiting for data, memory, and whether the losses are finite."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from flatten_dense.data.trial import TrialData

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_LEAST_WARM_UP = 3  # what is compiled or tried out at the first batches of several sizes
_MEASURED = 10


class NonFiniteTrialError(ValueError):
    """A loss of a dry run is infinite or no number."""


@dataclass
class Memory:
    """Bytes of a device, or of this process on the CPU.

    Attributes:
        peak: the most that was in use at once.
        resting: in use before the heaviest step, when weights, gradients and the optimiser's state are there already;
            on the CPU the most that was in use before the training.
        heaviest: the most in use during that step; None where it is not measured.
        available: how much this process could have; None where it is not measured.
    """

    peak: int
    resting: int
    heaviest: int | None = None
    available: int | None = None


@dataclass
class Measurements:
    """What a dry run has measured.

    Attributes:
        heaviest: the images and objects of the heaviest training batch, in words.
        losses: of the last batch, by name; all losses of all batches were finite.
        seconds_per_batch: of ordinary training batches, waiting included.
        waiting: share of that time in which a batch was waited for, 0..1.
        evaluation_seconds: of the heaviest evaluation batch; None if there is no validation.
        memory: peaks; None where they are not known.
        first_step: optimiser steps that were done before, by the run that is resumed.
        total_steps: optimiser steps of the whole training; infinite if nothing limits it.
        batches_per_epoch: infinite if that is not known.
    """

    heaviest: str = ""
    losses: dict[str, float] = field(default_factory=dict)
    seconds_per_batch: float = math.nan
    waiting: float = 0.0
    evaluation_seconds: float | None = None
    memory: Memory | None = None
    first_step: int = 0
    total_steps: float = math.inf
    batches_per_epoch: float = math.inf


class DryRunMeter(Callback):
    """Measure a training of a few batches, and end it after them.

    The heaviest batch comes first, so that what does not fit is known at once, and again last, when the optimiser has
    its state. Between them come as many ordinary ones as the loader's workers have ready by themselves, and then those
    that are timed.

    Args:
        data: gives the batches.
        most_seconds: after which the batches end, even if fewer of them were timed.

    Attributes:
        measurements: complete when the Trainer's fit has ended.
        validates: whether the training batches are done and the validation goes on.

    Raises:
        NonFiniteTrialError: from the fit; a loss is not finite.
    """

    def __init__(self, data: TrialData, most_seconds: float = 120.0) -> None:
        self.data = data
        self.measurements = Measurements()
        self.validates = False
        self._most_seconds = most_seconds
        self._ends: list[float] = []  # of each batch
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the length of the training; the plan of the dry run follows from it."""
        own, batches = self.measurements, self.data.batches
        own.first_step, own.total_steps = trainer.global_step, trainer.estimated_stepping_batches
        own.batches_per_epoch = trainer.num_training_batches
        accumulated = trainer.accumulate_grad_batches
        batches_left = (own.total_steps - own.first_step) * accumulated
        self._warm_up = max(_LEAST_WARM_UP, 1 + batches.prefetched)
        # Whole steps, so that each timed batch has its share of the optimiser's time.
        timed = math.ceil(_MEASURED / accumulated) * accumulated
        batches.last = int(min(self._warm_up + timed + 1, batches_left - 1))
        own.memory = _memory(pl_module.device)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Note what is in use before the heaviest step."""
        number = len(self._ends)
        if self.data.batches.is_heaviest(number):
            self.measurements.heaviest = describe_batch(batch)
            if pl_module.device.type == "cuda" and self.measurements.memory is not None:
                self.measurements.memory.resting = torch.cuda.memory_allocated(pl_module.device)
                torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._started = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
    ) -> None:
        """Take the time, look at the losses, and end the training after the last batch."""
        _wait_for(pl_module.device)
        ended = time.perf_counter()
        own, batches = self.measurements, self.data.batches
        own.losses = _losses(outputs, trainer.callback_metrics)
        self.require_finite(own.losses)
        number = len(self._ends)
        self._ends.append(ended)
        if batches.is_heaviest(number) and own.memory is not None and pl_module.device.type == "cuda":
            own.memory.heaviest = torch.cuda.max_memory_allocated(pl_module.device)
            own.memory.peak = max(own.memory.peak, own.memory.heaviest)
        assert batches.last is not None
        if number >= batches.last or trainer.global_step >= own.total_steps:
            self._take_speed(number)
            trainer.should_stop = True
        elif number and self._ends[-1] - self._ends[0] > self._most_seconds:
            batches.last = min(batches.last, len(batches.waits))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the time."""
        self.validates = True
        _wait_for(pl_module.device)
        self._started = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the time; of several it is the last that counts."""
        _wait_for(pl_module.device)
        self.measurements.evaluation_seconds = time.perf_counter() - self._started

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the peak of memory, validation included."""
        memory, now = self.measurements.memory, _memory(pl_module.device)
        if memory is not None and now is not None:
            memory.peak = max(memory.peak, now.peak)

    def require_finite(self, losses: Mapping[str, float]) -> None:
        """Refuse losses, by name, of the batch after those that are done.

        Raises:
            NonFiniteTrialError: one is not finite.
        """
        wrong = ", ".join(f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value))
        if wrong:
            number = len(self._ends)
            which = " (the heaviest one)" * self.data.batches.is_heaviest(number)
            raise NonFiniteTrialError(
                f"--dry-run: {wrong} at training batch {number + 1}{which}. A lower learning rate "
                "(--model.optimizer.lr), a warm-up (--model.schedule.warmup_steps), gradient clipping "
                "(--trainer.gradient_clip_val 1.0) or another precision (--trainer.precision bf16-mixed or 32-true) "
                "often help; `flatten-dense check-data` finds faults in the data"
            )

    def _take_speed(self, last: int) -> None:
        """Of the timed batches; of fewer if there are fewer, in a training of one or two of the heaviest itself."""
        end = last - 1
        start = min(self._warm_up, end - 1)
        if start < 0:
            self.measurements.seconds_per_batch = self._ends[-1] - self._started
            return
        seconds = self._ends[end] - self._ends[start]
        self.measurements.seconds_per_batch = seconds / (end - start)
        self.measurements.waiting = min(1.0, sum(self.data.batches.waits[start + 1 : end + 1]) / seconds)


def describe_batch(batch: Mapping[str, Any]) -> str:
    """Images and objects of a training batch, in words."""
    images = batch["image"]
    sizes = [tuple(image.shape[-2:]) for image in images]
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    padded = " once padded" if len(set(sizes)) > 1 else ""
    text = f"{len(images)} images of {height} x {width} pixels{padded}"
    targets = batch.get("target")
    if isinstance(targets, list):
        text += f", {sum(len(target['labels']) for target in targets)} objects"
    return text


def _losses(outputs: Any, logged: Mapping[str, Tensor]) -> dict[str, float]:  # noqa: ANN401 - what a step returns
    losses = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    own = {name.removeprefix("train/"): value for name, value in logged.items() if name.startswith("train/")}
    return {name: float(value) for name, value in {"loss": losses["loss"], **own}.items() if name != "lr"}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> Memory | None:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        allocated = torch.cuda.memory_allocated(device)
        peak = torch.cuda.max_memory_allocated(device)
        return Memory(peak, allocated, available=free + torch.cuda.memory_reserved(device))
    if device.type != "cpu" or resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Memory(peak, peak)
