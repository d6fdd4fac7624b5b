"""The runs of an experiment on disk: which are finished, which go on, and training what is left."""

from __future__ import annotations

import json
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from experiments.fits import last_words, main_score, newest_run, start_fit
from experiments.json_files import write_json
from experiments.variants import Experiment, Variant
from flatten_dense.backbones import TimmClassifier

_POLL = 0.2  # seconds
_LAST = "checkpoints/last.ckpt"


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Attributes:
        variant: name of the variant.
        seed: of all random numbers.
        score: name of the score.
        value: of the score, at the best validation.
        seconds: from the start of the process to its end; None for a run that was interrupted.
        parameters: of the model.
        run: its folder, within that of the experiment.
    """

    variant: str
    seed: int
    score: str
    value: float
    seconds: float | None
    parameters: int
    run: str


@dataclass(frozen=True)
class Run:
    """A variant with a seed, in `FOLDER/VARIANT/seed_N`.

    Attributes:
        variant: the model.
        seed: of all random numbers.
        folder: of the experiment.
    """

    variant: Variant
    seed: int
    folder: Path

    @property
    def home(self) -> Path:
        """Its folder; the runs of `fit` lie in it."""
        return self.folder / self.variant.name / f"seed_{self.seed}"

    @property
    def log(self) -> Path:
        """What `fit` prints."""
        return self.home / "output.txt"

    def result(self) -> Result | None:
        """What came out of it, or None if it is not finished."""
        try:
            known = json.loads((self.home / "result.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return Result(**known | {"run": self._within(Path(known["run"]))})  # earlier versions noted absolute paths

    def _within(self, run: Path) -> str:
        return (self.home.relative_to(self.folder) / run.name).as_posix()

    def has_begun(self) -> bool:
        """Whether it has ever trained so far that `fit` wrote down how."""
        return any(self.home.glob("*/metrics.*"))

    def is_over(self) -> bool:
        """Whether it has a score already, and gets no other: not so before the last of several validations."""
        run = newest_run(self.home, "metrics.json")
        if run is None:
            return False
        try:
            json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        except ValueError:  # killed while it was written
            return False
        trainer = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["trainer"]
        is_at_end = trainer["check_val_every_n_epoch"] == trainer["max_epochs"]
        return is_at_end and trainer["val_check_interval"] in (None, 1.0)

    def start(self, recipe: str, options: Sequence[str], threads: int, lock: int) -> subprocess.Popen[bytes]:
        """Start it, or let it go on from its last checkpoint."""
        self.home.mkdir(parents=True, exist_ok=True)
        stopped = newest_run(self.home, _LAST)
        where = ["--ckpt_path", str(stopped / _LAST)] if stopped else ["--runs", str(self.home.parent), "--name"]
        command = ["-c", recipe, *where, *([] if stopped else [self.home.name])]
        command += ["--seed_everything", str(self.seed), "--trainer.enable_progress_bar", "false"]
        return start_fit([*command, *options, *self.variant.options], self.log, threads, (lock,))

    def finish(self, seconds: float | None) -> Result:
        """Write down what came out of it, so that it is not trained again.

        Raises:
            RuntimeError: it ended without a score.
        """
        run = newest_run(self.home, "metrics.json")
        if run is None:
            raise RuntimeError(
                "it ended without a validation: --trainer.check_val_every_n_epoch must not be larger than "
                "--trainer.max_epochs"
            )
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        score, value = main_score(metrics)
        parameters = count_parameters(run / "config.yaml", len(metrics["per_class"]))
        result = Result(self.variant.name, self.seed, score, value, seconds, parameters, self._within(run))
        write_json(self.home / "result.json", asdict(result))
        return result


def count_parameters(config: Path, num_classes: int) -> int:
    """Parameters of the classifier that a run's config.yaml describes."""
    task = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]["init_args"]
    model = TimmClassifier(**task["backbone"]["init_args"] | {"pretrained": False})
    model.set_num_classes(num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def runs_of(experiment: Experiment, seeds: Sequence[int], folder: Path) -> list[Run]:
    """All runs, in the order in which they are trained: all variants of a seed, then the next seed."""
    return [Run(variant, seed, folder) for seed in seeds for variant in experiment.variants]


def train(
    runs: Sequence[Run], recipe: str, options: Sequence[str], jobs: int, threads: int, lock: int
) -> Iterator[tuple[Run, Result | str]]:
    """Train runs, some at once; on the way out those that are not finished are asked to save themselves and to end.

    Args:
        runs: not finished.
        recipe: as `fit -c` takes it.
        options: of `fit`, of all runs.
        jobs: runs at once.
        threads: of each run.
        lock: file descriptor that the processes keep open.

    Yields:
        Each run as it ends, with its result, or with why there is none.
    """
    waiting = deque(runs)
    active: dict[Run, tuple[subprocess.Popen[bytes], float | None]] = {}
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.popleft()
                if run.is_over():  # and was killed, or this script was, before its result was noted
                    yield run, run.finish(None)
                    continue
                started = None if newest_run(run.home, _LAST) else time.perf_counter()
                active[run] = run.start(recipe, options, threads, lock), started
            time.sleep(_POLL)
            for run, (process, started) in list(active.items()):
                if process.poll() is None:
                    continue
                del active[run]
                yield run, _end_of(run, process, started)
    finally:
        for process, _ in active.values():
            process.terminate()
        for process, _ in active.values():
            process.wait()


def _end_of(run: Run, process: subprocess.Popen[bytes], started: float | None) -> Result | str:
    seconds = None if started is None else round(time.perf_counter() - started, 1)
    if process.returncode:
        return f"status {process.returncode}; the end of {run.log}:\n{last_words(run.log)}"
    try:
        return run.finish(seconds)
    except RuntimeError as error:
        return str(error)
