"""The order in which photos in shards are read: each process and worker goes through shards of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from flatten_dense.data.sampler import EpochSampler


class ShardSampler(EpochSampler):
    """Shuffles shards anew in every epoch, deals them out, and mixes the photos of a few at a time.

    The shards in their order make one long row, of which each process takes an equal stretch, and of that each worker:
    so all have as many batches, and only shards at the ends of stretches are read twice.

    The order follows from the run's seed, the epoch, and the numbers of processes and workers. It does not matter which
    worker makes a batch, so a run that goes on with other workers keeps its order as long as ``readers`` stays.

    Args:
        counts: photos in each shard.
        batch_size: of one process.
        processes: their number.
        rank: of this process.
        readers: stretches of a process, as many as it has workers.
        mixed: over how many shards the photos of one are spread, at least 1.

    Raises:
        ValueError: if there are fewer photos than processes.
    """

    order_follows_batching = True

    def __init__(
        self,
        counts: Sequence[int],
        batch_size: int,
        processes: int = 1,
        rank: int = 0,
        readers: int = 1,
        mixed: int = 4,
    ) -> None:
        super().__init__(sum(counts), batch_size, processes, rank)
        self._counts = torch.tensor(counts)
        self._readers = readers
        self._mixed = mixed

    def order(self, generator: torch.Generator) -> Tensor:
        """Indices of the photos; position p is for process p modulo their number."""
        place = torch.randperm(len(self._counts), generator=generator).repeat_interleave(self._counts).double()
        # Shuffled within shards too, so that cuts, and what is left out at the end, fall on other photos each time.
        row = (place + _draw(len(place), generator)).argsort()
        stretches = row[: len(self) * self.num_replicas].view(self.num_replicas, -1)
        return torch.stack([self._mix(stretch, place[stretch], generator) for stretch in stretches], 1).flatten()

    def _mix(self, stretch: Tensor, place: Tensor, generator: torch.Generator) -> Tensor:
        positions, reader = _in_turn(len(stretch), self.batch_size, self._readers)
        # A shard's photos come while this many shards pass: one new shard at a time has to be read.
        when = (place + self._mixed * _draw(len(place), generator)).argsort()
        by_reader = when[reader[when].argsort(stable=True)]
        mixed = torch.empty_like(stretch)
        mixed[positions] = stretch[by_reader]
        return mixed


class ShardOrderSampler(DistributedSampler[int]):
    """Goes once through all photos, of which each process and worker has a part that lies together.

    Args:
        num_samples: photos in all shards.
        batch_size: of a process.
        processes: their number.
        rank: of this process.
        readers: parts of a process, as many as it has workers.
    """

    def __init__(self, num_samples: int, batch_size: int, processes: int, rank: int, readers: int) -> None:
        super().__init__(range(num_samples), processes, rank, shuffle=False)  # type: ignore[arg-type]
        own = torch.arange(num_samples * rank // processes, num_samples * (rank + 1) // processes)
        positions, _ = _in_turn(len(own), batch_size, readers)
        self._order = torch.empty_like(own)
        self._order[positions] = own

    def __iter__(self) -> Iterator[int]:
        return iter(self._order.tolist())

    def __len__(self) -> int:
        return len(self._order)


def _in_turn(length: int, batch_size: int, readers: int) -> tuple[Tensor, Tensor]:
    """Share a row among readers, of which a loader takes batches in turn.

    Returns:
        int64 ``[length]`` each: the position of each sample of the row in what the loader asks for, and its reader.
    """
    reader = torch.arange(length) // batch_size % readers
    positions = reader.argsort(stable=True)
    return positions, reader[positions]


def _draw(number: int, generator: torch.Generator) -> Tensor:
    return torch.rand(number, generator=generator, dtype=torch.float64)
