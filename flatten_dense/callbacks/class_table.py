"""`per_class.csv`: an evaluation, class by class."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_class_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of the same columns; None leaves a cell empty.

    Args:
        path: the file, replaced if it is there.
        rows: one per class, at least one.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
