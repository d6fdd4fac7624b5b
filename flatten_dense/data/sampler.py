"""Which samples a training batch is made of, and what random numbers each of them is made with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler


class SampleKey(NamedTuple):
    """What a sampler asks a :class:`flatten_dense.data.seeded.SeededDataset` for."""

    item: int
    seed: int


class EpochSampler(DistributedSampler[SampleKey]):
    """Shuffles a set anew in every epoch, and deals it out to the processes of a run.

    Order and seeds follow from the run's seed and the epoch alone: neither the number of workers nor that of processes
    matters. Batch t of all processes together holds what one process with a batch of that size has in its batch t.

    It hands out single keys, of which a loader with the same ``batch_size`` makes the batches. All processes get as
    many batches, all of them full, and no sample comes twice in an epoch; a few are left out, other ones each time. Is
    there no full batch for each process, then each gets one smaller batch.

    As a DistributedSampler it is left in its place by Lightning, which also tells it the epoch, with one process too.

    Args:
        num_samples: in the set.
        batch_size: of one process.
        processes: their number.
        rank: of this process.

    Attributes:
        order_follows_batching: whether the order of an epoch depends on the batch size or the number of processes.
        start: epoch and batch that the next iteration begins with, instead of the beginning of the epoch told; what
            lies before is not loaded.

    Raises:
        ValueError: if there are fewer samples than processes.
    """

    order_follows_batching: ClassVar[bool] = False
    start: tuple[int, int] | None = None

    def __init__(self, num_samples: int, batch_size: int, processes: int = 1, rank: int = 0) -> None:
        if num_samples < processes:
            raise ValueError(
                f"--trainer.devices: {processes} processes cannot share {num_samples} training image(s); use at most "
                f"{num_samples}"
            )
        # The seed that Lightning gives its own samplers: it must be the same in all processes.
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        super().__init__(range(num_samples), processes, rank, seed=seed)  # type: ignore[arg-type]
        self.batch_size = min(batch_size, num_samples // processes)
        self.num_batches = num_samples // self.batch_size // processes

    def order(self, generator: torch.Generator) -> Tensor:
        """Indices of the samples in the order of an epoch, of which the first ``len(self) * processes`` are used."""
        return torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[SampleKey]:
        # Lightning makes the first iterator before it tells the epoch.
        epoch, first_batch = self.start or (self.epoch, 0)
        self.start = None
        (seed,) = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed))
        order = self.order(generator)
        seeds = torch.randint(2**63 - 1, (len(order),), generator=generator)
        own = slice(
            first_batch * self.batch_size * self.num_replicas + self.rank,
            len(self) * self.num_replicas,
            self.num_replicas,
        )
        return map(SampleKey, order[own].tolist(), seeds[own].tolist())

    def __len__(self) -> int:
        """Samples of a whole epoch, also while one begins in its midst."""
        return self.num_batches * self.batch_size
