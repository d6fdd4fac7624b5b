"""Run directories: `runs/NAME/TIME`, never used twice except by a resume."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

# Lightning starts further processes of a run with this process's environment: they must not make a directory each.
_ENVIRONMENT = "FLATTEN_DENSE_RUN"


def new_run(root: Path, name: str) -> Path:
    """Make `root/name/TIME`; a second run in the same second gets a number."""
    if _ENVIRONMENT in os.environ and rank_zero_only.rank != 0:
        return Path(os.environ[_ENVIRONMENT])
    started = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    run = root / name / started
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


def save_config(run: Path, config: str) -> Path:
    """Write `config.yaml`, or beside an earlier one `config.resume_1.yaml` and so on."""
    path = run / "config.yaml"
    number = 0
    while path.exists():
        number += 1
        path = run / f"config.resume_{number}.yaml"
    path.write_text(config)
    return path
