"""A training in a process of its own, and its score."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def start_fit(
    options: Sequence[str], log: Path, threads: int | None = None, keep_open: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start `flatten-dense fit`.

    Args:
        options: of `fit`.
        log: what it prints is appended to this file.
        threads: that it computes with; None leaves it to torch.
        keep_open: file descriptors that it inherits.
    """
    environment = os.environ | ({} if threads is None else dict.fromkeys(_THREADS, str(threads)))
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "flatten_dense.cli", "fit", *options],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=keep_open,
        )


def last_words(log: Path, letters: int = 3000) -> str:
    """The end of what a fit printed."""
    return log.read_text(encoding="utf-8", errors="replace")[-letters:].strip()


def newest_run(folder: Path, holding: str) -> Path | None:
    """The newest run of a name that has a file; None if there is none.

    Args:
        folder: `RUNS/NAME`.
        holding: path of the file within a run.
    """
    return max((path.parents[holding.count("/")] for path in folder.glob(f"*/{holding}")), default=None)


def main_score(metrics: dict[str, Any]) -> tuple[str, float]:
    """Name and value of the score that decides which evaluation of a run is the best.

    Args:
        metrics: the content of a run's metrics.json.
    """
    for name in ("mIoU", "top1"):
        if name in metrics:
            return name, float(metrics[name])
    return "box AP", float(metrics["bbox"]["AP"])
