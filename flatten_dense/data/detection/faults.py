"""What a reader of annotation files stumbles over, kept so that a check can tell all of it at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from flatten_dense.data.data_report import Problem, Severity
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
        severity: an error stops a training or makes its scores wrong; a warning may be meant so.
    """

    kind: str
    what: str
    path: str
    detail: str = ""
    severity: Severity = "error"


@dataclass
class SplitReading:
    """A split as far as it can be understood.

    Attributes:
        annotations: everything that is not wrong.
        faults: what is, or may be.
        own_ids: whether the ids stand in the user's files, so that it helps to name them.
    """

    annotations: DetectionAnnotations
    faults: list[Fault] = field(default_factory=list)
    own_ids: bool = False

    def require(self) -> DetectionAnnotations:
        """The split, if nothing in it is wrong.

        Raises:
            DataError: with the first errors.
        """
        errors = [fault for fault in self.faults if fault.severity == "error"]
        if not errors:
            return self.annotations
        lines = [f"{path}: {what}{detail and f' ({detail})'}" for _, what, path, detail, _ in errors[:_SHOWN]]
        more = len(errors) - len(lines)
        raise DataError(
            f"{self.annotations.source}: {len(errors)} fault(s) in the annotations:\n  "
            + "\n  ".join(lines)
            + (f"\n  and {more} more" if more else "")
            + "\nCorrect the files; `flatten-dense check-data` lists every fault of all splits"
        )


def as_problems(split: str, faults: Iterable[Fault]) -> Iterator[Problem]:
    """One problem for all faults that are said in the same words, in the order of their first."""
    groups: dict[tuple[str, str, Severity], list[tuple[str, str]]] = defaultdict(list)
    for kind, what, path, detail, severity in faults:
        groups[kind, what, severity].append((path, detail))
    for (kind, what, severity), files in groups.items():
        yield Problem(kind, severity, split, f"{len(files)} {what}", tuple(files))
