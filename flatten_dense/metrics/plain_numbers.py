"""Numbers as JSON holds them."""

import math


def number_or_none(value: float) -> float | None:
    """The number; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)
