"""Two processes of a batch each learn what one process learns from both batches, and leave one run behind."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.cli import main
from flatten_dense.data.shapes import write_shapes
from flatten_dense.tasks.checkpoint import read_checkpoint

TRAINER = """
trainer:
  accelerator: cpu
  precision: 64-true
  max_steps: 4
  max_epochs: -1
  val_check_interval: 2
  check_val_every_n_epoch: null
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
"""
CLASSIFICATION = """
model:
  class_path: ClassificationTask
  init_args:
    backbone: {name: flatten_pvt_test}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
    mixing: null
data:
  class_path: ImageFolderDataModule
  init_args:
    augmentation: {size: [64, 64]}
    input_format: {scale: [64, 64], resize: squash}
    num_workers: 1
"""
# Without BatchNorm, and each image's loss is divided by numbers of its own.
DETECTION = """
model:
  class_path: DetectionTask
  init_args:
    backbone: {name: flatten_pvt_test}
    neck: {class_path: flatten_dense.necks.FPN, init_args: {out_channels: 16, extra_levels: 1}}
    head: {class_path: RetinaNetHead, init_args: {conventions: torchvision}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
data:
  class_path: CocoDataModule
  init_args:
    train_scale: [96, 96]
    eval_scale: [96, 96]
    num_workers: 0
"""


def write_photos(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, num in (("train", 7), ("val", 3)):
        for name in ("cat", "cow", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(num):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def losses_of(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def check(recipe: str, data: Path, folder: Path) -> None:
    (folder / "micro.yaml").write_text(TRAINER + recipe)
    fit = ["fit", "-c", str(folder / "micro.yaml"), "--data.root", str(data)]
    one = [*fit, "--runs", str(folder / "one"), "--trainer.devices", "1", "--data.batch_size", "4"]
    two = [*fit, "--runs", str(folder / "two"), "--trainer.devices", "2", "--data.batch_size", "2"]
    ddp = ["--trainer.strategy", "ddp"]  # its backend without GPUs is gloo
    command = [sys.executable, "-m", "flatten_dense.cli", *two, *ddp]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert main(one) == 0
    (one,), (two,) = ((folder / name / "micro").iterdir() for name in ("one", "two"))

    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-6)  # logged in float32
    assert len(losses_of(two)) == 4
    ours, theirs = (read_checkpoint(run / "checkpoints/last.ckpt")["state_dict"] for run in (two, one))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-7, atol=1e-9)

    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in (two, one))
    for scores in (ours, theirs):
        del scores["weights_sha256"]  # they differ in the last digit
    assert ours == theirs

    left = [{path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} for run in (two, one)]
    logs = [{name for name in names if "tfevents" in name} for names in left]
    assert len(logs[0]) == len(logs[1]) == 1
    assert left[0] - logs[0] == left[1] - logs[1]
    assert finished.stderr.count("The run is in") == 1


def test_a_classifier(tmp_path):
    check(CLASSIFICATION, write_photos(tmp_path / "photos"), tmp_path)


@pytest.mark.slow
def test_a_detector(tmp_path):
    check(DETECTION, write_shapes(tmp_path / "shapes", 9, 5) / "coco", tmp_path)
