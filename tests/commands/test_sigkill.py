import csv
import signal
import subprocess
import sys
import time

import pytest

from flatten_dense.cli import main
from flatten_dense.tasks.checkpoint import read_checkpoint

STEPS, SAVE_EVERY = 40, 5


def steps_of(metrics):
    if not metrics.exists():
        return []
    with metrics.open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("train/lr")]


def test_sigkill_in_mid_epoch_loses_at_most_n_steps(fitted, tmp_path):
    options = ["--data.root", str(fitted.data), "--runs", str(tmp_path), "--name", "killed"]
    options += ["--trainer.max_steps", str(STEPS), "--save_every", str(SAVE_EVERY)]
    process = subprocess.Popen([sys.executable, "-m", "flatten_dense.cli", "fit", "-c", str(fitted.recipe), *options])
    deadline = time.monotonic() + 120
    while not any(len(steps_of(path)) > 13 for path in tmp_path.glob("killed/*/metrics.csv")):
        assert process.poll() is None, "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = (tmp_path / "killed").iterdir()
    done = steps_of(run / "metrics.csv")[-1] + 1
    saved = read_checkpoint(run / "checkpoints/last.ckpt")["global_step"]
    assert done - SAVE_EVERY <= saved <= done < STEPS

    assert main(["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0
    assert read_checkpoint(run / "checkpoints/last.ckpt")["global_step"] == STEPS
    assert steps_of(run / "metrics.csv") == list(range(STEPS))
    with (run / "metrics.csv").open() as file:
        rates = [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]
    assert rates == pytest.approx([1e-3 * (1 - step / STEPS) for step in range(STEPS)])
