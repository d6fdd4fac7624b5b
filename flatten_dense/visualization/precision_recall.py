"""Precision against recall, over all classes and class by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from flatten_dense.structures import DetectionLabels

_REGIONS = {"bbox": "boxes", "segm": "masks"}
_MOST_CURVES, _STYLES = 20, ("-", "--", "-.")
_RECALLS = np.linspace(0, 1, 101)


class ClassCurves(Protocol):
    """Precision of K classes, NaN for a class without truth; as :class:`flatten_dense.metrics.ClassScores` has it."""

    @property
    def ap(self) -> NDArray[np.float64]:
        """``[K]``, AP over the ten IoU thresholds."""

    @property
    def ap50(self) -> NDArray[np.float64]:
        """``[K]``, AP at IoU 0.5."""

    @property
    def precision(self) -> NDArray[np.float64]:
        """``[K, 101]`` at recall 0, 0.01, ..., 1, mean over the ten IoU thresholds."""

    @property
    def precision50(self) -> NDArray[np.float64]:
        """``[K, 101]``, at IoU 0.5."""


def plot_precision_recall(curves: Mapping[str, ClassCurves], labels: DetectionLabels, path: str | Path) -> None:
    """Draw precision against recall into one PNG: means over the classes at the left, each class at the right.

    Args:
        curves: by kind of region, "bbox" or "segm"; each gets a row.
        labels: names and colours. Of more than 20 classes the ten best and the ten worst are drawn.
        path: the PNG to write.
    """
    figure = Figure(figsize=(13, 5.6 * len(curves)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(curves), 2, squeeze=False)
    for (kind, scores), (mean, each) in zip(curves.items(), rows, strict=True):
        region = _REGIONS.get(kind, kind)
        _draw_means(mean, scores)
        mean.set_title(f"{region}: mean of all classes", loc="left", fontweight="bold")
        drawn, known = _draw_classes(each, scores, labels)
        which = f"{drawn // 2} best and {drawn // 2} worst of {known} classes" if drawn < known else "each class"
        each.set_title(f"{region}: {which}, IoU ≥ 0.5", loc="left", fontweight="bold")
        _finish(mean, loc="lower left")
        _finish(each, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9, title="AP50")
    figure.savefig(path, format="png", dpi=110)


def _draw_means(axes: Axes, scores: ClassCurves) -> None:
    for name, precision, ap, colour in (
        ("IoU ≥ 0.5", scores.precision50, scores.ap50, "tab:blue"),
        ("mean over IoU 0.50:0.95", scores.precision, scores.ap, "tab:orange"),
    ):
        known = ~np.isnan(ap)
        if known.any():
            mean = precision[known].mean(0)
            axes.plot(_RECALLS, mean, color=colour, linewidth=2, label=f"{name}: AP {ap[known].mean():.3f}")
            axes.fill_between(_RECALLS, mean, color=colour, alpha=0.12)


def _draw_classes(axes: Axes, scores: ClassCurves, labels: DetectionLabels) -> tuple[int, int]:
    """Returns how many classes are drawn, and how many there are to draw."""
    best_first = sorted(np.flatnonzero(~np.isnan(scores.ap50)).tolist(), key=lambda label: -scores.ap50[label])
    drawn = best_first
    if len(best_first) > _MOST_CURVES:
        drawn = best_first[: _MOST_CURVES // 2] + best_first[-_MOST_CURVES // 2 :]
    for number, label in enumerate(drawn):
        red, green, blue = (channel / 255 for channel in labels.palette[label])
        name = f"{labels.class_names[label]}: {scores.ap50[label]:.3f}"
        style = _STYLES[number % len(_STYLES)]
        axes.plot(_RECALLS, scores.precision50[label], style, color=(red, green, blue), linewidth=1.8, label=name)
    return len(drawn), len(best_first)


def _finish(axes: Axes, **legend: Any) -> None:  # noqa: ANN401 - matplotlib's own options
    axes.set(xlim=(0, 1.005), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False, **legend)
    else:
        axes.text(0.5, 0.5, "no objects to find", transform=axes.transAxes, ha="center", va="center", color="grey")
