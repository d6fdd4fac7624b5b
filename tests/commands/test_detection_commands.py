"""A detector from the command line: fit, resume, validate, test, predict, on scenes of shapes."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from flatten_dense.cli import main
from flatten_dense.data.images import read_image
from flatten_dense.data.shapes import CATEGORY_IDS, write_shapes
from flatten_dense.tasks.checkpoint import load_task, read_checkpoint
from flatten_dense.tasks.detection import DetectionTask

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
save_every: 3
model:
  class_path: DetectionTask
  init_args:
    backbone: {name: flatten_pvt_test}
    neck: {class_path: flatten_dense.necks.FPN, init_args: {out_channels: 16, extra_levels: 1}}
    head:
      class_path: MaskRCNNHead
      init_args: {fc_channels: 16, rpn_samples: 16, roi_samples: 16, train_proposals: 50, test_proposals: 50}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3}}
    schedule: {drops_at: [0.5], warmup_steps: 0}
data:
  class_path: CocoDataModule
  init_args: {batch_size: 2, eval_batch_size: 2, num_workers: 0, train_scale: [64, 64], eval_scale: [64, 64]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detection")
    write_shapes(folder / "shapes", 4, 3, image_size=(96, 96))
    (folder / "micro.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    return folder / "shapes/coco"


@pytest.fixture(scope="module")
def run(folder, data):
    """Only to be read."""
    options = ["-c", str(folder / "micro.yaml"), "--data.root", str(data), "--runs", str(folder / "runs")]
    assert main(["fit", *options]) == 0
    (run,) = (folder / "runs/micro").iterdir()
    return run


def only(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def checkpoint(run: Path) -> list[str]:
    return ["--ckpt_path", str(run / "checkpoints/best.ckpt")]


def test_fit_leaves_what_is_promised(run):
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    promised = {"config.yaml", "metrics.csv", "metrics.json", "per_class.csv", "detections.json", "curves.png"}
    promised |= {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "pictures/validation_step_000002.png"}
    promised |= {"pictures/precision_recall.png", "pictures/errors.png", "pictures/confusion.png"}
    assert promised <= left


def test_every_loss_has_its_column(run):
    with (run / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    losses = {"loss", "loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_box", "loss_mask"}
    assert {f"train/{name}" for name in losses} <= set(columns)


def test_the_rate_drops_where_the_recipe_says(run):
    with (run / "metrics.csv").open() as file:
        rates = [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_metrics_json_has_twelve_numbers_of_boxes_and_of_masks(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert [len(metrics["bbox"]), len(metrics["segm"])] == [12, 12]
    assert list(metrics["per_class"]) == list(CATEGORY_IDS)


def test_the_config_of_a_run_repeats_it(run, data, tmp_path):
    options = ["-c", str(run / "config.yaml"), "--runs", str(tmp_path), "--name", "again"]
    assert main(["fit", *options]) == 0
    last, again = (path / "checkpoints/last.ckpt" for path in (run, only(tmp_path / "again")))
    weights, repeated = (read_checkpoint(path)["state_dict"] for path in (last, again))
    assert all(torch.equal(tensor, repeated[name]) for name, tensor in weights.items())


def test_one_option_of_the_schedule_is_replaced(folder, data, tmp_path):
    options = ["-c", str(folder / "micro.yaml"), "--data.root", str(data), "--runs", str(tmp_path)]
    assert main(["fit", *options, "--model.schedule.warmup_steps", "5"]) == 0
    config = yaml.safe_load((only(tmp_path / "micro") / "config.yaml").read_text())
    schedule = config["model"]["init_args"]["schedule"]
    assert schedule["class_path"] == "flatten_dense.optim.StepSchedule"
    assert (schedule["init_args"]["drops_at"], schedule["init_args"]["warmup_steps"]) == ([0.5], 5)


def test_a_fit_that_diverges_names_its_photos_and_leaves_them_to_be_tried_again(folder, data, tmp_path, capsys):
    options = ["-c", str(folder / "micro.yaml"), "--data.root", str(data), "--runs", str(tmp_path)]
    assert main(["fit", *options, "--model.optimizer.lr", "1e30"]) == 2
    (left,) = only(tmp_path / "micro").glob("nonfinite_step_*.ckpt")
    error = capsys.readouterr().err
    batch = read_checkpoint(left)["replay"]["batch"]
    assert str(left) in error
    assert f"for images {', '.join(map(str, batch['image_id']))}." in error
    losses = load_task(left).train().losses(batch["image"], batch["target"])
    assert not losses["loss"].isfinite()


def test_test_needs_the_checkpoint_alone(run, data, tmp_path):
    assert main(["test", *checkpoint(run), "--data.root", str(data), "--runs", str(tmp_path)]) == 0
    tested = only(only(tmp_path))
    best, again = (json.loads((path / "metrics.json").read_text()) for path in (run, tested))
    assert again["bbox"] == pytest.approx(best["bbox"], nan_ok=True)
    assert again["weights_sha256"] == best["weights_sha256"]


def test_the_results_file_scores_what_metrics_json_says(run, data, capsys):
    truth = COCO(str(data / "annotations/instances_val2017.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(run / "detections.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert json.loads((run / "metrics.json").read_text())["bbox"]["AP"] == pytest.approx(evaluation.stats[0], abs=1e-6)


def test_a_resume_goes_on_in_the_same_run(folder, data, tmp_path):
    options = ["-c", str(folder / "micro.yaml"), "--data.root", str(data), "--runs", str(tmp_path)]
    assert main(["fit", *options, "--trainer.max_steps", "3"]) == 0
    last = only(tmp_path / "micro") / "checkpoints/last.ckpt"
    assert main(["fit", "--ckpt_path", str(last), "--trainer.max_steps", "5"]) == 0
    assert len(list((tmp_path / "micro").iterdir())) == 1
    assert read_checkpoint(last)["global_step"] == 5


@pytest.mark.slow
def test_a_stop_changes_nothing(folder, data, require_exact_resume):
    drawn = {"copy_paste": 0.5, "photometric": True, "crop": 0.5, "crop_short_sides": [64], "crop_range": [40, 64]}
    require_exact_resume(DetectionTask, folder / "micro.yaml", data, 11, {"data": {"init_args": drawn}})


def test_predict_writes_overlays_and_one_result_file_with_the_data_sets_numbers(run, data, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", *checkpoint(run), "--input", str(data / "val2017"), "--output", str(out)]) == 0
    photos = sorted(path.stem for path in (data / "val2017").iterdir())
    assert sorted(path.stem for path in (out / "overlays").iterdir()) == photos
    rows = json.loads((out / "detections.json").read_text())
    assert {row["category_id"] for row in rows} <= set(CATEGORY_IDS.values())
    loaded = COCO(str(out / "images.json")).loadRes(str(out / "detections.json"))
    assert len(loaded.anns) == len(rows)


def test_a_checkpoint_detects_in_python(run, data):
    task = load_task(run / "checkpoints/best.ckpt")
    found = task.detect(read_image(data / "val2017/scene_00000.png"))
    assert task.labels.category_ids == tuple(CATEGORY_IDS.values())
    assert len(found.boxes) == len(found.masks)


def test_masks_wanted_from_boxes_alone(folder, data, tmp_path, capsys):
    boxes = tmp_path / "boxes"
    (boxes / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (boxes / split).symlink_to(data / split)
        content = json.loads((data / f"annotations/instances_{split}.json").read_text())
        for annotation in content["annotations"]:
            del annotation["segmentation"]
        (boxes / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    options = ["-c", str(folder / "micro.yaml"), "--data.root", str(boxes), "--runs", str(tmp_path / "runs")]
    assert main(["fit", *options]) == 2
    assert "--model.head.masks false" in capsys.readouterr().err
    assert main(["fit", *options, "--model.head.masks", "false"]) == 0


@pytest.mark.parametrize("task", ["SemanticSegmentationTask", "DetectionTask"])
def test_a_task_and_data_that_do_not_fit(folder, ade_root, data, tmp_path, capsys, task):
    recipe = yaml.safe_load(RECIPE)
    if task == "DetectionTask":
        recipe["data"] = {"class_path": "ADE20KDataModule", "init_args": {"root": str(ade_root())}}
    else:
        recipe["model"] = {
            "class_path": "SemanticSegmentationTask",
            "init_args": {"backbone": {"name": "flatten_pvt_test"}, "head": {"class_path": "FCNHead"}},
        }
        recipe["data"]["init_args"]["root"] = str(data)
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["fit", "-c", str(tmp_path / "mixed.yaml"), "--runs", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert task in error
    assert recipe["data"]["class_path"] in error
    assert not (tmp_path / "runs").exists()
