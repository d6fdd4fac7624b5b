"""Training batches of photos that fit together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flatten_dense.data.sampler import EpochSampler


class AspectRatioSampler(EpochSampler):
    """Puts landscape photos, and others, in one batch each, so that little is padded.

    What is over of both kinds comes together. A batch here is that of all processes: they wait for each other, so it
    is as well that all of them have the same kind.

    Args:
        sizes: (height, width) of each photo.
        batch_size: of one process.
        processes: their number.
        rank: of this process.

    Raises:
        ValueError: if there are fewer photos than processes.
    """

    order_follows_batching = True

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, processes: int = 1, rank: int = 0) -> None:
        super().__init__(len(sizes), batch_size, processes, rank)
        self._is_landscape = torch.tensor([width > height for height, width in sizes])

    def order(self, generator: torch.Generator) -> Tensor:
        """Indices in batches of one kind each, and in random order all the same."""
        together = self.batch_size * self.num_replicas
        order = super().order(generator)
        is_landscape = self._is_landscape[order]
        groups = [order[is_landscape], order[~is_landscape]]
        full = [len(group) // together * together for group in groups]
        alike = torch.cat([group[:end] for group, end in zip(groups, full, strict=True)])
        rest = torch.cat([group[end:] for group, end in zip(groups, full, strict=True)])
        rest = rest[torch.randperm(len(rest), generator=generator)]
        batches = torch.cat([alike, rest])[: self.num_batches * together].view(-1, together)
        return batches[torch.randperm(len(batches), generator=generator)].flatten()
