"""One head's attention by several cores side by side: heat maps, the matrix, its weights and its singular values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill, wrap
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from flatten_dense.layers import Size
from flatten_dense.visualization.attention_depth import HeadNumbers
from flatten_dense.visualization.line_colours import LINE_COLOURS

_CELL, _PLOT, _HEADING = 2.1, 1.5, 0.85  # inches: width of a column, height of a plot and of what stands above
_LEFT, _RIGHT, _ABOVE, _BELOW, _ACROSS, _DOWN = 0.4, 0.1, 0.2, 0.45, 0.5, 0.45  # inches: margins and gaps
_LINE = 0.18  # inches, of the title
_FLATTEST, _TALLEST = 0.4, 1.6  # pictures, height over width
_LETTERS, _TITLE_LETTERS = 34, 32  # of a line of text beside a picture, and above it
_BEYOND = 0.995  # the scale of the matrices ends at this quantile of weights
_FEW = 8  # tokens a side, up to which a map shows them one by one
_LOWEST = 1e-18  # singular values over the largest, where the plot ends
_POINT_COLOURS = ("#00e5ff", "#ffea00", "#76ff03", "#ff80ab", "#ffffff")
_FAINT = "#c4c4c4"
_MARK: dict[str, Any] = {"color": "#555555", "linestyle": "--", "linewidth": 0.8}
_KEYS = (
    "The weights that a query (cross) gives to the keys, over the photo. All maps of a row have one scale, from 0 "
    "(dark) to the largest of their weights, above the first; uniform attention has 1/M. Blue: weights below 0.",
    "The matrix A of weights: a row for each of N queries, a column for each of M keys. All have one scale, from 0 "
    "(dark) to {scale}, which no more than 0.5 % of a core's weights that are not 0 exceed. Where all rows are alike "
    "there are stripes from top to bottom.",
    "How many of the N x M weights are how large, as multiples of 1/M; those below 0.0001 are in the bin of that. Of "
    "weights below 0 the size counts, over the sum of sizes in the row. Dashed: uniform attention. Grey: other cores.",
    "The weights of a row, the largest first, mean over all rows. Dashed: 1/M, uniform attention. Of weights below 0 "
    "as above.",
    "Singular values over the largest: of A (line), and of A + B (dots), where B is the convolution as a matrix, of "
    "the channel of median rank. Dashed: the head's width d, and full rank.",
)


class HeadPictures(HeadNumbers, Protocol):
    """What is drawn of one head with one core; :class:`flatten_dense.analysis.HeadAnalysis` says what each is."""

    @property
    def entropy_share(self) -> float: ...  # noqa: D102
    @property
    def q_size(self) -> Size: ...  # noqa: D102
    @property
    def kv_size(self) -> Size: ...  # noqa: D102
    @property
    def untrained(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def weights(self) -> Tensor: ...  # noqa: D102
    @property
    def histogram(self) -> tuple[Tensor, Tensor]: ...  # noqa: D102
    @property
    def sorted_curve(self) -> Tensor: ...  # noqa: D102
    @property
    def singular_values(self) -> Tensor: ...  # noqa: D102
    @property
    def singular_values_with_dwc(self) -> Tensor | None: ...  # noqa: D102


def token_at(point: tuple[float, float], image_size: Size, grid: Size) -> int:
    """Index of the token that a point of an image lies in.

    Args:
        point: (y, x) in pixels, from (0, 0) to below the image's size.
        image_size: (H, W) in pixels.
        grid: (H, W) of the tokens, stretched over the image.
    """
    row, column = (int(p * cells / side) for p, side, cells in zip(point, image_size, grid, strict=True))
    return row * grid[1] + column


def draw_attention_sheet(
    photo: Tensor,
    points: Sequence[tuple[float, float]],
    heads: Sequence[HeadPictures],
    path: str | Path,
    title: str = "",
) -> None:
    """Draw a head's attention into one PNG, a column for each core.

    Args:
        photo: uint8 ``[3, H, W]``, what the model saw.
        points: at least one query to draw heat maps of, (y, x) in pixels of the photo.
        heads: the same head with each core, at least one.
        path: the PNG to write.
        title: above all.
    """
    size, first = (photo.shape[1], photo.shape[2]), heads[0]
    map_height, matrix_height = (_CELL * _aspect(*s) for s in (size, (first.num_queries, first.num_keys)))
    heights = [_HEADING, *[map_height] * len(points), matrix_height, _PLOT, _PLOT, _PLOT]
    lines = [part for line in title.splitlines() for part in wrap(line, _TITLE_LETTERS * (1 + len(heads)))]
    figure, axes = _grid(heights, 1 + len(heads), above=_ABOVE + _LINE * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, y=0.997, ha="left", va="top", fontsize="medium", color="#555555")
    _write(axes[0, 0], _KEYS[0], bottom=True)
    matrices = [head.weights.double().numpy() for head in heads]
    for number, (row, point) in enumerate(zip(axes[1:], points, strict=False)):
        _draw_query(
            row, photo, point, number, [m[token_at(point, size, first.q_size)] for m in matrices], first.kv_size
        )
    scale = max(map(_most, matrices)) or 1.0
    for place, text in zip(axes[-4:, 0], _KEYS[1:], strict=True):
        _write(place, text.format(scale=_times(scale * first.num_keys)))
    for row in axes[-3:, 1:]:
        for later in row[1:]:
            later.sharex(row[0])
            later.sharey(row[0])
    for number, head in enumerate(heads):
        own = axes[:, 1 + number]
        _draw_heading(own[0], head, _colour(number))
        _draw_matrix(own[-4], matrices[number], scale)
        _draw_histograms(own[-3], heads, number)
        _draw_sorted(own[-2], heads, number)
        _draw_singular_values(own[-1], heads, number)
        for place in own[-3:]:
            _finish(place, is_first=not number)
    figure.savefig(path, format="png", dpi=110)


def _grid(heights: Sequence[float], columns: int, above: float) -> tuple[Figure, NDArray[Any]]:
    """Axes of these heights below one another, in as many columns; laying them out by their contents would be slow."""
    width = _LEFT + columns * _CELL + (columns - 1) * _ACROSS + _RIGHT
    height = above + sum(heights) + (len(heights) - 1) * _DOWN + _BELOW
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    places = {
        "left": _LEFT / width,
        "right": 1 - _RIGHT / width,
        "top": 1 - above / height,
        "bottom": _BELOW / height,
        "wspace": _ACROSS / _CELL,
        "hspace": _DOWN * len(heights) / sum(heights),
    }
    axes: NDArray[Any] = figure.subplots(len(heights), columns, height_ratios=heights, gridspec_kw=places)
    return figure, axes


def _aspect(height: int, width: int) -> float:
    return min(max(height / width, _FLATTEST), _TALLEST)


def _colour(number: int) -> str:
    return LINE_COLOURS[number % len(LINE_COLOURS)]


def _write(axes: Axes, text: str, bottom: bool = False) -> None:
    axes.set_axis_off()
    y, va = (0.0, "bottom") if bottom else (1.0, "top")
    axes.text(0, y, fill(text, _LETTERS), transform=axes.transAxes, va=va, fontsize="x-small", color="#555555")


def _draw_heading(axes: Axes, head: HeadPictures, colour: str) -> None:
    rank = f"rank {head.rank_attention:.4g}"
    if head.rank_with_dwc is not None:
        rank += f", with convolution {head.rank_with_dwc.median:.4g}"
    lines = [
        f"entropy {head.entropy:.2f}, {head.entropy_share:.0%} of log M",
        f"effective keys {head.effective_keys:.4g} of {head.num_keys}",
        rank,
        f"token similarity {head.token_similarity:.2f}",
        *(["some parameters are not the model's"] if head.untrained else []),
    ]
    style: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top"}
    axes.set_axis_off()
    axes.text(0.5, 0.98, head.core, fontweight="bold", color=colour, **style)
    axes.text(0.5, 0.74, "\n".join(lines), fontsize="x-small", **style)


def _draw_query(
    row: NDArray[Any],
    photo: Tensor,
    point: tuple[float, float],
    number: int,
    weights: Sequence[NDArray[np.float64]],
    keys: Size,
) -> None:
    """The photo with a query, then the weights that it gives to the keys, by each core, on one scale."""
    largest = max(float(np.abs(own).max()) for own in weights) or 1.0
    row[0].imshow(photo.permute(1, 2, 0).numpy(), aspect="auto")
    row[0].set_title(f"query at y {point[0]:g}, x {point[1]:g}", fontsize="small")
    row[1].set_title(f"maps: 0 to {_times(largest * weights[0].size)}", fontsize="small")
    row[0].tick_params(labelsize="x-small")
    for axes, own in zip(row[1:], weights, strict=True):
        _draw_heat_map(axes, own.reshape(keys) / largest, photo.double().mean(0).numpy() / 255)
        axes.set_axis_off()
    for axes in row:
        for colour, width in (("black", 4), (_POINT_COLOURS[number % len(_POINT_COLOURS)], 2)):
            axes.plot(*point[::-1], "+", markersize=16, markeredgewidth=width, color=colour, clip_on=False)


def _draw_heat_map(axes: Axes, relative: NDArray[np.float64], grey: NDArray[np.float64]) -> None:
    height, width = grey.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(0.6 * grey, cmap="gray", vmin=0, vmax=1, aspect="auto", extent=extent)
    opacity = 0.25 + 0.6 * np.abs(relative)
    smooth = "nearest" if max(relative.shape) <= _FEW else "bilinear"
    options: dict[str, Any] = {"vmin": -1, "vmax": 1, "aspect": "auto", "extent": extent, "interpolation": smooth}
    axes.imshow(relative, cmap=_SIGNED, alpha=opacity, **options)


def _most(weights: NDArray[np.float64]) -> float:
    """What few weights exceed; 0 where all are 0."""
    sizes = np.abs(weights[weights != 0])
    return float(np.quantile(sizes, _BEYOND, method="lower")) if sizes.size else 0.0


def _draw_matrix(axes: Axes, weights: NDArray[np.float64], scale: float) -> None:
    axes.imshow(weights, cmap=_SIGNED, vmin=-scale, vmax=scale, aspect="auto")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.tick_params(labelsize="x-small")


def _styles(heads: Sequence[HeadPictures], number: int) -> list[tuple[HeadPictures, dict[str, Any]]]:
    """All heads with how they are drawn in the plot of one: the others faintly, it above them."""
    others: list[tuple[HeadPictures, dict[str, Any]]] = [
        (head, {"color": _FAINT, "linewidth": 0.8}) for head in heads if head is not heads[number]
    ]
    return [*others, (heads[number], {"color": _colour(number), "linewidth": 1.8})]


def _draw_histograms(axes: Axes, heads: Sequence[HeadPictures], number: int) -> None:
    for head, style in _styles(heads, number):
        edges, shares = (part.numpy() for part in head.histogram)
        axes.stairs(shares, edges, fill=head is heads[number], **style)
    edges = heads[0].histogram[0].numpy()
    (occupied,) = np.nonzero(np.stack([head.histogram[1].numpy() for head in heads]).any(0))
    axes.set_xlim(min(edges[occupied[0]], 0.5), max(edges[occupied[-1] + 1], 2))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.axvline(1, **_MARK)
    axes.set_xlabel("weight x M", fontsize="x-small")
    axes.set_ylabel("share of the weights", fontsize="x-small")


def _draw_sorted(axes: Axes, heads: Sequence[HeadPictures], number: int) -> None:
    for head, style in _styles(heads, number):
        axes.plot(np.arange(1, head.num_keys + 1), head.sorted_curve.numpy(), **style)
    axes.set_xscale("log")
    axes.axhline(1 / heads[number].num_keys, **_MARK)
    axes.set_xlabel("key, by its weight", fontsize="x-small")
    axes.set_ylabel("weight", fontsize="x-small")


def _draw_singular_values(axes: Axes, heads: Sequence[HeadPictures], number: int) -> None:
    for head, style in _styles(heads, number):
        values = _over_largest(head.singular_values)
        axes.plot(np.arange(1, len(values) + 1), values, **style)
        if head is heads[number] and head.singular_values_with_dwc is not None:
            values = _over_largest(head.singular_values_with_dwc)
            axes.plot(np.arange(1, len(values) + 1), values, ":", **style)
    for place in (heads[number].head_dim, len(heads[number].singular_values)):
        axes.axvline(place, **_MARK)
    axes.set_ylim(_LOWEST, 10)
    axes.set_xlabel("number", fontsize="x-small")
    axes.set_ylabel("over the largest", fontsize="x-small")


def _finish(axes: Axes, is_first: bool) -> None:
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="x-small", labelleft=is_first)
    if not is_first:
        axes.set_ylabel("")


def _over_largest(values: Tensor) -> NDArray[np.float64]:
    relative = values / (values.max() or 1)
    return relative.clamp(min=_LOWEST).numpy()


def _times(multiple: float) -> str:
    return f"{multiple:.3g} x 1/M"


def _signed_colours() -> ListedColormap:
    """Black at 0; brighter the farther from it, warm above and blue below."""
    above = matplotlib.colormaps["inferno"](np.linspace(0, 1, 128))
    below = above[:, [2, 1, 0, 3]] * [0.6, 0.9, 1, 1]
    return ListedColormap(np.concatenate([below[::-1], above]))


_SIGNED = _signed_colours()
