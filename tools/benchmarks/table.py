"""A Markdown table that appears row by row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Table:
    """Prints its head at once and each row when it is known.

    Args:
        columns: name to format specification of the numbers in it.

    Attributes:
        rows: what the cells held, under the columns' names.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = dict(columns)
        self.rows: list[dict[str, Any]] = []
        print(f"\n| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}", flush=True)

    def add(self, *cells: object) -> None:
        """Print a row; a cell that is None is a dash, one that is a string stays as it is."""
        shown = [
            "-" if cell is None else cell if isinstance(cell, str) else format(cell, specification)
            for cell, specification in zip(cells, self.columns.values(), strict=True)
        ]
        print(f"| {' | '.join(shown)} |", flush=True)
        self.rows.append(dict(zip(self.columns, cells, strict=True)))


def ratio(own: float, other: float) -> float | None:
    """One number over another; None where that is nothing."""
    return own / other if other else None
