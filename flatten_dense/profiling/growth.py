"""How costs grow with the size of the image: exponents, forecasts, and where one cost falls below another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def growth_exponent(pixels: Sequence[float], costs: Sequence[float]) -> float | None:
    """The e of cost = factor * pixels ** e, by least squares of the logarithms; None with fewer than two sizes.

    Args:
        pixels: of the images.
        costs: at those; one that is not positive is left out.
    """
    known = [(math.log(p), math.log(c)) for p, c in zip(pixels, costs, strict=True) if c > 0]
    if len({p for p, _ in known}) < 2:
        return None
    x, y = np.array(known).T
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def forecast(pixels: Sequence[float], costs: Sequence[float], wanted: float) -> float | None:
    """The cost at a larger size, from how it grew between the last two, but at least in proportion to the pixels.

    Args:
        pixels: of the sizes known, ascending.
        costs: at those, positive.
        wanted: pixels of the size in question.

    Returns:
        The cost, or None if none is known.
    """
    if not pixels:
        return None
    exponent = growth_exponent(pixels[-2:], costs[-2:]) or 1.0
    return float(costs[-1] * (wanted / pixels[-1]) ** max(1.0, exponent))


class Crossover(NamedTuple):
    """Where a cost falls below another's, and stays there up to the largest size.

    Attributes:
        words: it, to be read after "from".
        side: in pixels, interpolated; None where it lies outside of the sizes, or one of the costs is not known.
        latest: a side by which it has happened; None if it has not by the largest.
    """

    words: str
    side: float | None
    latest: float | None


def crossover(sides: Sequence[float], costs: Sequence[float | None], others: Sequence[float | None]) -> Crossover:
    """Find where ``costs`` fall below ``others``: between two sizes a straight line of the logarithms is assumed.

    Args:
        sides: of the images in pixels, ascending.
        costs: at those; None for one that is too large to be had here.
        others: what they are compared with, likewise.
    """
    known = [
        (side, _log_ratio(cost, other))
        for side, cost, other in zip(sides, costs, others, strict=True)
        if cost or other  # sizes at which neither is known say nothing
    ]
    if not known:
        return Crossover("not measured", None, None)
    if known[-1][1] >= 0:
        return Crossover(f"beyond {known[-1][0]:.0f}", None, None)
    dearer = [index for index, (_, ratio) in enumerate(known) if ratio >= 0]
    if not dearer:
        return Crossover(f"below {known[0][0]:.0f}", None, known[0][0])
    (low, before), (high, after) = known[dearer[-1] : dearer[-1] + 2]
    if math.isinf(before) or math.isinf(after):
        return Crossover(f"between {low:.0f} and {high:.0f}", None, high)
    side = low * (high / low) ** (before / (before - after))
    return Crossover(f"about {side:.0f}", side, side)


def _log_ratio(cost: float | None, other: float | None) -> float:
    if cost and other:
        return math.log(cost / other)
    return math.inf if other else -math.inf
