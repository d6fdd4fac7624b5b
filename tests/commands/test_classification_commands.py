"""A classifier from the command line: fit, test, predict, and its weights under a segmentation model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.backbones import TimmClassifier
from flatten_dense.cli import main
from flatten_dense.data.images import read_image
from flatten_dense.structures import ClassLabels, InputFormat
from flatten_dense.tasks.checkpoint import load_task
from flatten_dense.tasks.classification import ClassificationTask

MICRO_RECIPE = Path(__file__).parents[1] / "micro_recipe.yaml"

RECIPE = """
trainer:
  accelerator: cpu
  max_steps: 4
  max_epochs: -1
  val_check_interval: 2
  check_val_every_n_epoch: null
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
  class_path: ImageFolderDataModule
  init_args:
    batch_size: 2
    num_workers: 0
    augmentation: {size: [64, 64]}
    input_format: {scale: [72, 72], resize: squash, crop: [64, 64]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classification")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog", "cow"):
            (folder / "photos" / split / name).mkdir(parents=True)
            for index in range(3):
                pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{index}.png")
    (folder / "micro.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """Only to be read."""
    options = ["--data.root", str(folder / "photos"), "--runs", str(folder / "runs")]
    assert main(["fit", "-c", str(folder / "micro.yaml"), *options]) == 0
    (run,) = (folder / "runs/micro").iterdir()
    return run


def best(run: Path) -> list[str]:
    return ["--ckpt_path", str(run / "checkpoints/best.ckpt")]


def test_fit_leaves_what_is_promised(run):
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    promised = {"config.yaml", "metrics.csv", "metrics.json", "per_class.csv", "curves.png"}
    promised |= {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    promised |= {"pictures/confusion.png", "pictures/mistakes.png", "pictures/validation_step_000002.png"}
    assert promised <= left


def test_the_checkpoint_alone_is_tested_to_the_same_scores(run, folder, caplog):
    root, runs = str(folder / "photos"), folder / "tests"
    assert main(["test", *best(run), "--data.root", root, "--data.eval_batch_size", "2", "--runs", str(runs)]) == 0
    (tested,) = (runs / "micro-test").iterdir()
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (tested, run))
    assert (ours["top1"], ours["per_class"]) == (theirs["top1"], theirs["per_class"])
    assert "top-1" in caplog.text


def test_predict_agrees_with_classify(run, folder):
    photos = folder / "photos/val/cow"
    assert main(["predict", *best(run), "--input", str(photos), "--output", str(folder / "out")]) == 0
    with (folder / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    task = load_task(run / "checkpoints/best.ckpt")
    for row, photo in zip(rows, sorted(photos.iterdir()), strict=True):
        probabilities = task.classify(read_image(photo))
        assert row["photo"] == str(photo)
        assert row["class_1"] == task.labels.class_names[int(probabilities.argmax())]
        assert float(row["probability_1"]) == pytest.approx(float(probabilities.max()), abs=1e-5)


def test_data_of_another_kind_are_refused(folder, capsys):
    options = ["--data", "CocoDataModule", "--data.root", str(folder / "photos")]
    assert main(["fit", "-c", str(folder / "micro.yaml"), *options]) != 0
    assert "ClassificationTask cannot learn from CocoDataModule" in capsys.readouterr().err


def test_its_weights_start_a_segmentation_model(run, fitted, tmp_path, caplog):
    options = ["-c", str(fitted.recipe), "--data.root", str(fitted.data), "--runs", str(tmp_path)]
    start = ["--model.weights", str(run / "checkpoints/best.ckpt"), "--model.optimizer.lr", "0"]
    assert main(["fit", *options, *start]) == 0
    assert "head: the model has no classifier" in caplog.text
    (dense,) = (tmp_path / "micro_recipe").iterdir()
    given = load_task(run / "checkpoints/best.ckpt").backbone.body.state_dict()
    taken = load_task(dense / "checkpoints/last.ckpt").backbone.body.model.state_dict()
    assert torch.equal(taken["stages.0.patch_embed.proj.weight"], given["stages.0.patch_embed.proj.weight"])


def published(folder, classes=("cat", "cow", "dog")):
    """A file of weights, whose classifier says that every photo shows a cow."""
    torch.manual_seed(0)
    task = ClassificationTask(TimmClassifier("flatten_pvt_test"), ClassLabels(classes), InputFormat())
    torch.nn.init.zeros_(task.backbone.body.head.weight)
    task.backbone.body.head.bias.data = torch.tensor([float(name == "cow") for name in classes])
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    path = folder / f"{'_'.join(classes)}.pt"
    torch.save(checkpoint, path)
    return path


def evaluate_weights(verb, folder, source, runs):
    options = ["-c", str(folder / "micro.yaml"), "--model.weights", str(source)]
    return main([verb, *options, "--data.root", str(folder / "photos"), "--runs", str(runs)])


def test_published_weights_are_validated_without_a_training(folder, tmp_path, capsys):
    source = published(tmp_path)
    assert evaluate_weights("validate", folder, source, tmp_path / "runs") == 0
    (run,) = (tmp_path / "runs/micro-validate").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["weights"] == str(source)
    assert "checkpoint" not in metrics
    assert {name: own["accuracy"] for name, own in metrics["per_class"].items()} == {"cat": 0, "cow": 1, "dog": 0}


def test_classes_in_another_order_keep_their_names(folder, tmp_path):
    assert evaluate_weights("test", folder, published(tmp_path, ("dog", "cow", "cat")), tmp_path / "runs") == 0
    (run,) = (tmp_path / "runs/micro-test").iterdir()
    per_class = json.loads((run / "metrics.json").read_text())["per_class"]
    assert {name: own["accuracy"] for name, own in per_class.items()} == {"cat": 0, "cow": 1, "dog": 0}


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (("cat", "cow", "horse"), "not in the file: dog"),
        (("sheep", "horse"), "head, 99 parameters (no class in common)"),
    ],
)
def test_weights_without_some_of_the_classes_are_not_scored(classes, reason, folder, tmp_path, capsys):
    assert evaluate_weights("validate", folder, published(tmp_path, classes), tmp_path / "runs") == 2
    error = capsys.readouterr().err
    assert "does not hold all of the model" in error
    assert reason in error
    assert not (tmp_path / "runs").exists()


def test_weights_alone_are_not_all_of_another_task(tmp_path, ade_root, capsys):
    options = ["-c", str(MICRO_RECIPE), "--model.weights", "any.pt", "--data.root", str(ade_root())]
    assert main(["validate", *options, "--runs", str(tmp_path / "runs")]) == 2
    assert "not all of a SemanticSegmentationTask: name a checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stop_changes_nothing(folder, require_exact_resume):
    mixed = {"mixing": {"mixup": 0.8, "cutmix": 1.0}, "label_smoothing": 0.1}
    more = {"model": {"init_args": mixed}, "data": {"init_args": {"batch_size": 4}}}
    require_exact_resume(ClassificationTask, folder / "micro.yaml", folder / "photos", 7, more)


def test_a_recipe_without_weights_is_not_scored(folder, capsys):
    assert main(["validate", "-c", str(folder / "micro.yaml"), "--data.root", str(folder / "photos")]) == 2
    assert "or of a whole classifier -c RECIPE --model.weights SOURCE" in capsys.readouterr().err
