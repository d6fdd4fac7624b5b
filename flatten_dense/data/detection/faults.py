"""What a reader of annotation files stumbles over, kept so that a check can tell all of it at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flatten_dense.data.data_report import Problem
from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.images import DataError

_SHOWN = 5


class Fault(NamedTuple):
    """One place in the files of a split that is not as it must be.

    Attributes:
        kind: what it is, in a word or two that never change.
        what: what such places are and what they should be, as said after their number.
        path: the file.
        detail: which part of the file, and what stands there.
    """

    kind: str
    what: str
    path: str
    detail: str = ""


@dataclass
class SplitReading:
    """A split as far as it can be understood.

    Attributes:
        annotations: everything that has no fault.
        faults: the rest.
        own_ids: whether the ids stand in the user's files, so that it helps to name them.
    """

    annotations: DetectionAnnotations
    faults: list[Fault] = field(default_factory=list)
    own_ids: bool = False

    def require(self) -> DetectionAnnotations:
        """The split, if nothing in it is at fault.

        Raises:
            DataError: with the first faults.
        """
        if not self.faults:
            return self.annotations
        lines = [f"{path}: {what}{detail and f' ({detail})'}" for _, what, path, detail in self.faults[:_SHOWN]]
        more = len(self.faults) - len(lines)
        raise DataError(
            f"{self.annotations.source}: {len(self.faults)} fault(s) in the annotations:\n  "
            + "\n  ".join(lines)
            + (f"\n  and {more} more" if more else "")
            + "\nCorrect the files; `flatten-dense check-data` lists every fault of all splits"
        )


def as_problems(split: str, faults: Sequence[Fault]) -> Iterator[Problem]:
    """One error for all faults that are said in the same words, in the order of their first."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for fault in faults:
        groups[fault.kind, fault.what].append((fault.path, fault.detail))
    for (kind, what), files in groups.items():
        yield Problem(kind, "error", split, f"{len(files)} {what}", tuple(files))
