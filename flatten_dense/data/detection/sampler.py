"""Training batches of photos that fit together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DistributedSampler


class AspectRatioSampler(DistributedSampler[int]):
    """Puts landscape photos, and others, in one batch each, so that little is padded; shuffled anew in every epoch.

    It hands out single indices, of which a loader with the same ``batch_size`` makes the batches. What is over of both
    kinds comes together. All processes get as many batches, all of them full, and no photo comes twice in an epoch; a
    few are left out, other ones each time. Is there no full batch for each process, then each gets one smaller batch.

    As a DistributedSampler it is left in its place by Lightning, which also tells it the epoch, with one process too.

    Args:
        sizes: (height, width) of each photo.
        batch_size: of one process.
        processes: their number.
        rank: of this process.

    Raises:
        ValueError: if there are fewer photos than processes.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, processes: int = 1, rank: int = 0) -> None:
        if len(sizes) < processes:
            raise ValueError(
                f"--trainer.devices: {processes} processes cannot share {len(sizes)} training image(s); use at most "
                f"{len(sizes)}"
            )
        # The seed that Lightning gives its own samplers: it must be the same in all processes.
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        super().__init__(range(len(sizes)), processes, rank, seed=seed)  # type: ignore[arg-type]
        self.batch_size = min(batch_size, len(sizes) // processes)
        self.num_batches = len(sizes) // self.batch_size // processes
        self._is_landscape = torch.tensor([width > height for height, width in sizes])

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self._is_landscape), generator=generator)
        is_landscape = self._is_landscape[order]
        groups = [order[is_landscape], order[~is_landscape]]
        full = [len(group) // self.batch_size * self.batch_size for group in groups]
        alike = torch.cat([group[:end] for group, end in zip(groups, full, strict=True)])
        rest = torch.cat([group[end:] for group, end in zip(groups, full, strict=True)])
        rest = rest[torch.randperm(len(rest), generator=generator)]
        together = torch.cat([alike, rest])
        batches = together[: len(together) // self.batch_size * self.batch_size].view(-1, self.batch_size)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        own = batches[self.rank : self.num_batches * self.num_replicas : self.num_replicas]
        return iter(own.flatten().tolist())

    def __len__(self) -> int:
        return self.num_batches * self.batch_size
