"""`fit --dry-run`: run the heaviest batches of a training, write nothing, and say what the training will take."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from flatten_dense.callbacks.dry_run import DryRunMeter, Measurements, Memory
from flatten_dense.data.base import BaseDataModule
from flatten_dense.data.trial import TrialData
from flatten_dense.tasks.base import BaseTask
from flatten_dense.tasks.nonfinite import NonFiniteLossError

_OFTEN_WAITING = 0.2
_KEPT_FREE = 0.1  # share of a GPU's memory; fragments of it cannot be used
_NEVER = 2**31 - 1


def trial_options(scratch: str) -> dict[str, Any]:
    """Options of the Trainer of a dry run: it writes nothing, and validates only at its end.

    Args:
        scratch: a folder that is deleted afterwards, for what writes all the same.
    """
    return {
        "logger": DummyLogger(),  # some callbacks insist on one
        "default_root_dir": scratch,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "fast_dev_run": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "min_steps": None,
        "min_epochs": None,
        "check_val_every_n_epoch": None,
        "val_check_interval": _NEVER,
    }


def dry_run(
    trainer: Trainer, task: BaseTask, data: BaseDataModule, settings: dict[str, Any], ckpt_path: str | None = None
) -> str:
    """Train a few batches, the heaviest of the data among them, and validate its heaviest batch.

    Args:
        trainer: made with :func:`trial_options`.
        task: what is to be trained.
        data: set up for a fit.
        settings: the Trainer's options of the real training, which say how often it validates.
        ckpt_path: checkpoint that the training goes on from.

    Returns:
        A report for the terminal.

    Raises:
        ValueError: a loss is not finite, the heaviest batch does not fit into the device's memory, or the checkpoint is
            at the end of the training.
    """
    trial = TrialData(data)
    meter = DryRunMeter(trial)
    trainer.callbacks.insert(0, meter)  # type: ignore[attr-defined]
    try:
        trainer.fit(task, datamodule=trial, ckpt_path=ckpt_path)
    except NonFiniteLossError as error:  # it names a file that is deleted with the others
        meter.require_finite(error.losses)
    except torch.OutOfMemoryError as error:
        raise ValueError(does_not_fit(data, meter)) from error
    measured = meter.measurements
    if math.isnan(measured.seconds_per_batch):
        raise ValueError(
            f"--dry-run: nothing is left to train at step {trainer.global_step}, where the checkpoint stands; set "
            "--trainer.max_steps or --trainer.max_epochs to more"
        )
    trained = [parameter.numel() for parameter in task.parameters() if parameter.requires_grad]
    frozen = sum(parameter.numel() for parameter in task.parameters()) - sum(trained)
    rows = [
        ("parameters", f"{_count(sum(trained))} trainable, {_count(frozen)} frozen"),
        ("heaviest batch", measured.heaviest),
        ("losses", ", ".join(f"{name} {value:.3g}" for name, value in measured.losses.items()) + ": all finite"),
        *memory_rows(measured.memory, data.batch_size),
        *speed_rows(measured, trainer.accumulate_grad_batches, data.num_workers),
        *time_rows(measured, trainer.accumulate_grad_batches, settings, trial.validation_batches, datetime.now()),
    ]
    lines = [f"  {name:<16} {text}" for name, text in rows]
    return "\n".join(["", "Dry run: a few batches were trained and validated, nothing was written.", "", *lines, ""])


def memory_rows(memory: Memory | None, batch_size: int) -> list[tuple[str, str]]:
    """Peak memory, and on a GPU the batch size that would fit."""
    if memory is None:
        return [("peak memory", "not measured on this device")]
    if memory.available is None:
        grown = _gibibytes(memory.peak - memory.resting)
        return [("peak memory", f"{_gibibytes(memory.peak)} of this process, {grown} of it since the training began")]
    rows = [("peak memory", f"{_gibibytes(memory.peak)} of the {_gibibytes(memory.available)} that this GPU has free")]
    if memory.heaviest is not None:
        largest = largest_batch(batch_size, memory.resting, memory.heaviest, memory.available)
        rows.append(("batch size", f"up to about {largest} would fit (--data.batch_size), {batch_size} was tried"))
    return rows


def largest_batch(batch_size: int, resting: int, peak: int, available: int) -> int:
    """The largest batch size that is expected to fit: memory grows with each image by as much as with those tried.

    Args:
        batch_size: that was tried.
        resting: bytes in use before its step.
        peak: bytes in use during its step.
        available: bytes there are; a tenth of them is kept free.
    """
    per_image = max(1.0, (peak - resting) / batch_size)
    return max(0, math.floor((available * (1 - _KEPT_FREE) - resting) / per_image))


def speed_rows(measured: Measurements, accumulated: int, num_workers: int) -> list[tuple[str, str]]:
    """Steps per second, and the share of time spent waiting for data."""
    rate = 1 / (measured.seconds_per_batch * accumulated)
    of = f", {accumulated} batches each" if accumulated > 1 else ""
    waiting = f"{measured.waiting:.0%} of the time"
    if measured.waiting > _OFTEN_WAITING:
        waiting += f": more processes that load help if there are CPUs for them (--data.num_workers, now {num_workers})"
    return [("speed", f"{rate:.3g} steps per second{of}"), ("waiting for data", waiting)]


def time_rows(
    measured: Measurements, accumulated: int, settings: dict[str, Any], validation_batches: int, now: datetime
) -> list[tuple[str, str]]:
    """Steps, validations, and when the training would end.

    Args:
        measured: by the dry run.
        accumulated: batches of an optimiser step.
        settings: the Trainer's options.
        validation_batches: of each validation.
        now: when the training would begin.
    """
    if math.isinf(measured.total_steps):
        return [("estimated end", "none: neither --trainer.max_steps nor --trainer.max_epochs ends the training")]
    steps = measured.total_steps - measured.first_step
    batches = count_batches(steps, accumulated, measured.batches_per_epoch)
    training = batches * measured.seconds_per_batch
    done = f", {measured.first_step} of them done" if measured.first_step else ""
    rows = [("steps", f"{measured.total_steps:.0f}{done}")]
    validations = count_validations(batches, measured.batches_per_epoch, settings)
    validating = 0.0
    if measured.evaluation_seconds is not None and validations is not None:
        each = validation_batches * measured.evaluation_seconds
        validating = validations * each
        rows.append(("validations", f"{validations} of at most {_duration(each)} ({validation_batches} batches) each"))
    seconds = training + validating
    end = now + timedelta(seconds=seconds)
    rows.append(("estimated end", f"{end:%Y-%m-%d %H:%M}, after {_duration(seconds)}"))
    return rows


def count_batches(steps: float, accumulated: int, batches_per_epoch: float) -> float:
    """Batches that so many optimiser steps take; the last step of an epoch takes what is left.

    Args:
        steps: of the optimiser.
        accumulated: batches of an ordinary step.
        batches_per_epoch: infinite if that is not known.
    """
    if math.isinf(batches_per_epoch):
        return steps * accumulated
    epochs, rest = divmod(steps, math.ceil(batches_per_epoch / accumulated))
    return epochs * batches_per_epoch + rest * accumulated


def count_validations(batches: float, batches_per_epoch: float, settings: dict[str, Any]) -> int | None:
    """How often a training validates; None if that follows the clock.

    Args:
        batches: of the training.
        batches_per_epoch: infinite if that is not known.
        settings: the Trainer's options ``val_check_interval`` and ``check_val_every_n_epoch``.
    """
    interval = settings.get("val_check_interval")
    interval = 1.0 if interval is None else interval
    if not isinstance(interval, int | float):
        return None
    every_n_epochs = settings.get("check_val_every_n_epoch", 1)
    if every_n_epochs is None:
        each = interval if isinstance(interval, int) else interval * batches_per_epoch
        return int(batches // each)
    if math.isinf(batches_per_epoch):
        return None
    per_epoch = batches_per_epoch // (interval if isinstance(interval, int) else max(1, interval * batches_per_epoch))
    return int(math.ceil(batches / batches_per_epoch) // every_n_epochs * per_epoch)


def does_not_fit(data: BaseDataModule, meter: DryRunMeter) -> str:
    """What to do about a batch that does not fit into the memory of the GPU."""
    if meter.validates:
        return (
            f"--dry-run: the heaviest evaluation batch ({data.eval_batch_size} images) does not fit into the memory of "
            "the GPU: lower --data.eval_batch_size or --data.eval_scale; segmentation has --model.inference.mode tiled"
        )
    half = max(1, data.batch_size // 2)
    smaller = f"--data.batch_size {half} with --trainer.accumulate_grad_batches 2, " if data.batch_size > 1 else ""
    return (
        f"--dry-run: the heaviest batch, {meter.measurements.heaviest}, does not fit into the memory of the GPU. What "
        f"makes it fit: {smaller}--trainer.precision bf16-mixed, --model.speed.checkpointing true, smaller images"
    )


def _count(number: int) -> str:
    return f"{number / 1e6:.2f}M" if number >= 10_000 else str(number)


def _gibibytes(number: int) -> str:
    return f"{number / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    parts = [f"{days} d" if days else "", f"{hours} h" if minutes >= 60 else "", f"{minutes % 60} min"]
    return " ".join(filter(None, parts))
