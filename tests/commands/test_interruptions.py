"""Runs that are really killed, with a worker, accumulation, drop path and EMA, and then go on."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from flatten_dense.callbacks import weights_hash
from flatten_dense.cli import main
from flatten_dense.tasks.checkpoint import load_task, read_checkpoint

pytestmark = pytest.mark.slow

STEPS, SAVE_EVERY = 24, 5
DELTA = """
trainer:
  accumulate_grad_batches: 2
  callbacks: [{class_path: flatten_dense.callbacks.EMA, init_args: {decay: 0.9}}]
model: {init_args: {backbone: {options: {drop_path_rate: 0.5}}}}
data: {init_args: {num_workers: 1, batch_size: 1}}
"""


def rows(metrics):
    if not metrics.exists():
        return []
    with metrics.open() as file:
        return [row for row in csv.DictReader(file) if row.get("train/loss")]


@pytest.fixture(scope="module")
def options(fitted, tmp_path_factory):
    delta = tmp_path_factory.mktemp("delta") / "delta.yaml"
    delta.write_text(DELTA)
    data = ["--data.root", str(fitted.data), "--save_every", str(SAVE_EVERY), "--trainer.max_steps", str(STEPS)]
    return ["-c", str(fitted.recipe), "-c", str(delta), *data]


@pytest.fixture(scope="module")
def uninterrupted(options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main(["fit", *options, "--runs", str(folder), "--name", "whole"]) == 0
    (run,) = (folder / "whole").iterdir()
    return run


@pytest.fixture
def interrupted(options, tmp_path):
    """Gives the directory of a run to which a signal was sent, to its workers too, and what it left."""

    def interrupt(number):
        command = [sys.executable, "-m", "flatten_dense.cli", "fit", *options, "--runs", str(tmp_path), "--name", "cut"]
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 300
        while not any(len(rows(path)) > 13 for path in tmp_path.glob("cut/*/metrics.csv")):
            assert process.poll() is None, "the fit ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=120)
        (run,) = (tmp_path / "cut").iterdir()
        return run, process.returncode, errors

    return interrupt


def require_same(run, uninterrupted):
    last, whole = run / "checkpoints/last.ckpt", uninterrupted / "checkpoints/last.ckpt"
    assert rows(run / "metrics.csv") == rows(uninterrupted / "metrics.csv")
    assert weights_hash(load_task(last)) == weights_hash(load_task(whole))
    assert read_checkpoint(last)["global_step"] == STEPS


def test_sigkill_loses_at_most_n_steps_and_changes_none(interrupted, uninterrupted):
    run, _, _ = interrupted(signal.SIGKILL)
    done = int(rows(run / "metrics.csv")[-1]["step"]) + 1
    saved = read_checkpoint(run / "checkpoints/last.ckpt")["global_step"]
    assert done - SAVE_EVERY <= saved <= done < STEPS
    assert main(["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0
    require_same(run, uninterrupted)


def test_sigterm_loses_nothing(interrupted, uninterrupted):
    run, status, errors = interrupted(signal.SIGTERM)
    assert status == 143
    assert "Traceback" not in errors
    last = run / "checkpoints/last.ckpt"
    assert f"go on with `flatten-dense fit --ckpt_path {last}`" in errors
    before = rows(run / "metrics.csv")
    assert main(["fit", "--ckpt_path", str(last)]) == 0
    assert rows(run / "metrics.csv")[: len(before)] == before
    assert not (run / "metrics.replaced.csv").exists()
    require_same(run, uninterrupted)
