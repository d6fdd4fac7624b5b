import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from lightning import LightningModule

from flatten_dense.cli import main
from flatten_dense.tasks.checkpoint import read_checkpoint

HARD = """
trainer:
  max_steps: 8
  accumulate_grad_batches: 2
  precision: bf16-mixed
  gradient_clip_val: 1.0
  val_check_interval: 3
  callbacks: [{class_path: flatten_dense.callbacks.EMA, init_args: {decay: 0.9}}]
save_every: 2
model: {init_args: {backbone: {options: {drop_path_rate: 0.3}}}}
data: {init_args: {num_workers: 1}}
"""


@pytest.fixture
def require_exact_resume(tmp_path, monkeypatch) -> Callable[..., None]:
    """Fits with all that draws random numbers, once whole and once stopped before a batch and resumed; both are one."""

    def require(task: type[LightningModule], recipe: Path, data: Path, stop_before: int, more: dict) -> None:
        for name, content in ("hard", yaml.safe_load(HARD)), ("more", more):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        recipes = [recipe, tmp_path / "hard.yaml", tmp_path / "more.yaml"]
        options = [part for path in recipes for part in ("-c", str(path))]
        options += ["--data.root", str(data), "--runs", str(tmp_path)]

        def fall(self: LightningModule, *_: object) -> None:
            if self.trainer.fit_loop.total_batch_idx == stop_before:
                raise OSError("the disk is full")

        assert main(["fit", *options, "--name", "whole"]) == 0
        with monkeypatch.context() as patch:
            patch.setattr(task, "on_train_batch_start", fall)
            assert main(["fit", *options, "--name", "cut"]) == 2
        (whole,), (cut,) = ((tmp_path / name).iterdir() for name in ("whole", "cut"))
        assert main(["fit", "--ckpt_path", str(cut / "checkpoints/last.ckpt")]) == 0

        rows = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (whole, cut)]
        assert rows[0] == rows[1]
        last = [read_checkpoint(run / "checkpoints/last.ckpt") for run in (whole, cut)]
        for state in "state_dict", "current_model_state":
            assert all(torch.equal(tensor, last[1][state][name]) for name, tensor in last[0][state].items())

    return require
