r"""Train small models that differ in their attention alone, with several seeds, and compare the scores.

    python tools/compare_attention.py cores  --data.root cifar10_small --output runs_cores
    python tools/compare_attention.py power  --data.root cifar10_small --output runs_power
    python tools/compare_attention.py window --data.root cifar10_small --output runs_window

`cores` is the paper's tables 3a and 4 in miniature, `power` table 5, `window` table 6. Options that are not listed here
go to each `flatten-dense fit`. The same command again skips the runs that are finished and goes on with the others, and
with more --seeds adds to them. After each run results.csv, table.md and plot.png in the output folder are up to date.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import yaml
from experiments.json_files import draft_of, write_json
from experiments.runs import Result, Run, runs_of, train
from experiments.starts import note_start
from experiments.tables import write_tables
from experiments.variants import EXPERIMENTS, Experiment

from flatten_dense.commands.recipes import find_recipe

_OURS = ("--runs", "--name", "--ckpt_path", "--seed_everything", "--dry_run", "--dry-run")


def main(args: Sequence[str] | None = None) -> int:
    """Train what is left of an experiment; return 1 if a run failed."""
    parser = _parser()
    arguments, more = parser.parse_known_args(args)
    experiment: Experiment = EXPERIMENTS[arguments.experiment]
    options = ["--data.root", str(arguments.data_root), *more]
    try:
        _check(experiment, arguments.data_root, more)
        _record(arguments.output, arguments.experiment, experiment.recipe, options)
    except ValueError as error:
        parser.error(str(error))
    with _lock(arguments.output) as lock:
        runs = runs_of(experiment, _all_seeds(arguments.output, experiment, arguments.seeds), arguments.output)
        left = [run for run in runs if run.seed in arguments.seeds and run.result() is None]
        print(f"{len(runs)} runs, {len(left)} to train; all is in {arguments.output}", flush=True)
        if left and (changes := note_start(_note(arguments.output), arguments.jobs, arguments.threads)):
            print(f"not all is trained with the same code: {changes}", flush=True)
        failed: set[Run] = set()
        ended = train(tuple(left), experiment.recipe, options, arguments.jobs, arguments.threads, lock.fileno())
        with closing(ended):
            for run, outcome in ended:
                left.remove(run)
                if isinstance(outcome, str):
                    failed.add(run)
                print(_line(run, outcome, left, runs, arguments.jobs), flush=True)
                write_tables(arguments.output, experiment, runs, failed)
                if failed and not any(other.has_begun() for other in runs):
                    print("stopped: no run has begun to train, and the others would fail as this one did", flush=True)
                    return 1
        print(write_tables(arguments.output, experiment, runs, failed))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--data.root", dest="data_root", type=Path, required=True, help="with train/ and val/")
    parser.add_argument("--output", type=Path, required=True, help="a new folder, or that of the same experiment")
    parser.add_argument("--seeds", type=_at_least(0), nargs="+", default=[0, 1, 2], help="of each variant")
    parser.add_argument("--jobs", type=_at_least(1), default=1, help="runs at once")
    parser.add_argument("--threads", type=_at_least(1), default=1, help="of each run")
    return parser


def _at_least(least: int) -> Any:  # noqa: ANN401 - what argparse takes as a type
    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer from {least}, got {text!r}")
        return int(text)

    return integer


def _check(experiment: Experiment, root: Path, more: Sequence[str]) -> None:
    """Refuse what would make all runs fail, or compare something else.

    Raises:
        ValueError: there is anything like it.
    """
    if not root.is_dir():
        raise ValueError(f"--data.root {root}: no such folder")
    varied = {name for variant in experiment.variants for name in variant.options[::2]}
    for word in more:
        if word.partition("=")[0] in {*_OURS, *varied}:
            raise ValueError(f"{word}: this script sets that option of `fit` itself, for each run; leave it out")


def _record(folder: Path, name: str, recipe: str, options: list[str]) -> None:
    """Note in the output folder what its runs are trained with.

    Raises:
        ValueError: its runs were trained with something else, or it holds something else.
    """
    note = _note(folder)
    now = {"experiment": name, "options": options, "recipe": yaml.safe_load(find_recipe(recipe).read_text())}
    if note.exists():
        was = json.loads(note.read_text(encoding="utf-8"))
        advice = "name another folder"
        if was["experiment"] != name:
            raise ValueError(f"--output {folder} holds the experiment {was['experiment']!r}, not {name!r}: {advice}")
        if was["options"] != options:
            more, fewer = (_difference(*pair) for pair in ((options, was["options"]), (was["options"], options)))
            how = " and ".join(part for part in (more and f"without {more}", fewer and f"with {fewer}") if part)
            raise ValueError(f"--output {folder} was trained {how or 'with the options in another order'}: {advice}")
        if was["recipe"] != now["recipe"]:
            raise ValueError(f"--output {folder} was trained with another state of the recipe {recipe}: {advice}")
    elif folder.exists() and (not folder.is_dir() or {*folder.iterdir()} - {draft_of(note)}):
        raise ValueError(f"--output {folder} holds something else than an experiment: name a new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note, now)


def _note(folder: Path) -> Path:
    return folder / "experiment.json"


def _difference(options: Sequence[str], others: Sequence[str]) -> str:
    """The options, with their values, that are not among others."""
    pairs, known = (re.split(r" (?=--)", " ".join(words)) for words in (options, others))
    return " ".join(pair for pair in pairs if pair not in known)


def _lock(folder: Path) -> IO[str]:
    """Wait until no run of an earlier start is under way here: after a kill of this script they end by themselves."""
    file = (folder / "lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for runs in {folder} that are under way already", flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _all_seeds(folder: Path, experiment: Experiment, seeds: Sequence[int]) -> list[int]:
    """Those asked for, and those of earlier starts."""
    results = [path for variant in experiment.variants for path in (folder / variant.name).glob("seed_*/result.json")]
    return sorted({*seeds, *(int(path.parent.name.removeprefix("seed_")) for path in results)})


def _line(run: Run, outcome: Result | str, left: Sequence[Run], runs: Sequence[Run], jobs: int) -> str:
    """What became of a run, and how long the rest will take."""
    who = f"{run.variant.name}, seed {run.seed}:"
    rest = f"{len(left)} left, {_time_left(left, runs, jobs)}" if left else "none left"
    if isinstance(outcome, str):
        return f"{who} failed, {outcome}\n{rest}"
    seconds = "after an interruption" if outcome.seconds is None else f"in {outcome.seconds:.0f} s"
    return f"{who} {outcome.score} {100 * outcome.value:.2f} % {seconds}; {rest}"


def _time_left(left: Sequence[Run], runs: Sequence[Run], jobs: int) -> str:
    """By what the finished runs of the same variant took, or all where there is none."""
    known: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        result = run.result()
        if result is not None and result.seconds is not None:
            known[run.variant.name].append(result.seconds)
    if not known:
        return "no telling how long"
    usual = statistics.mean(second for own in known.values() for second in own)
    seconds = sum(statistics.mean(known.get(run.variant.name, [usual])) for run in left) / jobs
    return f"about {seconds / 60:.0f} min"


if __name__ == "__main__":
    # So that, like the keyboard, it asks the runs under way to save themselves and to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
