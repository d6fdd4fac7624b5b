"""A metrics.csv that survives a kill and goes on after a resume."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

_Row = dict[str, str]


class AppendingCSVLogger(Logger):
    """Write every row of metrics to ``directory/metrics.csv`` as it comes, and append to what is there.

    Lightning's own CSVLogger buffers 100 steps, which a kill loses, and empties a directory that is used again.

    Args:
        directory: the run's directory; made when the first row is written.
        resume_step: the optimiser step the run resumes from. Rows from there on belong to work that is done again:
            they move to ``metrics.replaced.csv``, so that steps in metrics.csv stay in order and nothing is lost.
    """

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = directory / "metrics.csv"
        self._resume_step = resume_step
        self._columns: list[str] | None = None

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """Empty: the directory's name is the version."""
        return ""

    @property
    def log_dir(self) -> str:
        """The run's directory, which the Trainer reports as its own."""
        return str(self.path.parent)

    @property
    def save_dir(self) -> str:
        """The same directory."""
        return self.log_dir

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Nothing: the run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row and flush it."""
        if self._columns is None:
            self._columns = self._open()
        row = {"step": str(step), **{key: f"{float(value):.8g}" for key, value in metrics.items()}}
        new = [key for key in row if key not in self._columns]
        if new:
            rows = _read(self.path)
            self._columns += new
            _write(self.path, self._columns, rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)

    def _open(self) -> list[str]:
        """Set aside the rows that the resumed run writes again; return the columns of the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = _read(self.path)
        if not rows:
            return []
        columns = list(rows[0])
        kept = rows
        if self._resume_step is not None:
            # Lightning numbers steps from 0, and a validation by the step before it.
            kept = [row for row in rows if int(row["step"]) < self._resume_step]
            replaced = [row for row in rows if int(row["step"]) >= self._resume_step]
            if replaced:
                _append(self.path.with_name("metrics.replaced.csv"), columns, replaced)
        _write(self.path, columns, kept)
        return columns


def _read(path: Path) -> list[_Row]:
    if not path.exists():
        return []
    text = path.read_text()
    # A kill can cut the last line short: without its newline it is not a whole row.
    whole_lines = text[: text.rfind("\n") + 1].splitlines()
    return list(csv.DictReader(whole_lines))


def _write(path: Path, columns: list[str], rows: list[_Row]) -> None:
    temporary = path.with_suffix(".csv.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, path)


def _append(path: Path, columns: list[str], rows: list[_Row]) -> None:
    earlier = _read(path)
    names = list(earlier[0]) if earlier else []
    _write(path, names + [column for column in columns if column not in names], earlier + rows)
