"""What kinds of mistakes a detector makes, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

_CORRECT = "correct"
_MEANINGS = {
    _CORRECT: "right class, right place",
    "localisation": "right class, box too far off",
    "confusion": "right place, wrong class",
    "both": "wrong class, box too far off",
    "duplicate": "found already",
    "background": "nothing there",
    "missed": "not found at all",
}
_COLOURS = {
    _CORRECT: "#9aa5b1",
    "localisation": "#e69f00",
    "confusion": "#cc79a7",
    "both": "#8c564b",
    "duplicate": "#56b4e9",
    "background": "#0072b2",
    "missed": "#d6181f",
}
_MOST_CLASSES, _NAME_LENGTH = 20, 24


class Mistakes(Protocol):
    """As :class:`flatten_dense.metrics.DetectionErrors` has them."""

    @property
    def counts(self) -> Mapping[str, NDArray[np.int64]]:
        """``[K]`` for "correct" and each kind of mistake."""

    @property
    def ap50(self) -> float:
        """AP at IoU 0.5."""

    @property
    def cost(self) -> Mapping[str, float]:
        """What ``ap50`` would gain without the mistakes of a kind."""

    @property
    def class_names(self) -> Sequence[str]:
        """K names."""

    @property
    def score_threshold(self) -> float:
        """Least score of what was counted."""


def plot_detection_errors(errors: Mistakes, path: str | Path) -> None:
    """Draw counts and costs of each kind of mistake, and how they spread over the classes, into one PNG.

    Args:
        errors: what to draw; of more than 20 classes those with most mistakes.
        path: the PNG to write.
    """
    kinds = list(errors.cost)
    # Where a class lost most, not what share of it: rare classes must not hide where the work is.
    mistakes = sum((errors.counts[kind] for kind in kinds), start=np.zeros(len(errors.class_names), dtype=np.int64))
    present = np.flatnonzero(mistakes + errors.counts[_CORRECT])
    classes = present[np.argsort(-mistakes[present], kind="stable")][:_MOST_CLASSES].tolist()
    heights = (4.2, 1.3 + 0.3 * max(1, len(classes)))
    figure = Figure(figsize=(12, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=heights)
    counts, costs, spread = (figure.add_subplot(grid[place]) for place in ((0, 0), (0, 1), (1, slice(None))))

    shown = [_CORRECT, *kinds]
    totals = [float(errors.counts[kind].sum()) for kind in shown]
    _bars(counts, shown, totals, [f"{total:,.0f}" for total in totals])
    counts.set_yticks(range(len(shown)), [f"{kind}\n{_MEANINGS.get(kind, '')}" for kind in shown])
    counts.set_title(f"how many (score ≥ {errors.score_threshold:g}, IoU 0.5)", loc="left", fontweight="bold")
    gains = [errors.cost[kind] for kind in kinds]
    _bars(costs, kinds, gains, [f"{gain:+.3f}" for gain in gains])
    costs.set_yticks(range(len(kinds)), kinds)
    costs.set_title(f"what AP50 = {errors.ap50:.3f} would gain without", loc="left", fontweight="bold")
    _spread(spread, errors, shown, classes)
    which = f"the {len(classes)} classes with most mistakes" if len(classes) < len(present) else "each class"
    spread.set_title(which, loc="left", fontweight="bold")
    for axes in (counts, costs, spread):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=110)


def _bars(axes: Axes, kinds: Sequence[str], values: Sequence[float], texts: Sequence[str]) -> None:
    bars = axes.barh(range(len(kinds)), values, color=[_COLOURS.get(kind) for kind in kinds])
    axes.bar_label(bars, texts, padding=4)
    axes.margins(x=0.15)


def _spread(axes: Axes, errors: Mistakes, kinds: Sequence[str], classes: list[int]) -> None:
    """One bar a class, in pieces."""
    if not classes:
        axes.text(0.5, 0.5, "nothing found, nothing missed", transform=axes.transAxes, ha="center", color="grey")
        return
    begin = np.zeros(len(classes))
    for kind in kinds:
        values = errors.counts[kind][classes]
        axes.barh(range(len(classes)), values, left=begin, color=_COLOURS.get(kind), label=kind)
        begin += values
    names = [errors.class_names[label] for label in classes]
    axes.set_yticks(range(len(classes)), [name[:_NAME_LENGTH] for name in names])
    axes.set_xlabel("detections and missed objects")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
