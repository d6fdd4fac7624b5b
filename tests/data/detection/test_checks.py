import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from flatten_dense.data.detection.checks import check_detection
from flatten_dense.data.detection.coco_json import inspect_coco
from flatten_dense.data.detection.detection_report import DetectionReport

SHARED = Path(__file__).parents[4] / "shared/data"


class CocoFiles:
    """Where COCO keeps a split."""

    num_workers = 0

    def __init__(self, root: Path) -> None:
        self.root = root

    def inspect_split(self, split):
        return inspect_coco(self.root / f"annotations/instances_{split}2017.json", self.root / f"{split}2017")


def write_split(root: Path, split: str, seeds: range, change=lambda content: None, names=("cat", "dog")) -> None:
    """A photo of noise per seed, with an object of each class."""
    folder = root / f"{split}2017"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for seed in seeds:
        noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png")
        images.append({"id": seed, "file_name": f"{seed}.png", "width": 40, "height": 30})
        for category in range(len(names)):
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": seed, "category_id": category, "bbox": [2, 2, 9, 9]})
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    change(content)
    (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))


def check(root: Path) -> DetectionReport:
    return check_detection(CocoFiles(root))


def kinds(report: DetectionReport) -> list[tuple[str, str, str]]:
    return [(problem.kind, problem.severity, problem.split) for problem in report.problems]


@pytest.fixture
def clean(tmp_path) -> Path:
    for split, seeds in (("train", range(4)), ("val", range(10, 12)), ("test", range(20, 22))):
        write_split(tmp_path, split, seeds)
    return tmp_path


def test_a_clean_set_has_no_problem(clean):
    report = check(clean)
    assert report.problems == []
    assert report.class_names == ("cat", "dog")
    assert [counts.images for counts in report.splits.values()] == [4, 2, 2]
    assert report.splits["train"].class_objects == [4, 4]


def test_nothing_is_written(clean):
    before = {path: path.stat().st_mtime_ns for path in clean.rglob("*")}
    check(clean)
    assert {path: path.stat().st_mtime_ns for path in clean.rglob("*")} == before


def test_faults_of_all_kinds_are_collected(tmp_path):
    def spoil(content):
        content["annotations"][0]["bbox"] = [50, 2, 9, 9]
        content["annotations"][1]["category_id"] = 9
        content["annotations"][2]["segmentation"] = {"size": [30, 40], "counts": "?"}
        content["images"][3]["width"] = 41

    write_split(tmp_path, "train", range(4), spoil)
    write_split(tmp_path, "val", range(3, 5))
    (tmp_path / "val2017/4.png").unlink()
    assert sorted(kinds(check(tmp_path))) == [
        ("bad mask", "error", "train"),
        ("box outside", "warning", "train"),
        ("folder", "error", "test"),
        ("in two splits", "error", "train and val"),
        ("no photo", "error", "val"),
        ("size", "error", "train"),
        ("unknown category", "error", "train"),
    ]


def test_errors_come_first(clean):
    shutil.copy(clean / "train2017/0.png", clean / "train2017/more.png")
    (clean / "val2017/10.png").unlink()
    assert kinds(check(clean)) == [("no photo", "error", "val"), ("not named", "warning", "train")]


def test_a_split_that_is_not_there_and_one_that_cannot_be_read(clean):
    (clean / "annotations/instances_val2017.json").unlink()
    (clean / "annotations/instances_test2017.json").write_text("{")
    report = check(clean)
    assert kinds(report) == [("folder", "error", "val"), ("folder", "error", "test")]
    assert list(report.splits) == ["train"]


def test_what_is_wrong_with_every_split_is_said_once(tmp_path):
    class Unknown(CocoFiles):
        def inspect_split(self, split):
            return super().inspect_split("nowhere")

    report = check_detection(Unknown(tmp_path))
    assert kinds(report) == [("folder", "error", "train")]
    assert report.tables() == []


def test_splits_of_the_same_files_are_read_once(clean):
    class NoTest(CocoFiles):
        def inspect_split(self, split):
            return super().inspect_split("val" if split == "test" else split)

    report = check_detection(NoTest(clean))
    assert report.problems == []
    assert list(report.splits) == ["train", "val"]


def test_a_class_that_train_does_not_name(tmp_path):
    write_split(tmp_path, "train", range(2), names=("cat", "dog"))
    write_split(tmp_path, "val", range(2, 4), names=("dog", "Cat"))
    report = check(tmp_path)
    (problem,) = [problem for problem in report.problems if problem.kind == "classes differ"]
    source = str(tmp_path / "annotations/instances_val2017.json")
    assert (problem.split, problem.files) == ("val", ((source, "Cat: 2 objects"),))
    assert report.class_names == ("cat", "dog", "Cat")
    assert report.splits["val"].class_objects == [0, 2, 2], "ids may differ, names count"


def test_a_class_only_in_validation(tmp_path):
    def drop_dogs(content):
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 0]

    write_split(tmp_path, "train", range(2), drop_dogs)
    write_split(tmp_path, "val", range(2, 4))
    assert ("class untrained", "warning", "val") in kinds(check(tmp_path))


def test_progress_counts_photos(clean):
    seen = []
    check_detection(CocoFiles(clean), lambda done, total: seen.append((done, total)))
    assert seen == [(number, 8) for number in range(1, 9)]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_a_published_set_has_no_error_and_counts_as_pycocotools_does():
    report = check(SHARED / "bccd_coco")
    coco = COCO(str(SHARED / "bccd_coco/annotations/instances_val2017.json"))
    assert report.problems == []
    expected = [len(coco.getAnnIds(catIds=[number])) for number in sorted(coco.cats)]
    assert report.splits["val"].class_objects == expected
