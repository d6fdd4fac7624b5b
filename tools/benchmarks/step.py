"""A training step of the toolkit beside that of a bare PyTorch loop."""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import machine
from flatten_dense.commands.trainer import TrainerCLI
from flatten_dense.data.base import BaseDataModule, collate_lists
from flatten_dense.structures import ClassLabels, DetectionLabels, InputFormat, Labels, LabelSpace, default_palette

BLOCK = 10  # steps between two rows of metrics.csv in our recipes
WARM_UP = 2  # blocks
_CLASSES = 3
_DISTINCT = 16  # samples

_NECK = {"class_path": "flatten_dense.necks.FPN", "init_args": {"out_channels": 64}}
MODELS: dict[str, dict[str, Any]] = {
    "classification": {"class_path": "ClassificationTask", "init_args": {"mixing": None}},
    "segmentation": {
        "class_path": "SemanticSegmentationTask",
        "init_args": {"neck": _NECK, "head": {"class_path": "SemanticFPNHead", "init_args": {"channels": 64}}},
    },
    "detection": {
        "class_path": "DetectionTask",
        "init_args": {"neck": _NECK, "head": {"class_path": "RetinaNetHead", "init_args": {"channels": 64}}},
    },
}


class Samples(Dataset[dict[str, Any]]):
    """Noise with random truth, in memory.

    Args:
        task: a key of MODELS.
        size: of the square images.
        length: how many samples there are, a few of them again and again.
    """

    def __init__(self, task: str, size: int, length: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.length = length
        self.samples = [self._make(task, size, generator) for _ in range(_DISTINCT)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples[index % _DISTINCT]

    @staticmethod
    def _make(task: str, size: int, generator: torch.Generator) -> dict[str, Any]:
        sample: dict[str, Any] = {"image": torch.randn(3, size, size, generator=generator), "path": "in memory"}
        if task == "classification":
            return {**sample, "label": int(torch.randint(_CLASSES, (), generator=generator))}
        if task == "segmentation":
            return {**sample, "mask": torch.randint(_CLASSES, (size, size), generator=generator)}
        corners = torch.rand(5, 2, generator=generator) * size / 2
        target = {
            "boxes": torch.cat([corners, corners + size / 4], dim=1),
            "labels": torch.randint(_CLASSES, (5,), generator=generator),
        }
        return {**sample, "target": target, "image_id": 0, "size": (size, size)}


class AlternatingLoader(DataLoader[dict[str, Any]]):
    """Takes a step of another training before it gives each batch, and notes how long both trainings' steps last.

    A step ends when the next batch is asked for, so that of the last one is not known.

    Attributes:
        bare_step: the step of the other training, given a batch of the same kind.
        seconds: wall and CPU seconds of each of its steps, and of each step of who takes the batches.
    """

    bare_step: Callable[[dict[str, Any]], None]

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - a DataLoader's
        super().__init__(*args, **options)
        self.seconds: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        own, others = super().__iter__(), super().__iter__()
        for _ in range(len(self)):
            started = _clocks()
            self.bare_step(next(others))
            between = _clocks()
            yield next(own)
            self.seconds["ours"].append(_since(between))
            self.seconds["bare"].append(_since(started, between))


class MemoryData(BaseDataModule):
    """A task's samples in memory.

    Args:
        task: a key of MODELS.
        size: of the square images.
        steps: of the training.
        batch_size: of a step.
        labels: of a trained model; not used.
    """

    def __init__(self, task: str, size: int, steps: int, batch_size: int, labels: None = None) -> None:
        super().__init__(InputFormat(), batch_size, 1, 0)
        self.task = task
        self.size = size
        self.steps = steps

    def make_labels(self) -> Labels:
        """Three classes."""
        names, palette = tuple("abc"), default_palette(_CLASSES)
        if self.task == "classification":
            return ClassLabels(names)
        return DetectionLabels(names, palette, (1, 2, 3)) if self.task == "detection" else LabelSpace(names, palette)

    def make_dataset(self, split: str) -> Samples:
        """The same for both splits."""
        return Samples(self.task, self.size, self.steps * self.batch_size)

    def train_dataloader(self) -> AlternatingLoader:
        """Batches with the other training's steps between them."""
        collate = collate_lists if self.task == "detection" else self.collate_train
        loader = AlternatingLoader(self.datasets["train"], self.batch_size, shuffle=True, collate_fn=collate)
        loader.bare_step = self.bare_step
        self.loader = loader
        return loader


class ClassificationData(MemoryData):
    """For the task of this name."""

    labels_type = ClassLabels


class SegmentationData(MemoryData):
    """For the task of this name."""

    labels_type = LabelSpace


class DetectionData(MemoryData):
    """For the task of this name."""

    labels_type = DetectionLabels


class _BesideBare(TrainerCLI):
    """`fit` as it is, with a bare loop that trains a copy of the model between its steps."""

    def fit(self, **options: Any) -> None:  # noqa: ANN401 - Lightning's
        self.datamodule.bare_step = _bare_loop(copy.deepcopy(self.model), self.datamodule)
        super().fit(**options)


def _bare_loop(model: Any, data: MemoryData) -> Callable[[dict[str, Any]], None]:  # noqa: ANN401 - any of our tasks
    """A step of a loop as one would write it in a script."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / data.steps)
    model.train()

    def classification_loss(batch: dict[str, Any]) -> Tensor:
        return F.cross_entropy(model(batch["image"]), batch["label"], label_smoothing=0.1)

    def segmentation_loss(batch: dict[str, Any]) -> Tensor:
        return model.loss(model(batch["image"]), batch["mask"], 255)

    def detection_loss(batch: dict[str, Any]) -> Tensor:
        return model.losses(batch["image"], batch["target"])["loss"]

    losses = {
        "classification": classification_loss,
        "segmentation": segmentation_loss,
        "detection": detection_loss,
    }
    loss_of = losses[data.task]

    def step(batch: dict[str, Any]) -> None:
        loss_of(batch).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()  # here, so that the other training finds as much memory free as this one

    return step


def run(task: str, size: int, batch_size: int, steps: int, backbone: str) -> dict[str, list[tuple[float, float]]]:
    """Train so many steps; the wall and CPU seconds of each step of both trainings."""
    recipe: dict[str, Any] = {
        "trainer": {
            "accelerator": "cpu",
            "max_steps": steps,
            "max_epochs": -1,
            "limit_val_batches": 0,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": BLOCK,
        },
        "model": copy.deepcopy(MODELS[task]),
        "data": {
            "class_path": f"{__name__}.{task.capitalize()}Data",
            "init_args": {"task": task, "size": size, "steps": steps, "batch_size": batch_size},
        },
    }
    recipe["model"]["init_args"] |= {
        "backbone": {"name": backbone},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-4}},
        "schedule": {"power": 1.0},
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "step.yaml"
        path.write_text(json.dumps(recipe))
        cli = _BesideBare("fit", ["-c", str(path), "--runs", folder])
    return cli.datamodule.loader.seconds


def step(options: argparse.Namespace) -> None:
    """A training step of `fit` beside a bare loop's: same model, data in memory, optimiser and schedule."""
    seconds = run(options.task, options.size, options.batch_size, options.steps, options.backbone)
    blocks = (options.steps - 1) // BLOCK - WARM_UP
    print(
        f"{machine(torch.get_num_threads())}; {options.task}, {options.backbone}, {options.batch_size} image(s) of "
        f"{options.size} x {options.size}; the steps of both alternate. Medians of {blocks} means "
        f"of {BLOCK} steps, one of which `fit` logs; of the difference, too.\n"
    )
    print("| clock | bare loop, ms | `fit`, ms | difference, ms | difference |\n|---|---|---|---|---|")
    for number, clock in enumerate(("wall", "CPU")):
        bare, ours = (np.array([pair[number] for pair in seconds[name]]) for name in ("bare", "ours"))
        of_bare, of_ours, more = map(block_median, (bare, ours, ours - bare))
        row = f"{1e3 * of_bare:.2f} | {1e3 * of_ours:.2f} | {1e3 * more:+.2f} | {more / of_bare:+.1%}"
        print(f"| {clock} | {row} |")


def block_median(seconds: np.ndarray) -> float:
    """Median of the means of blocks of steps, the first blocks left out: what happens once in a block counts too."""
    blocks = seconds[: len(seconds) // BLOCK * BLOCK].reshape(-1, BLOCK)
    return float(np.median(blocks[WARM_UP:].mean(axis=1)))


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float], ended: tuple[float, float] | None = None) -> tuple[float, float]:
    ended = ended or _clocks()
    return ended[0] - started[0], ended[1] - started[1]
