"""What an attention matrix is like, in numbers: pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

HISTOGRAM_EDGES = torch.logspace(-4, 4, 65, dtype=torch.float64)
"""Of :func:`weight_histogram`: weights relative to 1 / M, 8 bins per factor of ten."""


def shares(weights: Tensor) -> Tensor:
    """|w| over the sum of |w| in its row: a distribution for weights ``[..., N, M]`` of either sign; rows of 0 stay."""
    sizes = weights.abs()
    return sizes / sizes.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def row_entropy(weights: Tensor) -> Tensor:
    """Entropy of each row's shares, ``[..., N, M]`` to ``[..., N]``, in nats: 0 for one key, log M for all alike."""
    entropy: Tensor = torch.special.entr(shares(weights)).sum(dim=-1)
    return entropy


def effective_keys(weights: Tensor) -> Tensor:
    """How many keys, all alike, would have each row's entropy: ``[..., N, M]`` to ``[..., N]``, from 1 to M."""
    return row_entropy(weights).exp()


def numerical_rank(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Rank by the singular values above max(N, M) * eps * the largest, in float64: numpy's rule.

    Args:
        matrices: ``[..., N, M]``, finite.

    Returns:
        The ranks ``[...]``, int64, and the singular values ``[..., min(N, M)]``, falling, float64.
    """
    values: Tensor = torch.linalg.svdvals(matrices.double())
    smallest = values[..., :1] * max(matrices.shape[-2:]) * torch.finfo(torch.float64).eps
    return (values > smallest).sum(dim=-1), values


def token_similarity(tokens: Tensor) -> Tensor:
    """Mean cosine similarity over all pairs of different tokens: 1 where all point the same way.

    Args:
        tokens: ``[..., N, D]``. A token of zeros is similar to none: it counts with 0.

    Returns:
        ``[...]``; NaN for a single token.
    """
    number = tokens.shape[-2]
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    # The sum over all pairs is the squared length of the sum, less each token's similarity to itself.
    pairs = unit.sum(dim=-2).square().sum(dim=-1) - unit.square().sum(dim=(-2, -1))
    return pairs / (number * (number - 1)) if number > 1 else torch.full_like(pairs, torch.nan)


def sorted_curve(weights: Tensor) -> Tensor:
    """Shares of a row from the largest to the smallest, in the mean over rows: ``[..., N, M]`` to ``[..., M]``."""
    return shares(weights).sort(dim=-1, descending=True).values.mean(dim=-2)


def weight_histogram(weights: Tensor) -> Tensor:
    """How weights are distributed, as factors of the uniform 1 / M.

    Args:
        weights: ``[N, M]``.

    Returns:
        The fraction of the shares times M that lies between two of ``HISTOGRAM_EDGES``, ``[64]``; the first and the
        last bin hold what lies beyond them, too, such as zeros.
    """
    factors = shares(weights).flatten() * weights.shape[-1]
    bins = torch.bucketize(factors, HISTOGRAM_EDGES[1:-1].to(factors), right=True)
    return torch.bincount(bins, minlength=len(HISTOGRAM_EDGES) - 1) / factors.numel()
