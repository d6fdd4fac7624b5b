"""What `flatten-dense profile` prints: a row for each point, then how costs grow, and from where on which is less."""

from __future__ import annotations

from collections.abc import Sequence

from flatten_dense.layers import Size
from flatten_dense.profiling.advice import Curve, compare, curves_beside, growth
from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.sweep import Point

_COLUMNS = ("time", "images/s", "peak memory", "MACs", "time", "memory")
_WIDTHS = (9, 9, 11, 8, 6, 6)
_GROWTH = ("time", "memory", "at last: time", "memory", "less time from", "less memory from")
_GROWTH_WIDTHS = (6, 6, 13, 6, 20, 20)
_UNKNOWN = "-"


class ProfileTable:
    """The lines of the table.

    Args:
        choices: all that will be measured.
        sizes: that they will be measured at.
        batch_size: images of a pass.
    """

    def __init__(self, choices: Sequence[Choice], sizes: Sequence[Size], batch_size: int) -> None:
        self._batch_size = batch_size
        self._widths = (
            max(len("model"), *(len(choice.model) for choice in choices)),
            max(len("attention"), *(len(_attention(choice)) for choice in choices)),
            max(len("size"), *(len(in_short(size)) for size in sizes)),
        )

    def header(self) -> str:
        """Two lines above the rows."""
        names = "  ".join(cell.rjust(width) for cell, width in zip(_COLUMNS, _WIDTHS, strict=True))
        start = self._start("model", "attention", "size")
        beside = "of softmax's".rjust(len(start) + 2 + len(names))
        return f"{beside}\n{start}  {names}"

    def row(self, point: Point, baseline: Point | None) -> str:
        """The line of a point.

        Args:
            point: to be told.
            baseline: softmax attention in the same model at the same size; None if there is none.
        """
        start = self._start(point.choice.model, _attention(point.choice), in_short(point.size))
        if point.median is None:
            return f"{start}  {point.skipped}"
        macs = point.choice.macs.get(point.size)
        times, memories = None, None
        if baseline is not None and baseline is not point:
            times = baseline.median and point.median / baseline.median
            memories = point.peak / baseline.peak if point.peak and baseline.peak else None
        cells = (
            seconds_in_words(point.median),
            f"{self._batch_size / point.median:.3g}",
            _UNKNOWN if point.peak is None else bytes_in_words(point.peak),
            _UNKNOWN if macs is None else f"{macs / 1e9:.2f}G" if macs >= 1e9 else f"{macs / 1e6:.2f}M",
            _UNKNOWN if times is None else f"{times:.2f}",
            _UNKNOWN if memories is None else f"{memories:.2f}",
        )
        return f"{start}  " + "  ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))

    def growth(self, curves: Sequence[Curve]) -> list[str]:
        """Lines on how the costs of choices grow, and from which side on they take less than others.

        Args:
            curves: of all choices.
        """
        names = "  ".join(cell.rjust(width) for cell, width in zip(_GROWTH, _GROWTH_WIDTHS, strict=True))
        lines = [f"{self._name('grows as pixels to the power of', '')}  {names}"]
        for curve in curves:
            found = growth(curve)
            powers = tuple(_UNKNOWN if e is None else f"{e:.2f}" for e in found)
            lines.append(self._growth_line(curve[0].choice, (*powers, "", "")))
            for beside in curves_beside(curve, curves):
                other, time, memory = compare(curve, beside)
                name = other.model if other.attention is None else other.attention
                cells = ("", "", "", "", time.words, memory.words)
                lines.append(self._growth_line(None, cells, f"  beside {name}"))
        return lines

    def _growth_line(self, choice: Choice | None, cells: Sequence[str], text: str = "") -> str:
        name = self._name(choice.model, _attention(choice)) if choice else self._name(text, "")
        return (name + "  " + "  ".join(c.rjust(w) for c, w in zip(cells, _GROWTH_WIDTHS, strict=True))).rstrip()

    def _name(self, model: str, attention: str) -> str:
        wide = self._widths[0] + 2 + self._widths[1]
        return (f"{model:{self._widths[0]}}  {attention}" if attention else model).ljust(wide)

    def _start(self, model: str, attention: str, size: str) -> str:
        widths = self._widths
        return f"{model:{widths[0]}}  {attention:{widths[1]}}  {size:>{widths[2]}}"


def in_short(size: Size) -> str:
    """A size as a word: 224 of a square, else 512x2048."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def seconds_in_words(seconds: float) -> str:
    """Seconds, or milliseconds below one."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"


def bytes_in_words(number: int) -> str:
    """Mebibytes, or gibibytes from one on."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _attention(choice: Choice) -> str:
    return choice.attention or "timm's"
