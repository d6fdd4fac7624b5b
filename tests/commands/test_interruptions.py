"""Runs that are really killed, with a worker, accumulation, drop path and EMA, and then go on."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def job(process):
    """The number by which a process, all it has started and their workers get a signal together."""
    return -process.pid


def second(process):
    """The process that the first one of two has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (found,) = (child for child in children if b"LOCAL_RANK=1" in Path(f"/proc/{child}/environ").read_bytes())
    return int(found)


@pytest.fixture
def interrupted(options, tmp_path):
    """Gives the directory of a run to which a signal was sent, its exit status and what it said."""

    def interrupt(number, whom=job, *more):
        own = ["--runs", str(tmp_path), "--name", "cut", *more]
        command = [sys.executable, "-m", "flatten_dense.cli", "fit", *options, *own]
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 300
        while not any(len(rows(path)) > 13 for path in tmp_path.glob("cut/*/metrics.csv")):
            assert process.poll() is None, "the fit ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(whom(process), number)
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


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks a process up there")
def test_sigterm_to_one_of_two_processes_ends_both_after_the_same_step(interrupted, options, tmp_path):
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    run, status, errors = interrupted(signal.SIGTERM, second, *two)
    assert status == 143
    assert errors.count("SIGTERM: saved after step") == 1
    last = run / "checkpoints/last.ckpt"
    commands = ["--ckpt_path", str(last)], [*options, *two, "--runs", str(tmp_path), "--name", "whole"]
    for command in commands:
        subprocess.run([sys.executable, "-m", "flatten_dense.cli", "fit", *command], check=True, timeout=300)
    (whole,) = (tmp_path / "whole").iterdir()
    require_same(run, whole)
