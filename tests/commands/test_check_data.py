import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flatten_dense.cli import main

RECIPE = Path(__file__).parents[1] / "micro_recipe.yaml"


@pytest.fixture
def clean(ade_root) -> Path:
    return ade_root(splits=("training", "validation", "test"))


@pytest.fixture
def faulty(clean) -> Path:
    """A data set with one of every fault."""
    train, val = clean / "annotations/training", clean / "annotations/validation"
    (train / "photo_0.png").rename(train / "alone.png")
    (train / "photo_1.png").write_bytes(b"")
    Image.fromarray(np.zeros((12, 15), np.uint8)).save(train / "photo_2.png")
    Image.fromarray(np.tile(np.array([0, 1, 2, 3], np.uint8), (12, 4))).save(val / "photo_0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = clean / "images/validation/photo_1.jpg"
    Image.open(photo).save(photo, exif=exif)
    (clean / "images/validation/photo_2.jpg").write_bytes((clean / "images/training/photo_3.jpg").read_bytes())
    (clean / "annotations/test/photo_0.png").unlink()
    (clean / "images/test/photo_0.jpg").unlink()
    (clean / "images/test/photo_1.jpg").write_bytes((clean / "images/test/photo_2.jpg").read_bytes())
    return clean


def run(capsys, *args) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["check-data", *(str(arg) for arg in args)])
    return status, *capsys.readouterr()


def test_a_clean_set_ends_with_0(clean, capsys):
    status, out, _ = run(capsys, "-c", RECIPE, "--data.root", clean)
    assert status == 0
    assert f"{clean}: 0 error(s), 0 warning(s) in 12 pairs" in out
    assert all(name in out for name in ("cat", "dog", "bird"))


def test_every_fault_is_in_the_table(faulty, capsys):
    status, out, _ = run(capsys, "-c", RECIPE, "--data.root", faulty)
    assert status == 1
    kinds = [
        "no mask",
        "no photo",
        "unreadable",
        "size",
        "values",
        "zero label",
        "swapped sides",
        "in two splits",
        "twice",
    ]
    assert [kind for kind in kinds if kind not in out] == []
    assert "8 error(s), 1 warning(s)" in out


def test_json_has_every_file_and_nothing_else_is_on_stdout(faulty, capsys):
    status, out, _ = run(capsys, "-c", RECIPE, "--data.root", faulty, "--json")
    report = json.loads(out)
    assert status == 1
    assert (report["clean"], report["errors"], report["warnings"]) == (False, 8, 1)
    unreadable = next(problem for problem in report["problems"] if problem["kind"] == "unreadable")
    assert unreadable["files"][0]["path"] == str(faulty / "annotations/training/photo_1.png")
    assert set(report["splits"]["train"]["classes"]) == {"cat", "dog", "bird"}


def test_warnings_alone_end_with_0(clean, capsys):
    folder = clean / "images/test"
    (folder / "photo_1.jpg").write_bytes((folder / "photo_2.jpg").read_bytes())
    status, out, _ = run(capsys, "-c", RECIPE, "--data.root", clean, "--json")
    assert (status, json.loads(out)["warnings"]) == (0, 1)


def test_no_recipe_is_needed(clean, capsys):
    options = ["--data", "FolderPairsDataModule", "--data.root", clean, "--data.masks", "annotations/{split}"]
    splits = ["--data.train_split", "training", "--data.val_split", "validation"]
    assert run(capsys, *options, *splits)[0] == 0


def test_options_go_over_recipes_and_later_recipes_over_earlier(clean, tmp_path, capsys):
    (tmp_path / "more.yaml").write_text("data: {init_args: {num_classes: 7, test_split: validation}}\n")
    options = ["-c", RECIPE, "-c", tmp_path / "more.yaml", "--data.root", clean]
    status, out, _ = run(capsys, *options, "--json")
    assert (status, "names 3 classes" in out) == (1, True)
    status, out, _ = run(capsys, *options, "--data.num_classes", 3, "--json")
    assert (status, list(json.loads(out)["splits"])) == (0, ["train", "val"])


def test_a_recipe_may_name_the_file_of_its_data(clean, tmp_path, capsys):
    (tmp_path / "data.yaml").write_text("class_path: ADE20KDataModule\n")
    (tmp_path / "recipe.yaml").write_text("data: data.yaml\n")
    assert run(capsys, "-c", tmp_path / "recipe.yaml", "--data.root", clean)[0] == 0


@pytest.fixture
def detection(tmp_path) -> Path:
    """Two splits in YOLO's layout, each with a photo and an object."""
    root = tmp_path / "detection"
    for seed, split in enumerate(("train", "val")):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"images/{split}/{seed}.png")
        (root / f"labels/{split}/{seed}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "classes.txt").write_text("cat\n")
    return root


def test_detection_data_are_checked_alike(detection, capsys):
    status, out, _ = run(capsys, "--data", "YoloDataModule", "--data.root", detection)
    assert status == 0
    assert f"{detection}: 0 error(s), 0 warning(s) in 2 photos with 2 objects" in out
    assert all(text in out for text in ("train objects", "val objects", "cat", "small <32²"))


def test_faults_of_detection_data_are_in_the_table(detection, capsys):
    (detection / "labels/val/1.txt").write_text("0 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")
    options = ["--data", "YoloDataModule", "--data.root", detection]
    status, out, _ = run(capsys, *options)
    assert status == 1
    assert "2 error(s), 1 warning(s)" in out
    report = json.loads(run(capsys, *options, "--json")[1])
    kinds = {problem["kind"]: problem["files"] for problem in report["problems"]}
    place = {"path": str(detection / "labels/val/1.txt"), "detail": "line 1: 0 0.5 0.5 0.5"}
    assert kinds["line"] == [place]
    assert set(kinds) == {"line", "unknown category", "no objects"}
    assert report["splits"]["train"]["classes"] == {"cat": {"objects": 1, "images": 1}}


@pytest.mark.parametrize("name", ["CocoDataModule", "VocDataModule"])
def test_a_folder_of_another_layout_is_told_as_a_problem(name, detection, capsys):
    status, out, _ = run(capsys, "--data", name, "--data.root", detection)
    assert status == 1
    assert "folder" in out


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([], "data"),
        (["-c", "nowhere"], "no such recipe"),
        (["-c", str(RECIPE)], "required: root"),
        (["--data.root", "."], "laid out is not said: give --data ADE20KDataModule"),
        (["-c", str(RECIPE), "--data.root", "nowhere"], "--data.root nowhere: no such folder"),
        (["-c", str(RECIPE), "--data.root", ".", "--data.rot", "x"], "unknown option --data.rot"),
        (["-c", str(RECIPE), "--data.root", ".", "--data.num_workers", "-1"], "num_workers must be at least 0"),
        (["--data", "ShardDataModule", "--data.root", "."], "check the folder that they are made of"),
        (["-c", "model.yaml"], "no section 'data'"),
        (["-c", "text.yaml"], "no YAML"),
    ],
)
def test_a_wrong_command_line_ends_with_2(args, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text("model: {}\n")
    (tmp_path / "text.yaml").write_text("a: [\n")
    status, out, err = run(capsys, *args)
    assert (status, out) == (2, "")
    assert reason in err


def test_help_says_what_the_status_means(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["check-data", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 without errors, 1 with errors" in printed
    assert "Warnings alone do not fail" in printed


def test_photos_with_a_class_each_are_checked_alike(tmp_path, capsys):
    for seed, place in enumerate(("train/cat", "train/dog", "val/cat", "val/dog")):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        noise = np.random.default_rng(seed).integers(0, 256, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "photo.png")
    options = ["--data", "ImageFolderDataModule", "--data.root", tmp_path]
    status, out, _ = run(capsys, *options)
    assert status == 0
    assert f"{tmp_path}: 0 error(s), 0 warning(s) in 4 photos" in out
    (tmp_path / "val/dog/photo.png").write_bytes(b"")
    status, out, _ = run(capsys, *options, "--json")
    assert status == 1
    assert json.loads(out)["problems"][0]["kind"] == "unreadable"
