"""Two processes of a batch each learn what one process learns from both batches, and leave one run behind.

Run as a program, this file is the command line with a strategy ``fsdp_on_cpu``: FSDP, which Lightning keeps to GPUs.
"""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy, StrategyRegistry
from PIL import Image
from torch.distributed.fsdp import FullyShardedDataParallel

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
    input_format: {scale: [64, 64], resize: squash, crop: null}
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


def one_process(options: list[str]) -> None:
    assert main([*options, "--trainer.devices", "1", "--data.batch_size", "4"]) == 0


def two_processes(options: list[str], strategy: str) -> str:
    """What they say; without GPUs they speak by gloo."""
    program = [__file__] if strategy == "fsdp_on_cpu" else ["-m", "flatten_dense.cli"]
    options = [*options, "--trainer.devices", "2", "--data.batch_size", "2", "--trainer.strategy", strategy]
    finished = subprocess.run([sys.executable, *program, *options], capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    return finished.stderr


def two_nodes(options: list[str], launcher: str) -> None:
    """Start both nodes here, as torchrun or as SLURM would."""
    options = ["flatten_dense.cli", *options, "--trainer.devices", "1", "--data.batch_size", "2"]
    options += ["--trainer.strategy", "ddp", "--trainer.num_nodes", "2"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = []
    for node in ("0", "1"):
        meeting = ["--nnodes", "2", "--node-rank", node, "--master-addr", "127.0.0.1", "--master-port", port]
        torchrun = ["torch.distributed.run", *meeting, "-m"] if launcher == "torchrun" else []
        slurm = {
            "SLURM_JOB_NAME": "fit",
            "SLURM_NNODES": "2",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "1",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_NODEID": node,
            "SLURM_PROCID": node,
            "SLURM_LOCALID": "0",
            "MASTER_PORT": port,
        }
        environment = os.environ | (slurm if launcher == "slurm" else {})
        nodes.append(subprocess.Popen([sys.executable, "-m", *torchrun, *options], env=environment))
    assert [node.wait(600) for node in nodes] == [0, 0]


def assert_same_weights(run: Path, other: Path, **tolerances: float) -> None:
    ours, theirs = (read_checkpoint(path / "checkpoints/last.ckpt")["state_dict"] for path in (run, other))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, **tolerances)


def check(recipe: str, data: Path, folder: Path) -> None:
    (folder / "micro.yaml").write_text(TRAINER + recipe)
    fit = ["fit", "-c", str(folder / "micro.yaml"), "--data.root", str(data), "--runs"]
    said = two_processes([*fit, str(folder / "two")], "ddp")
    one_process([*fit, str(folder / "one")])
    (one,), (two,) = ((folder / name / "micro").iterdir() for name in ("one", "two"))

    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-6)  # logged in float32
    assert len(losses_of(two)) == 4
    assert_same_weights(two, one, rtol=1e-7, atol=1e-9)

    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in (two, one))
    for scores in (ours, theirs):
        del scores["weights_sha256"]  # they differ in the last digit
    assert ours == theirs

    left = [{path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} for run in (two, one)]
    logs = [{name for name in names if "tfevents" in name} for names in left]
    assert len(logs[0]) == len(logs[1]) == 1
    assert left[0] - logs[0] == left[1] - logs[1]
    assert said.count("The run is in") == 1


def test_a_classifier(tmp_path):
    check(CLASSIFICATION, write_photos(tmp_path / "photos"), tmp_path)


@pytest.mark.slow
def test_a_detector(tmp_path):
    check(DETECTION, write_shapes(tmp_path / "shapes", 9, 5) / "coco", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_two_nodes_learn_as_one_process(tmp_path, launcher):
    (tmp_path / "micro.yaml").write_text(TRAINER + CLASSIFICATION)
    data = write_photos(tmp_path / "photos")
    fit = ["fit", "-c", str(tmp_path / "micro.yaml"), "--data.root", str(data), "--runs"]
    two_nodes([*fit, str(tmp_path / "two")], launcher)
    one_process([*fit, str(tmp_path / "one")])
    (one,), (two,) = ((tmp_path / name / "micro").iterdir() for name in ("one", "two"))
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-6)
    assert_same_weights(two, one, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_fsdp_learns_clips_and_resumes_and_one_process_goes_on(tmp_path):
    photos = write_photos(tmp_path / "photos")
    recipe = (TRAINER + CLASSIFICATION).replace("64-true", "32-true")
    # Of several states of a parameter, as Adam's, torch's FSDP saves the last one for all, on CPUs.
    (tmp_path / "micro.yaml").write_text(
        recipe.replace("AdamW, init_args: {lr: 1.0e-3}", "SGD, init_args: {lr: 0.1, momentum: 0.9}")
    )
    options = ["-c", str(tmp_path / "micro.yaml"), "--data.root", str(photos), "--trainer.gradient_clip_val", "0.5"]
    options += ["--model.groups.exempt_1d", "true", "--runs"]
    one_process(["fit", *options, str(tmp_path / "one")])
    two_processes(["fit", *options, str(tmp_path / "two"), "--trainer.max_steps", "2"], "fsdp_on_cpu")
    (one,), (two,) = ((tmp_path / name / "micro").iterdir() for name in ("one", "two"))
    last = str(two / "checkpoints/last.ckpt")
    two_processes(["fit", "--ckpt_path", last, "--trainer.max_steps", "3"], "fsdp_on_cpu")
    one_process(["fit", "--ckpt_path", last, "--trainer.max_steps", "4", "--trainer.strategy", "auto"])

    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-4)
    assert len(losses_of(two)) == 4
    assert_same_weights(two, one, rtol=1e-4, atol=1e-5)
    groups = [
        read_checkpoint(run / "checkpoints/last.ckpt")["optimizer_states"][0]["param_groups"] for run in (two, one)
    ]
    assert [len(group["params"]) for group in groups[0]] == [len(group["params"]) for group in groups[1]]
    assert main(["test", "--ckpt_path", last, "--data.root", str(photos), "--runs", str(tmp_path / "tests")]) == 0


def run_with_fsdp_on_cpu(args: list[str]) -> int:
    class CPUStrategy(FSDPStrategy):
        root_device = torch.device("cpu")

    def init_on_cpu(self: FullyShardedDataParallel, *args: object, **options: object) -> None:
        init(self, *args, **{**options, "device_id": torch.device("cpu")})

    init, FullyShardedDataParallel.__init__ = FullyShardedDataParallel.__init__, init_on_cpu
    StrategyRegistry.register("fsdp_on_cpu", CPUStrategy, process_group_backend="gloo")
    return main(args)


if __name__ == "__main__":
    sys.exit(run_with_fsdp_on_cpu(sys.argv[1:]))
