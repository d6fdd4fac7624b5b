import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flatten_dense.data.classification import ImageFolderDataModule
from flatten_dense.data.classification.classification_report import ClassificationReport
from flatten_dense.data.classification.transforms import Augmentation


def write(path: Path, seed: int, size=(40, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def clean(tmp_path) -> Path:
    """Two classes, of each three photos to learn from and one to measure with, all different."""
    for number, name in enumerate(("cat", "dog")):
        for index in range(4):
            split = "val" if index == 3 else "train"
            write(tmp_path / split / name / f"{index}.png", 10 * number + index)
    return tmp_path


def check(root: Path, **options) -> ClassificationReport:
    small = Augmentation(size=(64, 64))
    return ImageFolderDataModule(root, augmentation=small, num_workers=0, **options).check()


def only_problem(root: Path, **options):
    (problem,) = check(root, **options).problems
    return problem


def test_a_clean_set_is_counted(clean):
    report = check(clean)
    assert report.problems == []
    assert report.class_names == ("cat", "dog")
    assert {split: counts.class_images for split, counts in report.splits.items()} == {"train": [3, 3], "val": [1, 1]}
    assert report.splits["train"].sizes == (32, 32, 32)


def test_progress_goes_to_the_end(clean):
    calls = []
    ImageFolderDataModule(clean, num_workers=0).check(lambda *call: calls.append(call))
    assert calls == [(number, 8) for number in range(1, 9)]


def test_a_damaged_photo(clean):
    path = clean / "train/cat/1.png"
    path.write_bytes(path.read_bytes()[:200])
    problem = only_problem(clean)
    assert (problem.kind, problem.severity, problem.split) == ("unreadable", "error", "train")
    assert problem.files[0][0] == str(path)
    assert "damaged" in problem.files[0][1]


def test_a_class_that_train_does_not_have(clean):
    write(clean / "val/cow/0.png", 90)
    problem = only_problem(clean)
    assert (problem.kind, problem.severity, problem.split) == ("unknown class", "error", "val")
    assert problem.files == ((str(clean / "val/cow"), "1 photos"),)


def test_photos_beside_the_class_folders(clean):
    write(clean / "train/lost.png", 90)
    problem = only_problem(clean)
    assert (problem.kind, problem.severity, problem.split) == ("no class", "error", "train")
    assert problem.files == ((str(clean / "train/lost.png"), ""),)


def test_a_training_class_without_photos(clean):
    (clean / "train/cow").mkdir()
    report = check(clean)
    found = [(problem.kind, problem.severity, problem.split) for problem in report.problems]
    assert found == [("empty class", "error", "train"), ("class not measured", "warning", "val")]
    assert "cow" in report.problems[0].message


def test_a_class_without_validation_photos(clean):
    shutil.rmtree(clean / "val/dog")
    problem = only_problem(clean)
    assert (problem.kind, problem.severity, problem.split) == ("class not measured", "warning", "val")
    assert "dog" in problem.message


def test_files_that_are_no_images(clean):
    (clean / "train/cat/notes.txt").write_text("")
    (clean / "train/cat/.hidden").write_text("")
    problem = only_problem(clean)
    assert (problem.kind, problem.severity) == ("no image", "warning")
    assert problem.files == ((str(clean / "train/cat/notes.txt"), ""),)


def test_a_photo_that_is_in_train_and_val(clean):
    shutil.copy(clean / "train/cat/0.png", clean / "val/cat/copy.png")
    problem = only_problem(clean)
    assert (problem.kind, problem.severity, problem.split) == ("in two splits", "error", "train and val")
    assert problem.files[0][0] == str(clean / "val/cat/copy.png")


def test_a_photo_that_is_said_to_be_of_two_classes(clean):
    shutil.copy(clean / "train/cat/0.png", clean / "train/dog/copy.png")
    problems = {problem.kind: problem for problem in check(clean).problems}
    assert set(problems) == {"twice", "two classes"}
    path, detail = problems["two classes"].files[0]
    assert path == str(clean / "train/dog/copy.png")
    assert detail == f"dog, but cat by {clean / 'train/cat/0.png'}"


def test_a_class_that_is_fifty_times_another(clean):
    for index in range(147):
        write(clean / f"train/cat/more_{index}.png", 100 + index, size=(16, 16))
    problem = only_problem(clean)
    assert (problem.kind, problem.severity, problem.split) == ("imbalance", "warning", "train")
    assert "cat has 150 photos, dog only 3" in problem.message


def test_photos_that_would_be_enlarged_more_than_four_times(clean):
    write(clean / "train/cat/small.png", 90, size=(40, 15))
    write(clean / "train/cat/enough.png", 91, size=(40, 16))
    problem = only_problem(clean)
    assert (problem.kind, problem.severity) == ("small", "warning")
    assert problem.files == ((str(clean / "train/cat/small.png"), "40x15"),)


def test_a_missing_split_is_told_once(clean):
    shutil.rmtree(clean / "val")
    problem = only_problem(clean)
    assert (problem.kind, problem.severity, problem.split) == ("folder", "error", "val")


def test_without_training_data_the_rest_is_still_read(clean):
    shutil.rmtree(clean / "train")
    report = check(clean)
    assert [(problem.kind, problem.split) for problem in report.problems] == [("folder", "train")]
    assert report.splits["val"].images == 2


def test_a_missing_test_split_is_only_a_warning(clean):
    problem = only_problem(clean, test_folder="test")
    assert (problem.kind, problem.severity, problem.split) == ("folder", "warning", "test")


def test_one_class_is_not_enough(clean):
    shutil.rmtree(clean / "train/dog")
    shutil.rmtree(clean / "val/dog")
    problem = only_problem(clean)
    assert (problem.kind, problem.severity) == ("classes", "error")
    assert "at least 2 classes" in problem.message
