"""Run directories: `runs/NAME/TIME`, never used twice except by a resume."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

# Lightning starts the further processes of a run with the environment of the first.
_ENVIRONMENT = "FLATTEN_DENSE_RUN"


def new_run(root: Path, name: str) -> Path:
    """Make `root/name/TIME`; a second run in the same second gets a number.

    In a run of several processes only the first makes it, and only the first writes there.
    """
    if rank_zero_only.rank and _ENVIRONMENT in os.environ:  # type: ignore[attr-defined]
        return Path(os.environ[_ENVIRONMENT])
    started = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    run = root / name / started
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return run
    number = 1
    while True:
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            number += 1
            run = root / name / f"{started}_{number}"
        else:
            os.environ[_ENVIRONMENT] = str(run)
            return run


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint lies in, or None if it lies elsewhere."""
    run = checkpoint.absolute().parent.parent
    return run if checkpoint.absolute().parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


def newest_config(run: Path) -> Path:
    """The config of the last resume, or of the start if there was none."""
    return _configs(run)[-1]


@rank_zero_only
def save_config(run: Path, config: str) -> None:
    """Write `config.yaml`, or beside an earlier one `config.resume_1.yaml` and so on."""
    number = len(_configs(run))
    (run / (f"config.resume_{number}.yaml" if number else "config.yaml")).write_text(config)


def _configs(run: Path) -> list[Path]:
    resumed = sorted(run.glob("config.resume_*.yaml"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [path for path in (run / "config.yaml", *resumed) if path.exists()]
