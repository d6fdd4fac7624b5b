"""What becomes of attention from block to block: entropy, effective keys, rank and likeness of tokens, by core."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from flatten_dense.visualization.line_colours import LINE_COLOURS

_LIMIT: dict[str, Any] = {"color": "#555555", "linewidth": 0.9, "zorder": 4}
_DASHES = ("-", "--", "-.")
_THINNEST, _WIDER, _WIDEST = 1.5, 1.3, 5.0  # points: of the last line, what each before it has more, at most in all
_WITH_CONVOLUTION: dict[str, Any] = {
    "linestyle": ":",
    "linewidth": 1.2,
    "marker": "s",
    "markersize": 5,
    "markerfacecolor": "white",
    "zorder": 3,
}
_FEW_NAMES, _MOST_NAMES = 14, 26
_WIDE = 8  # axes over a larger factor have fewer numbers


class Ranks(Protocol):
    """Ranks over the channels of a head."""

    @property
    def median(self) -> float: ...  # noqa: D102


class HeadNumbers(Protocol):
    """Numbers of one head with one core; :class:`flatten_dense.analysis.HeadAnalysis` says what each is."""

    @property
    def core(self) -> str: ...  # noqa: D102
    @property
    def block(self) -> str: ...  # noqa: D102
    @property
    def entropy(self) -> float: ...  # noqa: D102
    @property
    def effective_keys(self) -> float: ...  # noqa: D102
    @property
    def rank_attention(self) -> float: ...  # noqa: D102
    @property
    def rank_with_dwc(self) -> Ranks | None: ...  # noqa: D102
    @property
    def token_similarity(self) -> float: ...  # noqa: D102
    @property
    def num_queries(self) -> int: ...  # noqa: D102
    @property
    def num_keys(self) -> int: ...  # noqa: D102
    @property
    def head_dim(self) -> int: ...  # noqa: D102


def plot_depth(heads: Sequence[HeadNumbers], path: str | Path, title: str = "") -> None:
    """Draw the medians over the heads of each block against the blocks into one PNG, a line for each core.

    Blocks between which others were left out are not joined.

    Args:
        heads: of the same blocks for each core, block by block; at least one.
        path: the PNG to write.
        title: above all.
    """
    figure = Figure(figsize=(11, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", color="#555555")
    (entropy, keys), (rank, similarity) = figure.subplots(2, 2, sharex=True)
    cores, blocks = (list(dict.fromkeys(names)) for names in ([h.core for h in heads], [h.block for h in heads]))
    join = partial(_join_neighbours, blocks)
    firsts = [next(head for head in heads if head.block == block) for block in blocks]
    _limit(entropy, [math.log(head.num_keys) for head in firsts], "uniform attention: log M, M")
    _limit(keys, [head.num_keys for head in firsts])
    _limit(rank, [min(head.num_queries, head.num_keys) for head in firsts], "full: the lesser of N and M")
    _limit(rank, [head.head_dim for head in firsts], "d, the width of a head", ":")
    for number, core in enumerate(cores):
        of_blocks = [[head for head in heads if (head.core, head.block) == (core, block)] for block in blocks]
        # Ranks are often the same: the earlier lines are seen on both sides of the later ones.
        width = _THINNEST + (len(cores) - 1 - number) * min(_WIDER, _WIDEST / len(cores))
        style: dict[str, Any] = {
            "color": LINE_COLOURS[number % len(LINE_COLOURS)],
            "linestyle": _DASHES[number // len(LINE_COLOURS) % len(_DASHES)],
            "linewidth": width,
            "marker": "o",
            "markersize": width + 3,
        }
        entropy.plot(*join(_medians(of_blocks, lambda head: head.entropy)), label=core, **style)
        keys.plot(*join(_medians(of_blocks, lambda head: head.effective_keys)), **style)
        rank.plot(*join(_medians(of_blocks, lambda head: head.rank_attention)), **style)
        similarity.plot(*join(_medians(of_blocks, lambda head: head.token_similarity)), **style)
        both = _medians(of_blocks, lambda head: None if head.rank_with_dwc is None else head.rank_with_dwc.median)
        if not all(map(math.isnan, both)):
            rank.plot(*join(both), **style | _WITH_CONVOLUTION)
    rank.plot([], label="with the convolution", color="#555555", **_WITH_CONVOLUTION)
    _finish(entropy, "entropy of a row of weights, nats", blocks)
    _finish(keys, "effective number of keys", blocks)
    _finish(rank, "rank of the matrix of weights", blocks)
    _finish(similarity, "likeness of output tokens, mean cosine", blocks)
    for axes in (keys, rank):
        _make_logarithmic(axes)
    rank.legend(frameon=False, fontsize="small")
    figure.legend(*entropy.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, format="png", dpi=110)


def _medians(of_blocks: Sequence[Sequence[HeadNumbers]], number: Callable[[HeadNumbers], float | None]) -> list[float]:
    """Medians over the heads of each block; NaN where they have no such number."""
    known = [[value for value in map(number, heads) if value is not None] for heads in of_blocks]
    return [median(values) if values else math.nan for values in known]


def _join_neighbours(blocks: Sequence[str], values: Sequence[float]) -> NDArray[np.float64]:
    """Places and values of a line with a gap, NaN, where a block follows neither its stage's nor the last stage's."""
    places = [tuple(map(int, re.findall(r"\d+", block))) for block in blocks]
    gaps = [
        at
        for at, (before, here) in enumerate(pairwise(places), 1)
        if before and here not in ((*before[:-1], before[-1] + 1), (before[0] + 1, 0))
    ]
    line = np.array([range(len(values)), values], float)
    return np.insert(line, gaps, np.nan, axis=1)


def _limit(axes: Axes, values: Sequence[float], label: str = "", dashes: str = "--") -> None:
    # From the middle between two blocks to the next, also where there is but one block.
    edges = [number - 0.5 for number in range(len(values) + 1)]
    axes.plot(edges, [values[0], *values], dashes, label=label, drawstyle="steps-pre", **_LIMIT)


def _make_logarithmic(axes: Axes) -> None:
    """Stages of a pyramid differ by factors of four."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high > _WIDE * low else range(1, 10)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _finish(axes: Axes, heading: str, blocks: Sequence[str]) -> None:
    axes.set_title(heading, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    every = -(-len(blocks) // _MOST_NAMES)
    turned: dict[str, Any] = {"rotation": 90} if len(blocks) > _FEW_NAMES else {"rotation": 60, "ha": "right"}
    axes.set_xticks(range(0, len(blocks), every), blocks[::every], fontsize="small", **turned)
