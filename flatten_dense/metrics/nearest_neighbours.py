"""Classification by the nearest neighbours of features: what a backbone knows without being trained further."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

_CHUNK = 2**16  # rows of the bank that are compared at a time


def nearest_neighbours(queries: Tensor, bank: Tensor, num: int, chunk: int = _CHUNK) -> tuple[Tensor, Tensor]:
    """Find the most similar rows of a bank, comparing a part of it at a time.

    Args:
        queries: float32 ``[Q, C]``, on any device.
        bank: float32 ``[N, C]``, on the same or another device; each part is brought to that of the queries.
        num: k, at most N.
        chunk: rows of the bank at a time; memory grows with Q times this.

    Returns:
        Products ``[Q, k]``, falling, and row numbers of the bank, int64 ``[Q, k]``, both on the device of the queries.
    """
    best = queries.new_empty(len(queries), 0)
    rows = best.long()
    for start in range(0, len(bank), chunk):
        similarity = queries @ bank[start : start + chunk].to(queries.device).T
        values, places = similarity.topk(min(num, similarity.shape[1]), dim=1)
        best, kept = torch.cat([best, values], 1).topk(min(num, best.shape[1] + values.shape[1]), dim=1)
        rows = torch.cat([rows, places + start], 1).gather(1, kept)
    return best, rows


def neighbour_votes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Let neighbours vote for their classes, each with ``exp(similarity / temperature)``.

    Source: Wu et al., arXiv 1805.01978, section 3.4, as DINO (arXiv 2104.14294) evaluates; votes are divided by that of
    the nearest, which changes no order and cannot overflow.

    Args:
        similarity: ``[Q, k]``, the nearest first.
        labels: int64 ``[Q, k]``, classes of the neighbours.
        num_classes: K.
        temperature: above 0; the smaller, the more the nearest decide.

    Returns:
        float64 ``[Q, K]``; 0 for a class without a neighbour.
    """
    weights = ((similarity - similarity[:, :1]).double() / temperature).exp()
    return weights.new_zeros(len(labels), num_classes).scatter_add_(1, labels, weights)


class NearestNeighbourAccuracy(Metric):
    """Classify features by a bank of features with known classes, and count what is right.

    Args:
        bank: ``[N, C]``, a row per photo; kept where it is, with every row brought to length 1.
        labels: int64 ``[N]``, their classes.
        num_classes: K.
        nums: numbers of neighbours to classify by, each at most N.
        temperature: of the votes.
    """

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(
        self, bank: Tensor, labels: Tensor, num_classes: int, nums: Sequence[int], temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.bank = F.normalize(bank.float(), dim=1)
        self.labels = labels
        self.num_classes = num_classes
        self.nums = tuple(nums)
        self.temperature = temperature
        self.add_state("right", torch.zeros(len(self.nums), 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Tensor, target: Tensor) -> None:
        """Classify photos.

        Args:
            features: ``[Q, C]``.
            target: int64 ``[Q]``, their classes, on the same device.

        Raises:
            ValueError: a feature is not finite.
        """
        if not features.isfinite().all():
            raise ValueError("the model gives features that are not finite: its training has diverged")
        similarity, rows = nearest_neighbours(F.normalize(features.float(), dim=1), self.bank, max(self.nums))
        labels = self.labels[rows.to(self.labels.device)].to(rows.device)
        for index, num in enumerate(self.nums):
            votes = neighbour_votes(similarity[:, :num], labels[:, :num], self.num_classes, self.temperature)
            own = votes.gather(1, target[:, None])
            # Of equal votes the lower class comes first, so that the answer does not depend on a sort.
            lower = torch.arange(self.num_classes, device=votes.device) < target[:, None]
            rank = ((votes > own) | ((votes == own) & lower)).sum(1)
            for column, most in enumerate((1, 5)):
                self.right[index, column] += ((rank < most) & (own[:, 0] > 0)).sum().to(self.right.device)
        self.total += len(target)

    def compute(self) -> dict[int, tuple[float, float]]:
        """For each number of neighbours the fractions of top-1 and of top-5; NaN without photos.

        A class is among the five only if a neighbour is of it: with fewer neighbours than five, or few classes among
        them, top-5 is less than it would be by guessing the rest.
        """
        total = int(self.total)
        shares = [[int(right) / total if total else math.nan for right in row] for row in self.right]
        return {num: (row[0], row[1]) for num, row in zip(self.nums, shares, strict=True)}
