"""Run directories: `runs/NAME/TIME`, never used twice except by a resume."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only


def new_run(root: Path, name: str) -> Path:
    """Make `root/name/TIME`; a second run in the same second gets a number.

    In a run of several processes only the first makes it, and only the first writes there.
    """
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
            return run


def run_of(checkpoint: Path) -> Path | None:
    """The run that a checkpoint lies in, or None if it lies elsewhere."""
    run = checkpoint.absolute().parent.parent
    return run if checkpoint.absolute().parent.name == "checkpoints" and (run / "config.yaml").is_file() else None


@rank_zero_only
def save_config(run: Path, config: str) -> None:
    """Write `config.yaml`, or beside an earlier one `config.resume_1.yaml` and so on."""
    path = run / "config.yaml"
    number = 0
    while path.exists():
        number += 1
        path = run / f"config.resume_{number}.yaml"
    path.write_text(config)
