"""Score saved masks of anybody's model: mIoU, mAcc and aAcc over a whole folder, and each class.

    python tools/evaluate_masks.py truth/ predictions/ --classes 150 --zero-is-ignore --protocol sceneparsing
    python tools/evaluate_masks.py truth/ predictions/ --classes 19 --class-names classes.txt --json > scores.json

Both folders hold one PNG of one channel per image, under the same names, subfolders included, at the same sizes. What
the values mean:

    =====================  ===============  ===================  =======================
    .                      classes          in the truth         in a prediction
    =====================  ===============  ===================  =======================
    by default             0..N-1           255 is ignored       255 is wrong
    --zero-is-ignore       1..N             0 is ignored         0 is wrong
    --ignore-index V       as above         V is ignored         V is wrong
    =====================  ===============  ===================  =======================

With ``--zero-is-ignore``, 255 has no meaning of its own; ``--ignore-index 255`` ignores it too. A prediction that is
wrong in this way gives the pixel no class: it is missing from its true class (in whose union it stays), and no class's
false alarm. Any other value is an error, and nothing is scored until all files are right.

The protocols say which classes the means are over; see ``flatten_dense.metrics.score_confusion``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from torch import Tensor

from flatten_dense.data.class_list import read_class_list
from flatten_dense.data.images import DataError, first_few, read_mask
from flatten_dense.data.pairs import pair_files
from flatten_dense.metrics import (
    PROTOCOLS,
    SegmentationConfusion,
    SegmentationScores,
    per_class_rows,
    scores_as_dict,
)

_NO_CLASS = -1


@dataclass(frozen=True)
class Coding:
    """What the values of the masks mean.

    Attributes:
        num_classes: N.
        zero_is_ignore: classes are 1..N, and 0 is none; otherwise they are 0..N-1.
        ignore_index: another value that is no class, or None.

    Raises:
        ValueError: if there are fewer than 2 classes, or ``ignore_index`` is one.
    """

    num_classes: int
    zero_is_ignore: bool = False
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f"--classes must be at least 2, got {self.num_classes}")
        if self.ignore_index in self.values:
            raise ValueError(
                f"{self.ignore_index} would be ignored, but is one of the classes {self.values[0]}..{self.values[-1]}; "
                "name another value by --ignore-index (-1 if no value is ignored)"
            )

    @property
    def values(self) -> range:
        """The values that are classes, in order."""
        first = int(self.zero_is_ignore)
        return range(first, first + self.num_classes)

    def to_classes(self, mask: Tensor) -> Tensor:
        """Values as in the file -> class indices 0..N-1, -1 for no class, N or more for values without a meaning."""
        mask = mask.long()  # an 8-bit mask would be compared with the remainder of -1 or 256
        none = mask == self.ignore_index if self.ignore_index is not None else torch.zeros_like(mask, dtype=torch.bool)
        if self.zero_is_ignore:
            none |= mask == 0
        return torch.where(none, _NO_CLASS, mask - self.values[0])

    def describe(self) -> str:
        """What a mask may hold, for a message."""
        none = [0] * self.zero_is_ignore + [self.ignore_index] * (self.ignore_index not in (None, _NO_CLASS))
        return f"{self.values[0]}..{self.values[-1]}" + "".join(f" or {value} (no class)" for value in none)


@dataclass(frozen=True)
class Folders:
    """Two folders of masks, and how the files that belong together are named.

    Attributes:
        truth: folder of the true masks.
        predictions: folder of the predicted ones.
        truth_suffix: how the names of true masks end beyond the part that both share.
        prediction_suffix: the same for predictions.
    """

    truth: Path
    predictions: Path
    truth_suffix: str = ".png"
    prediction_suffix: str = ".png"


def evaluate(folders: Folders, coding: Coding, protocol: str = "mmseg") -> tuple[SegmentationScores, int]:
    """Score all predictions of a folder.

    Returns:
        The scores, and the number of masks scored.

    Raises:
        DataError: one message about everything that is wrong with the files.
    """
    pairing = pair_files(folders.truth, folders.predictions, folders.truth_suffix, folders.prediction_suffix)
    problems: dict[str, list[str]] = defaultdict(list)
    for what, folder, files in (
        ("true mask(s) without a prediction", folders.truth, pairing.lone_images),
        ("prediction(s) without a true mask", folders.predictions, pairing.lone_masks),
        ("true mask(s) of a name that another has", folders.truth, pairing.repeated_images),
        ("prediction(s) of a name that another has", folders.predictions, pairing.repeated_masks),
    ):
        problems[f"{what} in {folder}"] += [str(path.relative_to(folder)) for path in files]
    confusion = SegmentationConfusion(coding.num_classes, _NO_CLASS, protocol, unclassified_index=_NO_CLASS)
    for paths in _with_progress(pairing.samples):
        truth, prediction = (_read(path, coding, problems) for path in paths)
        if truth is None or prediction is None:
            continue
        if truth.shape != prediction.shape:
            sizes = " and ".join(f"{mask.shape[1]}x{mask.shape[0]}" for mask in (truth, prediction))
            problems["pair(s) of different sizes"].append(f"{paths[0].relative_to(folders.truth)} ({sizes})")
            continue
        confusion.update(prediction, truth)
    if any(problems.values()):
        raise DataError(_summary(folders, coding, problems, none_paired=not pairing.samples))
    return confusion.compute(), len(pairing.samples)


def _with_progress(samples: Sequence[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(samples, description="masks")


def _read(path: Path, coding: Coding, problems: dict[str, list[str]]) -> Tensor | None:
    """A mask as class indices; None if it is not as it must be, which is then noted."""
    try:
        values = read_mask(path)
    except DataError as error:
        problems["file(s) that are no masks"].append(str(error).partition(";")[0])  # the rest is advice for training
        return None
    mask = coding.to_classes(values)
    outside = values[mask >= coding.num_classes].unique().tolist()
    if outside:
        problems["file(s) with other values"].append(f"{path} ({first_few(outside)})")
    return None if outside else mask


def _summary(folders: Folders, coding: Coding, problems: dict[str, list[str]], none_paired: bool) -> str:
    lines = [f"{len(items)} {what}: {first_few(items)}" for what, items in problems.items() if items]
    if none_paired:
        lines.append("no name is in both folders; name the different endings by --gt-suffix and --pred-suffix")
    text = "\n  ".join([f"the masks in {folders.truth} and {folders.predictions} cannot be scored:", *lines])
    text += f"\nExpected in both folders: PNGs of one channel, same names, same sizes, values {coding.describe()}."
    if problems["file(s) with other values"]:
        shifted = "leave --zero-is-ignore out" if coding.zero_is_ignore else "use --zero-is-ignore"
        text += f" If the classes are counted from {int(not coding.zero_is_ignore)}, {shifted}"
        text += "; --ignore-index V ignores the value V in the truth."
    return text


def print_table(scores: SegmentationScores, names: Sequence[str]) -> None:
    """Print each class and the means, as fractions."""
    rows = per_class_rows(scores, names)
    width = max(len(name) for name in [*names, "class"])
    print(f"{'class':{width}}  {'IoU':>8}  {'Acc':>8}  {'precision':>9}  {'truth px':>13}  {'predicted px':>13}")
    for row in rows:
        iou, acc, precision = ("-" if row[key] is None else f"{row[key]:.6f}" for key in ("IoU", "Acc", "precision"))
        pixels = f"{row['truth_pixels']:>13,}  {row['predicted_pixels']:>13,}"
        print(f"{row['class']:{width}}  {iou:>8}  {acc:>8}  {precision:>9}  {pixels}")
    print(f"\nmIoU {scores.mIoU:.6f}\nmAcc {scores.mAcc:.6f}\naAcc {scores.aAcc:.6f}")


def _arguments(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate_masks.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("truth", type=Path, metavar="GT_DIR", help="folder of the true masks")
    parser.add_argument("predictions", type=Path, metavar="PRED_DIR", help="folder of the predicted masks")
    parser.add_argument("--classes", type=int, required=True, metavar="N", help="number of classes")
    parser.add_argument("--zero-is-ignore", action="store_true", help="classes are 1..N and 0 is none of them")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="mmseg", help="default: mmseg")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    parser.add_argument("--ignore-index", type=int, metavar="V", help="value that is no class (default: 255 or 0)")
    parser.add_argument("--class-names", type=Path, metavar="FILE", help="a name per line; by default the values")
    parser.add_argument("--gt-suffix", default=".png", metavar="TEXT", help="end of true masks' names, _labelIds.png")
    parser.add_argument("--pred-suffix", default=".png", metavar="TEXT", help="end of predictions' names")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status, 2 if the input is not as it must be."""
    options = _arguments(args)
    ignore_index = options.ignore_index
    if ignore_index is None and not options.zero_is_ignore:
        ignore_index = 255
    try:
        coding = Coding(options.classes, options.zero_is_ignore, ignore_index)
        names = [str(value) for value in coding.values]
        if options.class_names:
            names = list(read_class_list(options.class_names).names)
        if len(names) != coding.num_classes:
            raise DataError(f"{options.class_names} names {len(names)} classes, but --classes is {coding.num_classes}")
        folders = Folders(options.truth, options.predictions, options.gt_suffix, options.pred_suffix)
        scores, count = evaluate(folders, coding, options.protocol)
    except ValueError as error:
        print(f"evaluate_masks.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({**scores_as_dict(scores, names), "num_images": count}, indent=2, allow_nan=False))
    else:
        print(f"{count} masks, {coding.num_classes} classes, protocol {options.protocol}\n")
        print_table(scores, names)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
