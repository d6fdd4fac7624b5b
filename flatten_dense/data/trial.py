"""The loaders of a dry run: the heaviest batch first and last, ordinary ones between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from flatten_dense.data.base import BaseDataModule

Batch: TypeAlias = dict[str, Any]


class TrialBatches:
    """An endless stream of a loader's batches, the first of them and the one called ``last`` replaced by the heaviest.

    It is as long as the loader, so that schedules and epochs are those of the real training, and goes on where it was
    when an epoch ends.

    Args:
        loader: gives the ordinary batches.
        heaviest: makes the heaviest batch, anew each time, since a step may change what it is given.

    Attributes:
        loader: as given.
        last: number of the batch that is the heaviest again; None while that is not decided.
        waits: seconds that each batch so far was waited for; 0 for the heaviest.
    """

    def __init__(self, loader: DataLoader[Batch], heaviest: Callable[[], Batch]) -> None:
        self.loader = loader
        self.last: int | None = None
        self.waits: list[float] = []
        self._heaviest = heaviest
        self._ordinary: Iterator[Batch] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def batch_size(self) -> int | None:
        """Of the loader, by which a task may scale its learning rate."""
        return self.loader.batch_size or getattr(self.loader.batch_sampler, "batch_size", None)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._ordinary is None:
            self._ordinary = iter(self.loader)  # workers start while the first batch is made and trained on
        if self.is_heaviest(len(self.waits)):
            self.waits.append(0.0)
            return self._heaviest()
        started = time.perf_counter()
        try:
            batch: Batch = next(self._ordinary)
        except StopIteration:
            self._ordinary = iter(self.loader)
            batch = next(self._ordinary)
        self.waits.append(time.perf_counter() - started)
        return batch

    def is_heaviest(self, number: int) -> bool:
        """Whether the batch of this number is the heaviest one."""
        return number in (0, self.last)

    @property
    def prefetched(self) -> int:
        """Batches that the loader's workers have ready before the first is asked for."""
        return self.loader.num_workers * (self.loader.prefetch_factor or 0)


class _HeaviestEvaluation:
    """The heaviest evaluation batch twice: the first time is spent on what a model does only once.

    Args:
        data: makes the batch.

    Attributes:
        dataset: that the batch is of, where a task looks for its truth.
    """

    def __init__(self, data: BaseDataModule) -> None:
        self.dataset = data.datasets["val"]
        self._data = data

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Batch]:
        return (self._data.heaviest_batch("val") for _ in range(len(self)))


class TrialData(LightningDataModule):
    """The data of a dry run.

    Args:
        data: of the training that is tried, set up for a fit.

    Attributes:
        batches: for training; there once the Trainer has asked for them.
        validation_batches: of a whole validation of the training that is tried; likewise.
    """

    batches: TrialBatches
    validation_batches: int

    def __init__(self, data: BaseDataModule) -> None:
        super().__init__()
        self.data = data

    def setup(self, stage: str) -> None:
        """Let the data know what the Trainer says of processes."""
        self.data.trainer = self.trainer

    def train_dataloader(self) -> TrialBatches:
        """The heaviest batch, then ordinary ones."""
        self.batches = TrialBatches(self.data.train_dataloader(), lambda: self.data.heaviest_batch("train"))
        return self.batches

    def val_dataloader(self) -> _HeaviestEvaluation:
        """The heaviest batch of the evaluation."""
        self.validation_batches = len(self.data.val_dataloader())
        return _HeaviestEvaluation(self.data)
