"""A run's curves: losses, scores and learning rate against the step."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_Curves: TypeAlias = dict[str, tuple[list[float], list[float]]]

_FEW_LOSSES = 3
_COLOURS = 10  # of matplotlib, before they come again
_IS_SCORE = re.compile(r"(mIoU|_AP)$", re.IGNORECASE)
_IS_RATE = re.compile(r"(^|/)lr\b")


def plot_curves(rows: Sequence[Mapping[str, str | float]] | str | Path, path: str | Path) -> None:
    """Draw losses, scores of validations and learning rate against the step into one PNG.

    Columns are found by name: losses contain ``loss``, scores end in ``mIoU`` or ``_AP``, learning rates are called
    ``lr``, as in ``train/lr`` or ``lr-AdamW``. Of many losses the sum stands out.
    Blank and non-finite cells are passed over; where a resumed run repeats a step, its later row counts.

    Args:
        rows: a run's ``metrics.csv``, or its rows, each with a ``step``.
        path: the PNG to write.
    """
    if isinstance(rows, str | Path):
        with Path(rows).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    curves = _curves(rows)
    figure = Figure(figsize=(9, 9), layout="constrained")
    FigureCanvasAgg(figure)
    loss, score, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    _draw_losses(loss, {name: points for name, points in curves.items() if "loss" in name.lower()})
    _draw_scores(score, {name: points for name, points in curves.items() if _IS_SCORE.search(name)})
    _draw_rates(rate, {name: points for name, points in curves.items() if _IS_RATE.search(name.lower())})
    rate.set_xlabel("step")
    for axes, title in ((loss, "loss"), (score, "validation score"), (rate, "learning rate")):
        axes.set_title(title, loc="left", fontweight="bold")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if not axes.lines:
            axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", va="center", color="grey")
        elif axes.get_legend() is None:
            axes.legend(frameon=False)
    figure.savefig(path, format="png", dpi=110)


def _curves(rows: Sequence[Mapping[str, str | float]]) -> _Curves:
    """Every column as (steps, values), in order of steps."""
    columns: dict[str, dict[float, float]] = {}
    for row in rows:
        step = _number(row.get("step"))
        if step is None:
            continue
        for name, cell in row.items():
            value = _number(cell)
            if value is not None:
                columns.setdefault(name, {})[step] = value
    ordered = {name: sorted(points.items()) for name, points in columns.items()}
    return {name: ([s for s, _ in points], [v for _, v in points]) for name, points in ordered.items()}


def _number(cell: str | float | None) -> float | None:
    try:
        value = float(cell) if cell is not None else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _draw_losses(axes: Axes, curves: _Curves) -> None:
    are_many = len(curves) > _FEW_LOSSES
    for number, (name, (steps, values)) in enumerate(curves.items()):
        noisy = len(values) > 40
        dashes = "--" if number >= _COLOURS else "-"
        is_part = are_many and not name.lower().endswith("loss")
        label = f"{name} (smoothed)" if noisy else name
        color = None
        if not noisy or not is_part:
            style = {"alpha": 0.3} if noisy else {"marker": ".", "label": label}
            (line,) = axes.plot(steps, values, dashes, linewidth=1, **style)
            color = line.get_color()
        if noisy:
            axes.plot(steps, _smooth(values), dashes, color=color, linewidth=1 if is_part else 1.8, label=label)
    if are_many:
        axes.legend(frameon=False, ncols=2, fontsize="small")


def _draw_scores(axes: Axes, curves: _Curves) -> None:
    for name, (steps, values) in curves.items():
        best = max(range(len(values)), key=values.__getitem__)
        label = f"{name}: best {values[best]:.3f} at step {steps[best]:.0f}"
        (line,) = axes.plot(steps, values, marker=".", label=label)
        axes.plot(steps[best], values[best], marker="o", color=line.get_color(), markersize=8)
    if curves:
        axes.set_ylim(0, 1.1 * max(max(values) for _, values in curves.values()) or 1)


def _draw_rates(axes: Axes, curves: _Curves) -> None:
    drawn: list[tuple[list[float], list[float]]] = []
    for name, points in curves.items():
        # Parameter groups that differ only in weight decay share one curve.
        if points not in drawn:
            axes.plot(*points, label=name)
            drawn.append(points)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a twentieth of the curve: no lag, and shorter at the ends."""
    reach = max(1, len(values) // 40)
    sums = [0.0, *accumulate(values)]
    windows = ((max(0, index - reach), min(len(values), index + reach + 1)) for index in range(len(values)))
    return [(sums[end] - sums[start]) / (end - start) for start, end in windows]
