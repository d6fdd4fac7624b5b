"""`flatten-dense check-data`: read a whole data set before training on it, and report all that is wrong."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from flatten_dense.commands.recipe_sections import class_named, recipe_section
from flatten_dense.commands.recipes import find_recipe
from flatten_dense.data.ade20k import ADE20KDataModule  # noqa: F401 - so that --data can name it
from flatten_dense.data.classification import ImageFolderDataModule
from flatten_dense.data.data_report import CountTable, DataReport, Problem
from flatten_dense.data.detection import CocoDataModule, VocDataModule, YoloDataModule  # noqa: F401
from flatten_dense.data.detection.datamodule import DetectionDataModule
from flatten_dense.data.folder_pairs import FolderPairsDataModule  # noqa: F401
from flatten_dense.data.segmentation import SegmentationDataModule

_DESCRIPTION = """Read every photo and all annotations of all splits and report all problems in one table. No file is
changed. Exit status: 0 without errors, 1 with errors, 2 if the command line is wrong. Warnings alone do not fail."""
_NAMES_CLASS = re.compile(r"--data(\.class_path|\.help)?(=|$)|-h$|--help$")
_CHECKED = (SegmentationDataModule, DetectionDataModule, ImageFolderDataModule)
_SHARDS = "ShardDataModule"
_FILES_SHOWN = 5
_WIDTH_OF_A_FILE = 140  # columns, where the output is no terminal


def run(args: Sequence[str]) -> int:
    """Check a data set; return 0 if it has no error, 1 if it has.

    Args:
        args: `-c RECIPE`, from which only the section `data` is taken, `--data` options as `fit` takes them, `--json`.

    Raises:
        ValueError: a recipe or an option is not as expected.
        argparse.ArgumentError: jsonargparse refuses an option.
    """
    parser = ArgumentParser(prog="flatten-dense check-data", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a recipe, by name or as a file")
    parser.add_argument("--json", action="store_true", help="print the whole report, with every file, as JSON")
    parser.add_subclass_arguments(_CHECKED, "data", required=True)
    options = parser.parse_args(_with_data_sections(args))
    data: SegmentationDataModule | DetectionDataModule | ImageFolderDataModule = parser.instantiate(options).data
    if not data.root.is_dir():
        raise ValueError(f"--data.root {data.root}: no such folder")
    if data.num_workers < 0:
        raise ValueError(f"--data.num_workers must be at least 0, got {data.num_workers}")
    started = time.perf_counter()
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("Reading photos", total=None)
        report = data.check(lambda done, total: progress.update(bar, completed=done, total=total))
    if options.json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        _print(report, time.perf_counter() - started)
    return 1 if report.count("error") else 0


def _with_data_sections(args: Sequence[str]) -> list[str]:
    """Put in place of recipes what they say of the data."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("-c", "--config", action="append", default=[])
    known, rest = finder.parse_known_args(args)
    sections = [recipe_section(find_recipe(name), "data") for name in known.config]
    if any(class_named(section) == _SHARDS for section in sections) or any(_SHARDS in word for word in rest):
        raise ValueError("shards are not checked: check the folder that they are made of, --data ImageFolderDataModule")
    if not any(class_named(section) for section in sections) and not any(map(_NAMES_CLASS.match, rest)):
        raise ValueError(
            "how the data are laid out is not said: give --data ADE20KDataModule or FolderPairsDataModule (masks), "
            "CocoDataModule, VocDataModule or YoloDataModule (boxes), ImageFolderDataModule (classes), a class of your "
            "own, or a recipe (-c), which says it"
        )
    return [word for section in sections for word in ("--config", json.dumps({"data": section}))] + rest


def _print(report: DataReport[Any], seconds: float) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_A_FILE)
    for counts in report.tables():
        console.print(_counts(counts))
    if report.problems:
        console.print(_problems(report.problems))
    errors, warnings = report.count("error"), report.count("warning")
    more = " (--json lists every file)" if any(len(p.files) > _FILES_SHOWN for p in report.problems) else ""
    summary = f"{report.root}: {errors} error(s), {warnings} warning(s) in {report.amount()}, {seconds:.1f} s{more}"
    console.print(summary, markup=False, soft_wrap=True)


def _counts(counts: CountTable) -> Table:
    table = Table(title=counts.title, title_justify="left")
    name, *numbers = counts.columns
    table.add_column(name, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right")
    for row in counts.rows:
        table.add_row(*map(escape, row))
    table.add_section()
    for row in counts.totals:
        table.add_row(*map(escape, row))
    return table


def _problems(problems: Sequence[Problem]) -> Table:
    table = Table(title="Problems", title_justify="left", show_lines=True)
    table.add_column("")
    table.add_column("kind")
    table.add_column("split")
    table.add_column("what", overflow="fold")
    for problem in problems:
        lines = [problem.message]
        lines += [f"  {path}" + (f": {detail}" if detail else "") for path, detail in problem.files[:_FILES_SHOWN]]
        if len(problem.files) > _FILES_SHOWN:
            lines.append(f"  and {len(problem.files) - _FILES_SHOWN} more")
        colour = "red" if problem.severity == "error" else "yellow"
        table.add_row(f"[{colour}]{problem.severity}[/]", problem.kind, problem.split, escape("\n".join(lines)))
    return table
