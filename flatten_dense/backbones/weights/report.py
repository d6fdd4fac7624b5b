"""What became of every tensor when weights were loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["loaded", "resized", "adapted", "copied by name", "re-initialised", "dropped", "unused", "other part"]


@dataclass(frozen=True)
class WeightRow:
    """One tensor, or one other part of a task.

    Attributes:
        kind: ``loaded`` as it is; ``resized`` to another grid; ``adapted`` to other image channels; ``copied by name``
            for the rows of classes that both sides have; ``re-initialised``, left fresh in the model; ``dropped`` from
            the source for a reason; ``unused`` without one; ``other part`` of the task that the source holds.
        name: of the tensor in the model; in the source if it has no place in the model.
        detail: what was done, or why not.
        numel: its numbers.
        tensors: how many the row stands for; 0 for the rest of one that has another row.
    """

    kind: Kind
    name: str
    detail: str
    numel: int
    tensors: int = 1


@dataclass(frozen=True)
class WeightReport:
    """What became of every tensor when weights were loaded; as text, a table.

    Attributes:
        source: where the weights came from.
        rows: one for each tensor of the model and of the source; two for a classifier that is copied in part.
        coverage: share of the model's parameters that came from the source, the classifier apart.
        used: share of the source's numbers that went into the model, apart from what was dropped for a reason, the
            classifier and other parts of a task.
    """

    source: str
    rows: tuple[WeightRow, ...]
    coverage: float
    used: float

    def of_kind(self, *kinds: Kind) -> list[WeightRow]:
        """The rows of some kinds, in order."""
        return [row for row in self.rows if row.kind in kinds]

    def largest(self, *kinds: Kind) -> str:
        """The rows alike that hold the most numbers, in words; empty if there are none."""
        lines = collapse(self.of_kind(*kinds))
        if not lines:
            return ""
        line = max(lines, key=lambda line: line.numel)
        return f"{line.name}, {line.numel:,} parameters ({line.detail})"

    def __str__(self) -> str:
        lines = [f"weights from {self.source}", "", f"{'':15}{'tensors':>8}{'parameters':>13}"]
        for line in collapse(self.rows):
            which = f"{line.name}: {line.detail}" if line.detail else line.name
            lines.append(f"{line.kind:<15}{line.tensors:>8}{line.numel:>13,}  {which}".rstrip())
        return "\n".join(
            [
                *lines,
                "",
                f"coverage: {self.coverage:.1%} of the model's parameters, from {self.used:.1%} of the usable tensors "
                "(classifiers apart)",
            ]
        )


def collapse(rows: Iterable[WeightRow]) -> list[WeightRow]:
    """One row for those that differ by their stage or block only, or by nothing worth telling; sorted by kind."""
    groups: dict[tuple[Kind, str, str], list[WeightRow]] = {}
    for row in rows:
        name = "" if row.kind == "loaded" else re.sub(r"\.(weight|bias)$", "", re.sub(r"\.\d+(?=\.|$)", ".*", row.name))
        groups.setdefault((row.kind, name, row.detail), []).append(row)
    lines = [
        WeightRow(kind, name, detail, sum(row.numel for row in group), sum(row.tensors for row in group))
        for (kind, name, detail), group in groups.items()
    ]
    order: tuple[Kind, ...] = get_args(Kind)
    return sorted(lines, key=lambda line: order.index(line.kind))
