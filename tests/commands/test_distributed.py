import json
import subprocess
import sys

import pytest

from flatten_dense.cli import main
from flatten_dense.tasks.checkpoint import read_checkpoint


@pytest.fixture
def odd_set(ade_root):
    return ade_root(5, splits=("test",))


def test_two_processes_score_as_one_does(fitted, odd_set, tmp_path):
    command = ["test", "--ckpt_path", str(fitted.best), "--data.root", str(odd_set), "--trainer.accelerator", "cpu"]
    assert main([*command, "--runs", str(tmp_path / "one"), "--trainer.devices", "1"]) == 0
    two = [*command, "--runs", str(tmp_path / "two"), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    finished = subprocess.run(
        [sys.executable, "-m", "flatten_dense.cli", *two], capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    (one,), (two) = (list((tmp_path / name).rglob("metrics.json")) for name in ("one", "two"))
    assert len(two) == 1, "every process wrote its own"
    scores = [json.loads(path.read_text()) for path in (one, *two)]
    assert scores[0] == scores[1]
    for name in ("per_class.csv", "pictures/worst.png"):
        assert (one.parent / name).read_bytes() == (two[0].parent / name).read_bytes()


@pytest.mark.slow
def test_two_processes_unfreeze_together(fitted, ade_root, tmp_path):
    frozen = ["--model.freeze.stages", "3", "--model.freeze.unfreeze_at", "[0.5]"]
    command = ["fit", "-c", str(fitted.recipe), "--data.root", str(ade_root(8)), "--runs", str(tmp_path), *frozen]
    two = [*command, "--name", "two", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    finished = subprocess.run(
        [sys.executable, "-m", "flatten_dense.cli", *two], capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    (path,) = tmp_path.rglob("last.ckpt")
    checkpoint = read_checkpoint(path)
    # Of four steps stages 0 and 1 took none, stage 2 the last two, and all else took every one.
    steps = [int(state["step"]) for state in checkpoint["optimizer_states"][0]["state"].values()]
    assert set(steps) == {2, 4}
    assert steps.count(2) == sum(name.startswith("backbone.body.model.stages.2.") for name in checkpoint["state_dict"])
