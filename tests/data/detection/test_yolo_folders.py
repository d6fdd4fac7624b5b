from pathlib import Path

import pytest

from flatten_dense.data.detection.yolo_folders import find_yolo_split, yolo_class_names
from flatten_dense.data.images import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def files(root: Path, split: str = "train") -> list[tuple[str, str]]:
    """Each photo with its label file, relative to the root."""
    found = find_yolo_split(root, split)
    photos = [(found.image_folder / name).relative_to(root).as_posix() for name in found.photos]
    return list(zip(photos, [label.relative_to(root).as_posix() for label in found.labels], strict=True))


@pytest.mark.parametrize("pattern", ["{kind}/train/{name}", "train/{kind}/{name}"])
def test_a_split_is_found_without_yaml(tmp_path, pattern):
    photos = [pattern.format(kind="images", name=name) for name in ("a.jpg", "sub/b.PNG")]
    touch(tmp_path, *photos, pattern.format(kind="images", name="notes.txt"))
    labels = [pattern.format(kind="labels", name=name) for name in ("a.txt", "sub/b.txt")]
    assert files(tmp_path) == list(zip(photos, labels, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "train: images/a",
        "train: ../images/a",
        "path: /nowhere\ntrain: images/a",
        "path: images\ntrain: a",
        "train: lists/train.txt",
    ],
)
def test_the_yaml_says_where_a_split_lies(tmp_path, text):
    touch(tmp_path, "images/a/1.jpg", "images/b/2.jpg")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("../images/a/1.jpg\n")
    (tmp_path / "data.yaml").write_text(text)
    found = find_yolo_split(tmp_path, "train")
    assert [(found.image_folder / name).resolve() for name in found.photos] == [tmp_path / "images/a/1.jpg"]
    assert [label.resolve() for label in found.labels] == [tmp_path / "labels/a/1.txt"]


def test_a_split_may_be_several_folders(tmp_path):
    touch(tmp_path, "images/a/1.jpg", "images/b/2.jpg")
    (tmp_path / "data.yaml").write_text("train: [images/a, images/b]")
    assert files(tmp_path) == [("images/a/1.jpg", "labels/a/1.txt"), ("images/b/2.jpg", "labels/b/2.txt")]


def test_a_folder_called_images_above_the_root_stays(tmp_path):
    touch(tmp_path / "images/set", "train/1.jpg")
    (tmp_path / "images/set/data.yaml").write_text("train: train")
    assert files(tmp_path / "images/set") == [("train/1.jpg", "train/1.txt")]


@pytest.mark.parametrize("text", ["train: images/a", "train: images/train.txt"])
def test_a_split_that_leads_nowhere_is_refused(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"data\.yaml: 'train: images/\w+(\.txt)?' is neither"):
        find_yolo_split(tmp_path, "train")


def test_an_unknown_split_says_what_is_expected(tmp_path):
    touch(tmp_path, "images/train/1.jpg")
    with pytest.raises(DataError, match="no split 'val'; expected ROOT/images/val"):
        find_yolo_split(tmp_path, "val")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names: [cat, dog]\nnc: 2"),
        ("data.yaml", "names:\n  0: cat\n  1: dog"),
        ("coco8.yaml", "names: [cat, dog]"),
        ("classes.txt", "cat\ndog\n"),
        ("labels/classes.txt", "cat\ndog\n"),
    ],
)
def test_classes_are_found(tmp_path, name, text):
    touch(tmp_path, name)
    (tmp_path / name).write_text(text)
    assert yolo_class_names(tmp_path) == ("cat", "dog")


@pytest.mark.parametrize("name", ["other.yaml", "other.txt"])
def test_a_named_list_goes_first(tmp_path, name):
    (tmp_path / "data.yaml").write_text("names: [cat]")
    (tmp_path / name).write_text("names: [dog, 7]" if name == "other.yaml" else "dog\n7\n")
    assert yolo_class_names(tmp_path, tmp_path / name) == ("dog", "7")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: {1: cat, 2: dog}", "without gaps"),
        ("names: cat", "expected a list"),
        ("names: []", "expected a list"),
        ("names: [cat, dog]\nnc: 3", "nc is 3, but there are 2 names"),
        ("names: [cat, cat]", "repeats cat"),
        ("nc: 2", "neither data.yaml with 'names' nor classes.txt"),
        ("names: [", "no readable YAML"),
        ("- names", "expected lines like"),
    ],
)
def test_classes_that_cannot_be_understood_are_refused(tmp_path, text, reason):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=reason):
        yolo_class_names(tmp_path)
