import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from flatten_dense.callbacks import weights_hash
from flatten_dense.cli import main
from flatten_dense.data.images import read_image
from flatten_dense.tasks.checkpoint import load_task, read_checkpoint
from flatten_dense.tasks.semantic_segmentation import SemanticSegmentationTask


def rows(run: Path, column: str) -> list[tuple[int, float]]:
    with (run / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row[column]]


def only(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def test_fit_leaves_what_is_promised(fitted):
    left = {path.relative_to(fitted.run).as_posix() for path in fitted.run.rglob("*") if path.is_file()}
    promised = {"config.yaml", "metrics.csv", "metrics.json", "curves.png", "checkpoints/best.ckpt"}
    promised |= {"checkpoints/last.ckpt", "pictures/validation_step_000002.png", "pictures/validation_step_000004.png"}
    promised |= {"per_class.csv", "pictures/confusion.png", "pictures/worst.png"}
    assert promised <= left
    assert any(name.startswith("tensorboard/events.out") for name in left)


def test_resolved_config_holds_every_value(fitted):
    config = yaml.safe_load((fitted.run / "config.yaml").read_text())
    assert config["data"]["init_args"]["train_scale"] is None  # a default replaced by null, which a dump may lose
    assert config["model"]["init_args"]["optimizer"]["init_args"]["weight_decay"] == 0.01
    assert config["seed_everything"] == 0


def test_every_step_is_logged_with_its_rate(fitted):
    # A straight line from 1e-3 to 0 over 4 steps.
    assert rows(fitted.run, "train/lr") == [(step, pytest.approx(1e-3 * (1 - step / 4))) for step in range(4)]
    assert [step for step, _ in rows(fitted.run, "val/mIoU")] == [1, 3]


def test_metrics_json_is_the_best_validation(fitted):
    metrics = json.loads((fitted.run / "metrics.json").read_text())
    assert metrics["mIoU"] == pytest.approx(max(value for _, value in rows(fitted.run, "val/mIoU")))
    assert list(metrics["per_class"]) == ["cat", "dog", "bird"]
    assert metrics["split"] == "validation"
    assert metrics["resolution"]["resized_to"] == [64, 48]


def test_metrics_json_names_the_weights_it_was_measured_with(fitted):
    metrics = json.loads((fitted.run / "metrics.json").read_text())
    assert metrics["weights_sha256"] == weights_hash(load_task(fitted.best))


def test_last_checkpoint_is_the_last_step(fitted):
    assert read_checkpoint(fitted.run / "checkpoints/last.ckpt")["global_step"] == 4


def test_test_needs_the_checkpoint_alone(fitted, tmp_path):
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(fitted.data), "--runs", str(tmp_path)]
    assert main(["test", *options]) == 0
    run = only(only(tmp_path))
    assert run.parent.name == "micro-test"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["split"] == "test"
    assert metrics["weights_sha256"] == weights_hash(load_task(fitted.best))
    assert (run / "pictures/test.png").is_file()


def test_test_scores_what_the_model_predicts(fitted, tmp_path):
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(fitted.data), "--runs", str(tmp_path)]
    assert main(["test", *options]) == 0
    task = load_task(fitted.best)
    right = total = 0
    for photo in sorted((fitted.data / "images/test").iterdir()):
        mask = np.array(Image.open(fitted.data / "annotations/test" / f"{photo.stem}.png"))
        predicted = task.segment(read_image(photo)).numpy()
        right, total = right + int((mask == predicted).sum()), total + mask.size
    assert json.loads((only(only(tmp_path)) / "metrics.json").read_text())["aAcc"] == pytest.approx(right / total)


def test_validate_repeats_the_score_of_the_fit(fitted, tmp_path):
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(fitted.data), "--runs", str(tmp_path)]
    assert main(["validate", *options]) == 0
    again = json.loads((only(only(tmp_path)) / "metrics.json").read_text())
    first = json.loads((fitted.run / "metrics.json").read_text())
    assert again["mIoU"] == pytest.approx(first["mIoU"], abs=1e-6)


def test_test_does_not_need_a_class_list(fitted, tmp_path):
    bare = tmp_path / "bare"
    for folder in ("images/test", "annotations/test"):
        (bare / folder).mkdir(parents=True)
        for path in (fitted.data / folder).iterdir():
            (bare / folder / path.name).write_bytes(path.read_bytes())
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(bare), "--runs", str(tmp_path / "runs")]
    assert main(["test", *options]) == 0
    metrics = json.loads((only(only(tmp_path / "runs")) / "metrics.json").read_text())
    assert list(metrics["per_class"]) == ["cat", "dog", "bird"]


def test_predict_writes_masks_and_overlays_under_the_names_of_the_photos(fitted, tmp_path):
    photos = fitted.data / "images/test"
    output = tmp_path / "out"
    options = ["--ckpt_path", str(fitted.best), "--input", str(photos), "--output", str(output)]
    assert main(["predict", *options]) == 0
    stems = sorted(path.stem for path in photos.iterdir())
    assert sorted(path.stem for path in (output / "masks").iterdir()) == stems
    assert sorted(path.stem for path in (output / "overlays").iterdir()) == stems
    mask = np.array(Image.open(output / "masks/photo_0.png"))
    assert mask.tolist() == load_task(fitted.best).segment(read_image(photos / "photo_0.jpg")).tolist()
    assert Image.open(output / "overlays/photo_0.png").size == (16, 12)


def test_predict_reports_unreadable_photos_at_the_end(fitted, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (20, 20)).save(photos / "good.png")
    (photos / "bad.jpg").write_bytes(b"\xff\xd8 not a photo")
    options = ["--ckpt_path", str(fitted.best), "--input", str(photos), "--output", str(tmp_path / "out")]
    assert main(["predict", *options]) == 2
    assert "bad.jpg" in capsys.readouterr().err
    assert (tmp_path / "out/masks/good.png").is_file()


def test_predict_never_overwrites(fitted, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    options = ["--input", str(fitted.data / "images/test"), "--output", str(tmp_path)]
    assert main(["predict", "--ckpt_path", str(fitted.best), *options]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.fixture
def stopped(fitted, tmp_path, monkeypatch):
    """A fit that fell over at the beginning of its fourth step, one step after last.ckpt."""

    def fall(task, *_):
        if task.global_step == 3:
            raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(SemanticSegmentationTask, "on_train_batch_start", fall)
        options = ["--data.root", str(fitted.data), "--runs", str(tmp_path), "--name", "stopped"]
        assert main(["fit", "-c", str(fitted.recipe), *options]) == 2
    return only(tmp_path / "stopped")


def test_resume_goes_on_in_the_run(fitted, stopped):
    assert main(["fit", "--ckpt_path", str(stopped / "checkpoints/last.ckpt")]) == 0
    assert [path.name for path in stopped.parent.iterdir()] == [stopped.name]
    assert rows(stopped, "train/lr") == rows(fitted.run, "train/lr")
    assert [step for step, _ in rows(stopped, "val/mIoU")] == [1, 3]
    last = read_checkpoint(stopped / "checkpoints/last.ckpt")
    assert last["global_step"] == 4
    assert {int(state["step"]) for state in last["optimizer_states"][0]["state"].values()} == {4}


def test_resume_keeps_the_first_config(fitted, stopped):
    first = (stopped / "config.yaml").read_text()
    options = ["--ckpt_path", str(stopped / "checkpoints/last.ckpt"), "--trainer.max_steps", "6"]
    assert main(["fit", *options]) == 0
    assert (stopped / "config.yaml").read_text() == first
    assert yaml.safe_load((stopped / "config.resume_1.yaml").read_text())["trainer"]["max_steps"] == 6
    assert [step for step, _ in rows(stopped, "train/lr")] == list(range(6))


def test_a_second_resume_goes_on_with_the_options_of_the_first(fitted, stopped):
    last = str(stopped / "checkpoints/last.ckpt")
    assert main(["fit", "--ckpt_path", last, "--trainer.max_steps", "5"]) == 0
    assert main(["fit", "--ckpt_path", last]) == 0
    assert read_checkpoint(stopped / "checkpoints/last.ckpt")["global_step"] == 5


def test_a_name_begins_a_new_run_at_the_checkpoint(fitted, stopped, tmp_path):
    before = sorted(path.name for path in stopped.rglob("*"))
    options = ["--ckpt_path", str(stopped / "checkpoints/last.ckpt"), "--name", "other"]
    assert main(["fit", *options]) == 0
    assert sorted(path.name for path in stopped.rglob("*")) == before
    other = only(tmp_path / "other")
    assert [step for step, _ in rows(other, "train/lr")] == [3]
    (validation,) = rows(other, "val/mIoU")
    assert json.loads((other / "metrics.json").read_text())["mIoU"] == pytest.approx(validation[1])


def test_a_resume_keeps_the_events_of_tensorboard(stopped):
    before = set((stopped / "tensorboard").iterdir())
    assert main(["fit", "--ckpt_path", str(stopped / "checkpoints/last.ckpt")]) == 0
    assert before < set((stopped / "tensorboard").iterdir())


def test_resume_from_the_best_sets_later_rows_aside(fitted, stopped):
    assert main(["fit", "--ckpt_path", str(stopped / "checkpoints/best.ckpt")]) == 0
    assert [step for step, _ in rows(stopped, "train/lr")] == list(range(4))
    assert (stopped / "metrics.replaced.csv").is_file()


def test_a_config_of_a_run_repeats_it(fitted, tmp_path):
    assert main(["fit", "-c", str(fitted.run / "config.yaml"), "--runs", str(tmp_path)]) == 0
    again = only(tmp_path / "micro")
    assert rows(again, "train/loss") == rows(fitted.run, "train/loss")
    first, second = (weights_hash(load_task(run / "checkpoints/last.ckpt")) for run in (fitted.run, again))
    assert first == second


def test_scores_and_checkpoints_of_a_run_with_ema_are_those_of_the_average(fitted, tmp_path):
    options = ["--data.root", str(fitted.data), "--runs", str(tmp_path), "--trainer.callbacks+=EMA"]
    options += ["--trainer.callbacks.decay", "0.5"]
    assert main(["fit", "-c", str(fitted.recipe), *options]) == 0
    run = only(only(tmp_path))
    best = run / "checkpoints/best.ckpt"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["weights_sha256"] == weights_hash(load_task(best))
    saved = read_checkpoint(best)
    weight = "head.classifier.weight"
    assert not torch.equal(saved["state_dict"][weight], saved["current_model_state"][weight])
    assert main(["validate", "--ckpt_path", str(best), *options[:4]]) == 0
    again = json.loads((only(tmp_path / "micro_recipe-validate") / "metrics.json").read_text())
    assert again["mIoU"] == pytest.approx(metrics["mIoU"], abs=1e-6)


def test_test_takes_a_recipe_beside_the_checkpoint(fitted, tmp_path):
    (tmp_path / "delta.yaml").write_text("trainer: {limit_test_batches: 1}")
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(fitted.data), "--runs", str(tmp_path / "runs")]
    for recipe in (fitted.run / "config.yaml", tmp_path / "delta.yaml"):
        assert main(["test", "-c", str(recipe), *options]) == 0


@pytest.mark.parametrize(
    "options",
    [["--trainer.logger", "false"], ["--trainer.callbacks+=LearningRateMonitor"], ["--trainer.fast_dev_run=1"]],
)
def test_trainer_options_are_kept_beside_ours(fitted, tmp_path, options):
    if "fast_dev_run" not in options[0]:
        options = [*options, "--trainer.max_steps", "2"]
    paths = ["--data.root", str(fitted.data), "--runs", str(tmp_path)]
    assert main(["fit", "-c", str(fitted.recipe), *paths, *options]) == 0


def test_mixed_precision(fitted, tmp_path):
    options = ["--data.root", str(fitted.data), "--runs", str(tmp_path), "--trainer.precision", "bf16-mixed"]
    assert main(["fit", "-c", str(fitted.recipe), *options]) == 0
    losses = [loss for _, loss in rows(only(only(tmp_path)), "train/loss")]
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))


def test_fit_says_that_a_cpu_has_no_synchronised_norm(fitted, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("flatten_dense.commands.trainer.rank_zero_info", said.append)
    options = ["--data.root", str(fitted.data), "--runs", str(tmp_path), "--trainer.max_steps", "1"]
    assert main(["fit", "-c", str(fitted.recipe), *options, "--trainer.sync_batchnorm", "true"]) == 0
    assert sum("on the CPU this run uses plain BatchNorm" in line for line in said) == 1


UPERNET = """
backbone: {name: flatten_swin_test}
neck: null
head: {class_path: UPerHead, init_args: {channels: 8}}
auxiliary_head: {class_path: FCNHead, init_args: {channels: 8}}
auxiliary_weight: 0.5
loss: {class_path: WeightedSum, init_args: {losses: [CrossEntropyLoss, DiceLoss], weights: [1, 2]}}
"""


def test_an_auxiliary_head_and_a_loss_of_ones_own(fitted, tmp_path):
    recipe = yaml.safe_load(fitted.recipe.read_text())
    recipe["model"]["init_args"] |= yaml.safe_load(UPERNET)
    recipe["trainer"]["max_steps"] = 2
    (tmp_path / "upernet.yaml").write_text(yaml.safe_dump(recipe))
    options = ["--data.root", str(fitted.data), "--runs", str(tmp_path / "runs")]
    assert main(["fit", "-c", str(tmp_path / "upernet.yaml"), *options]) == 0
    run = only(only(tmp_path / "runs"))
    total, head, auxiliary = (
        [value for _, value in rows(run, f"train/{name}")] for name in ("loss", "loss_head", "loss_auxiliary")
    )
    assert total == pytest.approx([a + 0.5 * b for a, b in zip(head, auxiliary, strict=True)])
    assert main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt"), *options]) == 0


def test_scores_do_not_depend_on_the_evaluation_batch_size(fitted, tmp_path):
    options = ["--ckpt_path", str(fitted.best), "--data.root", str(fitted.data), "--runs", str(tmp_path)]
    for size in ("1", "3"):
        assert main(["validate", *options, "--name", size, "--data.eval_batch_size", size]) == 0
    one, three = (json.loads((only(tmp_path / f"{size}-validate") / "metrics.json").read_text()) for size in "13")
    assert one == three
