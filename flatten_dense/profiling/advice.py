"""What measurements say: where linear attention gets ahead of what it is beside, and which to use, in a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from flatten_dense.profiling.choices import Choice
from flatten_dense.profiling.growth import Crossover, crossover, growth_exponent
from flatten_dense.profiling.sweep import Point

Curve: TypeAlias = Sequence[Point]
"""Points of one choice, from small to large sizes."""

_HARDLY = 1.03  # ratios below it are noise
_STEP = 32  # pixels that an advised side is rounded up to


class Growth(NamedTuple):
    """Exponents e of cost = factor * pixels ** e; None where fewer than two sizes are known.

    Attributes:
        time: over all sizes.
        memory: over all sizes.
        last_time: between the two largest, where what does not depend on the size counts least.
        last_memory: likewise.
    """

    time: float | None
    memory: float | None
    last_time: float | None
    last_memory: float | None


class Comparison(NamedTuple):
    """A choice beside another: from which side on it takes less."""

    other: Choice
    time: Crossover
    memory: Crossover


def growth(curve: Curve) -> Growth:
    """How a choice's costs grow."""
    times = [(point.pixels, point.median) for point in curve if point.median]
    memories = [(point.pixels, float(point.peak)) for point in curve if point.peak]
    exponents = [growth_exponent([p for p, _ in c], [cost for _, cost in c]) for c in (times, memories)]
    last = [growth_exponent([p for p, _ in c], [cost for _, cost in c]) for c in (times[-2:], memories[-2:])]
    return Growth(*exponents, *last)


def compare(curve: Curve, other: Curve) -> Comparison:
    """Where a choice takes less than another, over the same sizes."""
    sides = [point.side for point in curve]
    return Comparison(
        other[0].choice,
        crossover(sides, [point.median for point in curve], [point.median for point in other]),
        crossover(sides, [point.peak for point in curve], [point.peak for point in other]),
    )


def curves_beside(curve: Curve, curves: Sequence[Curve]) -> list[Curve]:
    """What a choice with linear blocks is compared with: its own model with softmax only, then models of timm.

    Args:
        curve: in question; one without linear blocks is compared with nothing.
        curves: all that were measured.
    """
    choice = curve[0].choice
    if not choice.has_linear:
        return []
    own = [c for c in curves if not c[0].choice.has_linear and c[0].choice.model == choice.model]
    return own + [c for c in curves if c[0].choice.attention is None]


def advise(curves: Sequence[Curve]) -> list[str]:
    """One line for each model with linear attention that there is something to compare with.

    A model of timm is said to take more or less; it is never advised as an attention.

    Args:
        curves: all that were measured, at the same sizes.
    """
    lines = []
    for model in dict.fromkeys(curve[0].choice.model for curve in curves):
        own = [curve for curve in curves if curve[0].choice.model == model]
        linear = [curve for curve in own if curve[0].choice.has_linear]
        beside = curves_beside(linear[0], curves) if linear else []
        if beside:
            lines.append(f"{model}: {_advice(min(linear, key=_at_the_largest), beside[0])}")
    return lines


def _at_the_largest(curve: Curve) -> tuple[int, float]:
    """For the least: sizes that were not measured, then seconds at the largest."""
    measured = [point.median for point in curve if point.median is not None]
    return len(curve) - len(measured), measured[-1] if measured else math.inf


def _advice(linear: Curve, other: Curve) -> str:
    ours, theirs = in_words(linear[0].choice), in_words(other[0].choice)
    both = [(a, b) for a, b in zip(linear, other, strict=True) if a.median and b.median]
    if not both:
        return f"nothing to go by: {ours} and {theirs} were not measured at a common size"
    a, b = both[-1]
    speed = (b.median or math.nan) / (a.median or math.nan)
    memory = _memory(a, b)
    left_out = _left_out(linear, other, a.pixels)
    if other[0].choice.attention is None:  # no attention to choose, perhaps no transformer
        return f"beside {theirs}, at {a.side:.0f} {ours} takes {1 / speed:.2g} times as long, with {memory}{left_out}"
    crossing = compare(linear, other).time
    if not left_out and 1 / _HARDLY < speed < _HARDLY:
        return f"choose by accuracy: at {a.side:.0f} {ours} takes the time of {theirs} to within 3 %, and {memory}"
    if crossing.latest is None:
        return f"use {theirs}: {ours} takes {1 / speed:.2g} times as long at {a.side:.0f}, and {memory}{left_out}"
    is_everywhere = crossing.side is None and crossing.latest == linear[0].side
    start = math.ceil(crossing.latest / _STEP) * _STEP
    where = " at all these sizes" if is_everywhere else f" from {start} pixels on, {theirs} below"
    fact = f"{speed:.2g} times as fast" if speed > 1 else f"{1 / speed:.2g} times as slow"
    return f"use {ours}{where}: at {a.side:.0f} it is {fact}, with {memory}{left_out}"


def _memory(ours: Point, theirs: Point) -> str:
    if not ours.peak or not theirs.peak:
        return "memory unknown"
    ratio = ours.peak / theirs.peak
    return "the same memory" if 1 / _HARDLY < ratio < _HARDLY else f"{ratio:.2g} times the memory"


def _left_out(linear: Curve, other: Curve, beyond: int) -> str:
    """The first size above so many pixels that a choice could not take, and why."""
    for point in sorted((*linear, *other), key=lambda point: point.pixels):
        if point.skipped is not None and point.pixels > beyond:
            return f"; {in_words(point.choice)} at {point.side:.0f}: {point.skipped}"
    return ""


def in_words(choice: Choice) -> str:
    """A choice of attention as a phrase."""
    if choice.attention is None:
        return choice.model
    kinds = {letter for letter in choice.attention if letter.isalpha()}
    kind = "linear" if kinds == {"L"} else "softmax" if kinds == {"S"} else "mixed"
    return f"{kind} attention ({choice.attention})"
