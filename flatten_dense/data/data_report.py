"""What a check of a data set found, in plain data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

Severity = Literal["error", "warning"]
Counts = TypeVar("Counts")


@dataclass(frozen=True)
class Problem:
    """Something in the data.

    Attributes:
        kind: what it is, in a word or two that never change.
        severity: an error stops a training or makes its scores wrong; a warning may be meant so.
        split: where; "" for more than one split.
        message: what was found, what it should be, what to do.
        files: each with what is to be said about it alone, or "".
    """

    kind: str
    severity: Severity
    split: str
    message: str
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class CountTable:
    """Numbers to show.

    Attributes:
        title: above the table.
        columns: the headings; what stands below the first is a name, below the others numbers.
        rows: as many cells as columns each.
        totals: rows that are set apart at the bottom.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    totals: list[tuple[str, ...]] = field(default_factory=list)


@dataclass
class DataReport(ABC, Generic[Counts]):
    """What a check found.

    Attributes:
        root: the folder.
        class_names: K names; empty if the classes could not be found out.
        splits: counts of the splits that could be read, in the order train, val, test.
        problems: errors first.
    """

    root: str
    class_names: tuple[str, ...]
    splits: dict[str, Counts] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @abstractmethod
    def amount(self) -> str:
        """How much was read, in words."""

    @abstractmethod
    def tables(self) -> list[CountTable]:
        """The counts of all splits, to be shown."""

    @abstractmethod
    def split_dict(self, counts: Counts) -> dict[str, Any]:
        """The counts of a split in plain types, for JSON."""

    def count(self, severity: Severity) -> int:
        """Number of problems of a severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        problems = [
            {**asdict(problem), "files": [{"path": path, "detail": detail} for path, detail in problem.files]}
            for problem in self.problems
        ]
        return {
            "root": self.root,
            "clean": self.count("error") == 0,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "class_names": list(self.class_names),
            "splits": {name: self.split_dict(counts) for name, counts in self.splits.items()},
            "problems": problems,
        }
