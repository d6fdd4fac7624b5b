import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.cli import main
from flatten_dense.data.classification.shard_files import ShardIndex, read_shard
from flatten_dense.tasks.checkpoint import read_checkpoint

pytest.importorskip("webdataset")

RECIPE = """
trainer:
  accelerator: cpu
  max_steps: 2
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
model:
  class_path: ClassificationTask
  init_args:
    backbone: {name: flatten_pvt_test}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
data:
  class_path: ShardDataModule
  init_args:
    batch_size: 2
    num_workers: 0
    augmentation: {size: [64, 64]}
    input_format: {scale: [64, 64], resize: squash, crop: null}
"""
CLASSES = ("cat", "cow", "dog")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split, num in (("train", 4), ("val", 3)):
        for name in CLASSES:
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for index in range(num):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{name}.{index}.png")
    return tmp_path / "photos"


def make(photos, out, *options) -> int:
    return main(["make-shards", str(photos), str(out), *options])


def contents(folder: Path):
    index = ShardIndex.read(str(folder))
    return [[tuple(photo) for photo in read_shard(str(folder), shard, 3)] for shard in index.shards]


def test_all_files_are_in_as_they_were(photos, tmp_path):
    assert make(photos, tmp_path / "out", "--size", "0.03") == 0
    for split in ("train", "val"):
        assert ShardIndex.read(str(tmp_path / "out" / split)).classes == CLASSES
        shards = contents(tmp_path / "out" / split)
        assert len(shards) > 1
        expected = {
            (path.read_bytes(), CLASSES.index(path.parent.name), f"{split}/{path.parent.name}/{path.name}")
            for path in (photos / split).rglob("*.png")
        }
        written = [photo for shard in shards for photo in shard]
        assert set(written) == expected
        assert len(written) == len(expected)


def test_the_size_is_kept(photos, tmp_path):
    assert make(photos, tmp_path / "out", "--size", "0.03") == 0
    sizes = [shard.size for shard in ShardIndex.read(str(tmp_path / "out/train")).shards]
    # One photo, 9 kB with what tar adds, and the end of a tar file may come on top.
    assert all(30_000 < size < 30_000 + 9_000 + 10_240 for size in sizes[:-1])


def test_the_number_of_workers_does_not_matter(photos, tmp_path):
    for workers in ("1", "3"):
        assert make(photos, tmp_path / workers, "--size", "0.02", "--workers", workers) == 0
    one, three = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("1", "3")
    )
    assert one == three


def test_classes_are_mixed(photos, tmp_path):
    assert make(photos, tmp_path / "out") == 0
    labels = [label for _, label, _ in contents(tmp_path / "out/train")[0]]
    assert labels != sorted(labels)


def test_nothing_is_overwritten(photos, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    assert make(photos, tmp_path / "out") == 2
    assert "out: not an empty folder; name a new one, nothing is overwritten" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_file_that_is_no_photo_is_named_and_leaves_no_index(photos, tmp_path, capsys):
    (photos / "train/cow/broken.jpg").write_bytes(b"")
    assert make(photos, tmp_path / "out") == 2
    assert "train/cow/broken.jpg: the file is empty" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("shards.json"))


@pytest.mark.parametrize("option", ["--size", "--workers"])
def test_options_out_of_their_range_are_refused(photos, tmp_path, capsys, option):
    assert make(photos, tmp_path / "out", option, "0") == 2
    assert f"{option} must be above 0, got 0" in capsys.readouterr().err


def test_a_model_learns_from_shards_and_scores_as_on_the_folder(photos, tmp_path):
    assert make(photos, tmp_path / "out", "--size", "0.03") == 0
    (tmp_path / "micro.yaml").write_text(RECIPE)
    runs = ["--runs", str(tmp_path / "runs")]
    recipe = ["-c", str(tmp_path / "micro.yaml"), "--trainer.max_epochs", "-1"]
    assert main(["fit", *recipe, "--data.root", str(tmp_path / "out"), *runs]) == 0
    (run,) = (tmp_path / "runs/micro").iterdir()
    position = {"epoch": 0, "samples": 4, "batch_size": 2, "processes": 1, "readers": 1}
    assert read_checkpoint(run / "checkpoints/last.ckpt")["ShardDataModule"] == position
    test = ["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), *runs]
    for name, options in (("shards", []), ("photos", ["--data", "ImageFolderDataModule"])):
        root = tmp_path / "out" if name == "shards" else photos
        assert main([*test, *options, "--data.root", str(root), "--name", name]) == 0
    ours, theirs = (
        json.loads(next((tmp_path / "runs").glob(f"{name}-test/*/metrics.json")).read_text())
        for name in ("shards", "photos")
    )
    assert (ours["top1"], ours["per_class"]) == (theirs["top1"], theirs["per_class"])


def test_a_run_on_shards_resumes_in_mid_epoch_bit_for_bit(photos, tmp_path):
    assert make(photos, tmp_path / "out", "--size", "0.03") == 0
    (tmp_path / "micro.yaml").write_text(RECIPE)
    fit = ["fit", "-c", str(tmp_path / "micro.yaml"), "--data.root", str(tmp_path / "out"), "--data.num_workers", "2"]
    fit += ["--trainer.max_epochs", "-1", "--runs"]  # an epoch has 6 steps
    assert main([*fit, str(tmp_path / "whole"), "--trainer.max_steps", "9"]) == 0
    assert main([*fit, str(tmp_path / "parts"), "--trainer.max_steps", "4"]) == 0
    (whole,), (parts,) = ((tmp_path / name / "micro").iterdir() for name in ("whole", "parts"))
    last = parts / "checkpoints/last.ckpt"
    assert main(["fit", "--ckpt_path", str(last), "--trainer.max_steps", "9"]) == 0
    ours, theirs = (read_checkpoint(run / "checkpoints/last.ckpt") for run in (parts, whole))
    position = {"epoch": 1, "samples": 6, "batch_size": 2, "processes": 1, "readers": 2}
    assert ours["ShardDataModule"] == theirs["ShardDataModule"] == position
    for name, tensor in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], tensor), name
