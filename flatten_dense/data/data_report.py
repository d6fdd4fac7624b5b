"""What a check of a data set found, in plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning"]


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


@dataclass
class SplitCounts:
    """What the masks of a split hold.

    Attributes:
        pairs: photos that have a mask.
        pixels: of all masks that could be read.
        ignored: pixels without label.
        class_pixels: number of pixels of each of the K classes.
        class_images: number of masks in which each class occurs.
    """

    pairs: int
    pixels: int
    ignored: int
    class_pixels: list[int]
    class_images: list[int]


@dataclass
class DataReport:
    """What a check found.

    Attributes:
        root: the folder.
        class_names: K names; empty if the classes could not be found out.
        splits: counts of the splits that could be read, in the order train, val, test.
        problems: errors first.
    """

    root: str
    class_names: tuple[str, ...]
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def count(self, severity: Severity) -> int:
        """Number of problems of a severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        splits = {
            name: {
                "pairs": counts.pairs,
                "pixels": counts.pixels,
                "ignored_share": counts.ignored / counts.pixels if counts.pixels else None,
                "classes": {
                    class_name: {"pixels": pixels, "images": images}
                    for class_name, pixels, images in zip(
                        self.class_names, counts.class_pixels, counts.class_images, strict=True
                    )
                },
            }
            for name, counts in self.splits.items()
        }
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
            "splits": splits,
            "problems": problems,
        }
