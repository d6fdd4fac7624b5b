"""The numbers of an analysis: head by head, as JSON and as a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from flatten_dense.layers import Size

_HEADER = (
    "block",
    "tokens",
    "core",
    "entropy",
    "of log M",
    "effective keys",
    "rank",
    "rank with convolution",
    "token similarity",
)
_LEGEND = (
    "Over the heads of a block: the median, and of ranks the least and the most where they differ. Rank with "
    "convolution: least, median and most over the channels, each the median over heads. Entropy is in nats; log M is "
    "that of uniform attention to M keys. Token similarity: mean cosine between the results of a head for two tokens."
)


class RankWithConvolution(NamedTuple):
    """Ranks of A + B over the channels of a head, means over images.

    Attributes:
        min: the least.
        median: of the channels.
        max: the most.
        channels: how many were measured.
    """

    min: float
    median: float
    max: float
    channels: int


@dataclass(frozen=True, eq=False)
class HeadAnalysis:
    """One head of a block with one core. Numbers are means over images, tensors are of the first image.

    Where a core has a head for each channel, numbers are means over those of the measured channels, and tensors are of
    the first of them.

    Attributes:
        core: its name, ``"own"`` for the model's.
        block: its name, ``stages.2.blocks.0``.
        head: index in the block.
        rank_attention: numerical rank of the N x M matrix A of weights.
        rank_with_dwc: of A + B, B being the convolution of the values as a matrix; None for a core without.
        entropy: in nats, mean over rows.
        effective_keys: exp of the entropy of a row, mean over rows.
        token_similarity: mean cosine similarity between the results of two tokens; NaN for a single token.
        num_queries: N.
        num_keys: M.
        head_dim: D.
        q_size: (H, W) of the queries.
        kv_size: (H, W) of the keys.
        windows: (height, width) of those that the core attends within; none for the whole map.
        untrained: parameters of the core that do not come from the model.
        weights: A, ``[N, M]``, float32.
        histogram: edges ``[K + 1]`` of bins of the weights over 1 / M, and the fraction of them in each, ``[K]``;
            see :func:`flatten_dense.analysis.statistics.weight_histogram`.
        sorted_curve: ``[M]``, the weights of a row from the largest, mean over rows.
        singular_values: of A, falling.
        singular_values_with_dwc: of A + B for the channel of median rank; None for a core without.
    """

    core: str
    block: str
    head: int
    rank_attention: float
    rank_with_dwc: RankWithConvolution | None
    entropy: float
    effective_keys: float
    token_similarity: float
    num_queries: int
    num_keys: int
    head_dim: int
    q_size: Size
    kv_size: Size
    windows: tuple[Size, ...]
    untrained: tuple[str, ...]
    weights: Tensor
    histogram: tuple[Tensor, Tensor]
    sorted_curve: Tensor
    singular_values: Tensor
    singular_values_with_dwc: Tensor | None

    @property
    def entropy_share(self) -> float:
        """Entropy over log M, that of uniform attention: 0 to 1; NaN for a single key."""
        return self.entropy / math.log(self.num_keys) if self.num_keys > 1 else math.nan

    def to_json(self) -> dict[str, Any]:
        """All but the tensors; None for NaN."""
        values = {
            "core": self.core,
            "block": self.block,
            "head": self.head,
            "rank_attention": self.rank_attention,
            "rank_with_dwc": self.rank_with_dwc and self.rank_with_dwc._asdict(),
            "entropy": self.entropy,
            "entropy_share": self.entropy_share,
            "effective_keys": self.effective_keys,
            "token_similarity": self.token_similarity,
            "num_queries": self.num_queries,
            "num_keys": self.num_keys,
            "head_dim": self.head_dim,
            "q_size": list(self.q_size),
            "kv_size": list(self.kv_size),
            "windows": [list(window) for window in self.windows],
            "untrained": list(self.untrained),
        }
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()
        }


@dataclass(frozen=True, eq=False)
class Analysis:
    """What :func:`flatten_dense.analysis.analyze_attention` measured.

    Attributes:
        heads: block by block, core by core, head by head.
        settings: what it was measured with, plain types only.
    """

    heads: list[HeadAnalysis]
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain types only: ``settings``, and ``heads`` as a list of numbers for each core, block and head."""
        return {"settings": self.settings, "heads": [head.to_json() for head in self.heads]}

    def to_markdown(self) -> str:
        """A table with a line for each block and core, and what its numbers are."""
        groups: dict[tuple[str, str], list[HeadAnalysis]] = {}
        for head in self.heads:
            groups.setdefault((head.block, head.core), []).append(head)
        rows = [_HEADER, tuple("---" for _ in _HEADER), *(_row(heads) for heads in groups.values())]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return "\n\n".join([table, _LEGEND, *self._notes()]) + "\n"

    def _notes(self) -> list[str]:
        notes, untrained = [], {head.core: head.untrained for head in self.heads if head.untrained}
        if any(head.windows for head in self.heads):
            notes.append("Within windows no row reaches more keys than a window has: M and log M are those of the map.")
        if untrained:
            listed = "; ".join(f"{core} ({', '.join(names)})" for core, names in untrained.items())
            notes.append(f"Parameters that the model does not have start as in a new model: {listed}.")
        return notes


def _row(heads: Sequence[HeadAnalysis]) -> tuple[str, ...]:
    first = heads[0]
    tokens = "x".join(map(str, first.q_size))
    if first.kv_size != first.q_size:
        tokens += f", keys {'x'.join(map(str, first.kv_size))}"
    if first.windows:
        tokens += f", windows {' and '.join('x'.join(map(str, window)) for window in first.windows)}"
    return (
        first.block,
        tokens,
        first.core,
        f"{statistics.median(head.entropy for head in heads):.2f}",
        f"{statistics.median(head.entropy_share for head in heads):.0%}".replace("nan%", "-"),
        f"{statistics.median(head.effective_keys for head in heads):.1f}",
        _range([head.rank_attention for head in heads]),
        _of_channels([head.rank_with_dwc for head in heads if head.rank_with_dwc]),
        f"{statistics.median(head.token_similarity for head in heads):.2f}".replace("nan", "-"),
    )


def _range(values: Sequence[float]) -> str:
    least, most = f"{min(values):.4g}", f"{max(values):.4g}"
    return least if least == most else f"{least} to {most}"


def _of_channels(ranks: Sequence[RankWithConvolution]) -> str:
    if not ranks:
        return "-"
    return " / ".join(f"{statistics.median(values):.4g}" for values in list(zip(*ranks, strict=True))[:3])
