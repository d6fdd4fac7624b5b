import json

import numpy as np
import pytest
import torch
from PIL import Image

from flatten_dense.backbones import TimmClassifier
from flatten_dense.cli import main
from flatten_dense.data.classification import ImageFolderDataModule
from flatten_dense.metrics import nearest_neighbour_accuracy
from flatten_dense.structures import ClassLabels, InputFormat
from flatten_dense.tasks.classification import ClassificationTask

BACKBONE = {"class_path": "flatten_dense.backbones.TimmClassifier", "init_args": {"name": "flatten_pvt_v2_test"}}
RECIPE = """
model:
  class_path: ClassificationTask
  init_args:
    backbone: {name: flatten_pvt_v2_test}
data:
  class_path: ImageFolderDataModule
  init_args:
    num_workers: 0
    eval_batch_size: 4
    augmentation: {size: [64, 64]}
    input_format: {scale: [64, 64], resize: squash, crop: null}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of three colours, hard to mistake, and weights that were never trained."""
    folder = tmp_path_factory.mktemp("knn")
    rng = np.random.default_rng(0)
    for split, number in (("train", 4), ("val", 2)):
        for channel, name in enumerate(("blue", "green", "red")):
            (folder / "photos" / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = rng.integers(0, 120, (40, 50, 3), dtype=np.uint8)
                pixels[:, :, 2 - channel] += 130
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{index}.png")
    (folder / "micro.yaml").write_text(RECIPE)
    torch.manual_seed(0)
    torch.save(TimmClassifier("flatten_pvt_v2_test").body.state_dict(), folder / "weights.pt")
    return folder


def knn(folder, tmp_path, *args):
    """The content of knn.json."""
    options = ["--data.root", str(folder / "photos"), "--runs", str(tmp_path / "runs")]
    assert main(["knn", *(str(arg) for arg in args), *options]) == 0
    (written,) = (tmp_path / "runs").glob("*/*/knn.json")
    return written, json.loads(written.read_text())


def from_weights(folder):
    return ["-c", folder / "micro.yaml", "--model.weights", folder / "weights.pt"]


def features(folder, split):
    torch.manual_seed(0)
    classifier = TimmClassifier("flatten_pvt_v2_test").eval()
    data = ImageFolderDataModule(
        folder / "photos", val_folder=split, input_format=InputFormat((64, 64), resize="squash"), num_workers=0
    )
    data.setup("validate")
    (batch,) = data.val_dataloader()
    with torch.no_grad():
        return classifier.pooled(batch["image"]), batch["label"]


def test_scores_are_those_of_the_models_features(folder, tmp_path, capsys):
    written, content = knn(folder, tmp_path, *from_weights(folder), "--temperature", 0.2)
    expected = nearest_neighbour_accuracy(*features(folder, "val"), *features(folder, "train"), (1, 5, 10), 0.2)
    assert content["k"] == {str(num): {"top1": a, "top5": b} for num, (a, b) in expected.items()}  # 20 are too many
    assert (content["queries"], content["bank"], content["temperature"]) == (6, 12, 0.2)
    assert (content["backbone"], content["weights"]) == ("flatten_pvt_v2_test", str(folder / "weights.pt"))
    assert written.parent.parent.name == "micro-knn"
    printed = capsys.readouterr().out
    assert "coverage: 100.0%" in printed
    assert f"6 photos by the 12 of training: {written}" in printed


def test_any_numbers_of_neighbours(folder, tmp_path):
    _, content = knn(folder, tmp_path, *from_weights(folder), "--k", 3, 2)
    assert list(content["k"]) == ["2", "3"]


def test_a_checkpoint_of_another_task_needs_nothing_else(fitted, folder, tmp_path):
    written, content = knn(folder, tmp_path, "--ckpt_path", fitted.best, "--k", 1, "--data.num_workers", 0)
    assert written.parent.parent.name == "micro-knn"
    assert content["checkpoint"] == str(fitted.best)
    assert content["input"]["crop"] == [224, 224]


def test_a_classifiers_checkpoint_takes_data_of_other_classes(folder, tmp_path):
    task = ClassificationTask(TimmClassifier("flatten_pvt_v2_test"), ClassLabels(("cat", "dog")), InputFormat())
    module = "flatten_dense.data.classification.ImageFolderDataModule"
    input_format = {"scale": [64, 64], "resize": "squash", "crop": None}
    task.recipe = {
        "name": "animals",
        "model": {
            "class_path": "flatten_dense.tasks.classification.ClassificationTask",
            "init_args": {"backbone": BACKBONE},
        },
        "data": {"class_path": module, "init_args": {"root": "gone", "num_workers": 0, "input_format": input_format}},
    }
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "best.ckpt")
    written, content = knn(folder, tmp_path, "--ckpt_path", tmp_path / "best.ckpt", "--k", 1)
    assert written.parent.parent.name == "animals-knn"
    assert content["input"]["scale"] == [64, 64]


def refusal(folder, capsys, *args):
    assert main(["knn", *(str(arg) for arg in args), "--data.root", str(folder / "photos")]) == 2
    return capsys.readouterr().err


def test_a_recipe_alone_has_no_weights(folder, capsys):
    assert "knn needs the weights to use: --model.weights" in refusal(folder, capsys, "-c", folder / "micro.yaml")


def test_a_model_is_needed(folder, capsys):
    assert "knn needs a model" in refusal(folder, capsys, "--data", "ImageFolderDataModule")


def test_a_checkpoint_says_what_the_model_is(fitted, folder, capsys):
    args = ["--ckpt_path", fitted.best, *from_weights(folder)]
    assert "leave out the options of --model" in refusal(folder, capsys, *args)


def test_a_recipe_of_another_task_is_none_of_a_classifier(folder, capsys):
    args = ["-c", "segmentation/flatten_pvt_nano_fpn_shapes", "--model.weights", "x.pt"]
    assert "of a SemanticSegmentationTask its checkpoint: --ckpt_path" in refusal(folder, capsys, *args)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--k", 0], "--k must be at least 1 neighbour, got 0"),
        (["--k", 13], "only 12 training photos to find 13 neighbours"),
        (["--temperature", 0], "--temperature must be above 0, got 0.0"),
        (["--device", "warp"], "--device warp: PyTorch cannot use it here"),
        (["--data.val_folder", "train"], "both the training and the validation folder"),
    ],
)
def test_options_out_of_range(args, reason, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert reason in refusal(folder, capsys, *from_weights(folder), *args)
    assert list(tmp_path.iterdir()) == []
