"""What models cost over the side of the image: time and memory, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from flatten_dense.visualization.line_colours import LINE_COLOURS

_KIBIBYTE = 1024.0
_LINE = 70  # letters that a legend has room for


class CostCurve(NamedTuple):
    """One line in each of the two plots.

    Attributes:
        label: for the legend.
        group: number of the colour; what belongs together shares it.
        sides: of the images in pixels, ascending.
        costs: at those, seconds in the first and bytes in the second plot; None where there is none.
        growth: exponents of both over the pixels, for the legend; None where there is none.
        crossings: side from which on the line is the lower one of its group; None where that is not to be seen.
        is_baseline: dashed, being what the others of the group are compared with.
        why_it_ends: said in the legend, if it ends before its last side.
    """

    label: str
    group: int
    sides: Sequence[float]
    costs: tuple[Sequence[float | None], Sequence[float | None]]
    growth: tuple[float | None, float | None]
    crossings: tuple[float | None, float | None]
    is_baseline: bool
    why_it_ends: str = ""


def plot_costs(curves: Sequence[CostCurve], path: str | Path, title: str, what: tuple[str, str]) -> None:
    """Draw time and memory against the side of the image into one PNG.

    Args:
        curves: at least one.
        path: the PNG to write.
        title: above both.
        what: titles of the two.
    """
    lines = sum(2 if curve.why_it_ends else 1 for curve in curves)
    figure = Figure(figsize=(11, 5.2 + 0.2 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", color="#555555")
    sides = sorted({side for curve in curves for side in curve.sides})
    for number, axes in enumerate(figure.subplots(1, 2)):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2 if number else 10)
        for curve in curves:
            _draw(axes, curve, number)
        axes.set_title(what[number], loc="left", fontweight="bold")
        axes.set_xlabel("side of the image, pixels")
        axes.xaxis.set_major_locator(FixedLocator(sides))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda side, _: f"{side:.0f}"))
        axes.xaxis.set_minor_locator(FixedLocator([]))
        axes.yaxis.set_major_locator(LogLocator(2, numticks=8) if number else LogLocator(10, subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(_bytes if number else _seconds))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            _draw_proportion(axes, curves, number, sides)
            axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.14))
        else:
            axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center", va="center", color="grey")
    figure.savefig(path, format="png", dpi=110)


def _draw(axes: Axes, curve: CostCurve, number: int) -> None:
    known = [(side, cost) for side, cost in zip(curve.sides, curve.costs[number], strict=True) if cost]
    if not known:
        return
    sides, costs = [side for side, _ in known], [cost for _, cost in known]
    exponent = curve.growth[number]
    label = curve.label if exponent is None else f"{curve.label}, grows as pixels$^{{{exponent:.2f}}}$"
    is_cut = bool(curve.why_it_ends) and sides[-1] < curve.sides[-1]
    colour = LINE_COLOURS[curve.group % len(LINE_COLOURS)]
    axes.plot(
        sides,
        costs,
        "--" if curve.is_baseline else "-",
        marker="o",
        markersize=5,
        markerfacecolor="white" if curve.is_baseline else colour,
        color=colour,
        label=f"{label}\n{shorten(curve.why_it_ends, _LINE, placeholder=' ...')}" if is_cut else label,
    )
    if is_cut:
        axes.plot(sides[-1], costs[-1], "X", markersize=9, color=colour)
    crossing = curve.crossings[number]
    if crossing is not None:
        height = math.exp(float(np.interp(math.log(crossing), np.log(sides), np.log(costs))))
        is_left = crossing**2 < curve.sides[0] * curve.sides[-1]
        axes.plot(crossing, height, "o", markersize=13, markerfacecolor="none", markeredgecolor=colour)
        axes.annotate(
            f"less from {crossing:.0f}",
            (crossing, height),
            (10, -16) if is_left else (-12, 10),
            textcoords="offset points",
            ha="left" if is_left else "right",
            color=colour,
            fontsize="small",
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _draw_proportion(axes: Axes, curves: Sequence[CostCurve], number: int, sides: Sequence[float]) -> None:
    """A faint line that grows with the pixels, below all others."""
    factors = [
        cost / side**2
        for curve in curves
        for side, cost in zip(curve.sides, curve.costs[number], strict=True)
        if cost is not None and cost > 0
    ]
    line = [0.7 * min(factors) * side**2 for side in sides]
    axes.plot(sides, line, ":", color="#999999", linewidth=1, zorder=0, label="in proportion to the pixels")


def _seconds(value: float, _: int) -> str:
    return f"{value:g} s" if value >= 1 else f"{1e3 * value:g} ms"


def _bytes(value: float, _: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < _KIBIBYTE:
            return f"{value:g} {unit}"
        value /= _KIBIBYTE
    return f"{value:g} GiB"
