"""Classification by the nearest neighbours of features: what a backbone knows without being trained further."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1024  # queries, and
_CHUNK = 2**16  # rows of the bank, that are compared at a time: 256 MiB of similarities


def nearest_neighbours(queries: Tensor, bank: Tensor, num: int, chunk: int = _CHUNK) -> tuple[Tensor, Tensor]:
    """Find the rows of a bank with the greatest cosine similarity, comparing a part of it at a time.

    Args:
        queries: float32 ``[Q, C]``, on any device.
        bank: float32 ``[N, C]``, on the same or another device; each part is brought to that of the queries.
        num: k, at most N.
        chunk: rows of the bank at a time; memory grows with Q times this.

    Returns:
        Similarities ``[Q, k]``, falling, and row numbers of the bank, int64 ``[Q, k]``, on the device of the queries.
    """
    queries = F.normalize(queries, dim=1)
    best = queries.new_empty(len(queries), 0)
    rows = best.long()
    for start in range(0, len(bank), chunk):
        similarity = queries @ F.normalize(bank[start : start + chunk].to(queries.device), dim=1).T
        values, places = similarity.topk(min(num, similarity.shape[1]), dim=1)
        best, rows = torch.cat([best, values], 1), torch.cat([rows, places + start], 1)
        best, kept = best.topk(min(num, best.shape[1]), dim=1)
        rows = rows.gather(1, kept)
    return best, rows


def neighbour_votes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Let neighbours vote for their classes, each with ``exp(similarity / temperature)``.

    Source: Wu et al., arXiv 1805.01978, section 3.4, as DINO (arXiv 2104.14294) evaluates; here the votes of a photo
    are divided by that of its nearest neighbour, which changes no order and cannot overflow.

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


def nearest_neighbour_accuracy(
    queries: Tensor,
    targets: Tensor,
    bank: Tensor,
    labels: Tensor,
    nums: Sequence[int],
    temperature: float = 0.07,
    device: torch.device | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> dict[int, tuple[float, float]]:
    """Classify photos by the photos of a bank whose features are nearest, and count what is right.

    A class is among the five only if a neighbour is of it: with few neighbours, or few classes among them, top-5 is
    less than it would be by guessing the rest.

    Args:
        queries: float32 ``[Q, C]``, a row of features per photo, at least one.
        targets: int64 ``[Q]``, the true classes.
        bank: float32 ``[N, C]``.
        labels: int64 ``[N]``, the classes of the bank's photos.
        nums: numbers of neighbours to classify by, each at most N.
        temperature: of the votes.
        device: that compares; None for that of the queries. Neither set is moved there as a whole.
        progress: called with the number of photos classified.

    Returns:
        For each number of neighbours top-1 and top-5 as fractions.
    """
    device = device or queries.device
    num_classes = 1 + int(max(labels.max(), targets.max()))
    right = torch.zeros(len(nums), 2, dtype=torch.int64, device=device)
    for start in range(0, len(queries), _BLOCK):
        block, target = queries[start : start + _BLOCK].to(device), targets[start : start + _BLOCK].to(device)
        similarity, rows = nearest_neighbours(block, bank, max(nums))
        classes = labels[rows.to(labels.device)].to(device)
        for index, num in enumerate(nums):
            votes = neighbour_votes(similarity[:, :num], classes[:, :num], num_classes, temperature)
            own = votes.gather(1, target[:, None])
            # Of equal votes the lower class comes first, so that the answer does not depend on a sort.
            lower = torch.arange(num_classes, device=device) < target[:, None]
            rank = ((votes > own) | ((votes == own) & lower)).sum(1, keepdim=True)
            right[index] += torch.cat([(rank < most) & (own > 0) for most in (1, 5)], 1).sum(0)
        progress(start + len(block))
    shares = (right.double() / len(queries)).tolist()
    return {num: (top1, top5) for num, (top1, top5) in zip(nums, shares, strict=True)}
