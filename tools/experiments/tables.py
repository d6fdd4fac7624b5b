"""What came out of an experiment, as files: results.csv, table.md and plot.png."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from experiments.runs import Result, Run
from experiments.variants import Experiment, Variant
from flatten_dense.visualization.score_comparison import Scores, plot_scores


def write_tables(folder: Path, experiment: Experiment, runs: Sequence[Run], failed: Collection[Run]) -> str:
    """Write the three files.

    Args:
        folder: of the experiment.
        experiment: what is compared.
        runs: all of it, finished or not.
        failed: those of them that ended without a result.

    Returns:
        The table in Markdown.
    """
    found = {(run.variant, run.seed): result for run in runs if (result := run.result())}
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Result)])
        writer.writeheader()
        writer.writerows(asdict(result) for result in found.values())
    text = table(experiment, sorted({run.seed for run in runs}), found, {(run.variant, run.seed) for run in failed})
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    if found:
        _plot(folder / "plot.png", experiment, found)
    return text


def table(
    experiment: Experiment,
    seeds: Sequence[int],
    found: Mapping[tuple[Variant, int], Result],
    failed: Collection[tuple[Variant, int]],
) -> str:
    """One line per variant, in Markdown; scores in percent."""
    heads = [experiment.what, "mean %", "std", "range", *(f"seed {seed}" for seed in seeds)]
    heads += ["parameters", "median s", "paper %"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for variant in experiment.variants:
        own = {seed: found[variant, seed] for seed in seeds if (variant, seed) in found}
        cells = [f"{100 * own[seed].value:.1f}" if seed in own else "-" for seed in seeds]
        cells = ["failed" if (variant, seed) in failed else cell for seed, cell in zip(seeds, cells, strict=True)]
        paper = "-" if variant.paper is None else f"{variant.paper:g}"
        lines.append(f"| {' | '.join([variant.name, *_summary(own.values()), *cells, *_cost(own.values()), paper])} |")
    return "\n".join(lines)


def _summary(results: Collection[Result]) -> list[str]:
    """Mean, sample standard deviation, range."""
    values = [100 * result.value for result in results]
    if not values:
        return ["-"] * 3
    spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "-"
    return [f"{statistics.mean(values):.1f}", spread, f"{min(values):.1f} to {max(values):.1f}"]


def _cost(results: Collection[Result]) -> list[str]:
    """Parameters, median of the seconds that are known."""
    parameters = next((f"{result.parameters:,}" for result in results), "-")
    seconds = [result.seconds for result in results if result.seconds is not None]
    return [parameters, f"{statistics.median(seconds):.0f}" if seconds else "-"]


def _plot(path: Path, experiment: Experiment, found: Mapping[tuple[Variant, int], Result]) -> None:
    scores = []
    for variant in experiment.variants:
        values = [100 * result.value for (other, _), result in found.items() if other == variant]
        note = "" if variant.paper is None else f"{variant.paper:g}"
        scores.append(Scores(variant.name, values, variant.position, note))
    name = next(iter(found.values())).score
    plot_scores(
        scores, path, experiment.title, f"{name}, %", experiment.what, f"top-1 of the paper's {experiment.paper}"
    )
