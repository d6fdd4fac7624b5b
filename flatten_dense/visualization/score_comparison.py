"""Scores of models that were trained several times: a dot for each training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

_DOT, _MEAN = "#56b4e9", "#0072b2"


class Scores(NamedTuple):
    """The scores of one model.

    Attributes:
        label: below the axis.
        values: one of each training; none yet if it is empty.
        position: on a logarithmic axis; None to put the models side by side.
        note: a second line below the label.
    """

    label: str
    values: Sequence[float]
    position: float | None = None
    note: str = ""


def plot_scores(models: Sequence[Scores], path: str | Path, title: str, score: str, what: str, notes: str = "") -> None:
    """Draw all scores, and the mean of each model, into one PNG.

    Args:
        models: at least one, with positions or without.
        path: the PNG to write.
        title: above all.
        score: name of the vertical axis.
        what: name of the horizontal axis.
        notes: what the notes are, said behind that name.
    """
    figure = Figure(figsize=(max(7.5, 1.3 * len(models) + 1), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    has_positions = all(model.position is not None for model in models)
    places = [float(model.position or 0) if has_positions else float(i) for i, model in enumerate(models)]
    if has_positions:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    for place, model in zip(places, models, strict=True):
        axes.plot([place] * len(model.values), model.values, "o", color=_DOT, markersize=6, alpha=0.8)
    means = [(place, mean(model.values)) for place, model in zip(places, models, strict=True) if model.values]
    axes.plot(
        *zip(*means, strict=True),
        linestyle="-" if has_positions else "none",
        marker="_",
        markersize=16,
        markeredgewidth=2.5,
        linewidth=0.6,
        color=_MEAN,
    )
    for place, height in means:
        axes.annotate(
            f"{height:.1f}",
            (place, height),
            (10, 0),
            textcoords="offset points",
            va="center",
            color=_MEAN,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    axes.set_xticks(places, [f"{model.label}\n{model.note}" if model.note else model.label for model in models])
    axes.margins(x=0.08)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_ylabel(score)
    axes.set_xlabel(f"{what}\n(below it: {notes})" if notes else what)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=110)
