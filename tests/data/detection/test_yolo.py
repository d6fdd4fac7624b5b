from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from flatten_dense.data.detection.yolo import YoloDataModule, inspect_yolo, read_yolo
from flatten_dense.data.images import DataError, read_image


def write_photo(path: Path, size=(40, 20), **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, **options)


def write_labels(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    root = tmp_path / "yolo"
    for name in ("b", "a", "c"):
        write_photo(root / f"images/train/{name}.jpg")
    write_labels(root / "labels/train/a.txt", "1 0.5 0.5 0.25 0.5", "", "0 0.1 0.1 0.2 0.2")
    write_labels(root / "labels/train/b.txt")
    (root / "data.yaml").write_text("names: [cat, dog]\n")
    return root


def test_boxes_are_pixels_from_the_corner(yolo):
    found = read_yolo(yolo, "train").annotations
    np.testing.assert_allclose([a["bbox"] for a in found], [[15, 5, 10, 10], [0, 0, 8, 4]])
    np.testing.assert_allclose([a["area"] for a in found], [100, 32])
    assert [a["category_id"] for a in found] == [1, 0]
    assert [a["id"] for a in found] == [1, 2]


def test_images_are_sorted_and_numbered_from_1(yolo):
    assert read_yolo(yolo, "train").images == [
        {"id": number, "file_name": f"{name}.jpg", "width": 40, "height": 20}
        for number, name in enumerate("abc", start=1)
    ]


@pytest.mark.parametrize("name", ["b", "c"], ids=["empty file", "no file"])
def test_a_photo_without_lines_has_no_objects(yolo, name):
    found = read_yolo(yolo, "train")
    number = next(image["id"] for image in found.images if image["file_name"] == f"{name}.jpg")
    assert all(annotation["image_id"] != number for annotation in found.annotations)


def test_polygons_have_the_box_and_the_area_that_pycocotools_gives_them(yolo):
    write_photo(yolo / "images/train/a.jpg", (400, 200))
    write_labels(yolo / "labels/train/a.txt", "0 0.1 0.1 0.6 0.2 0.7 0.8 0.3 0.9 0.4 0.4")
    (found,) = read_yolo(yolo, "train").annotations
    (rle,) = coco_mask.frPyObjects(found["segmentation"], 200, 400)
    np.testing.assert_allclose(found["bbox"], coco_mask.toBbox(rle), atol=1)
    assert found["area"] == pytest.approx(coco_mask.area(rle), rel=0.01)
    assert found["segmentation"][0][:4] == pytest.approx([40, 20, 240, 40])


def test_sizes_are_those_of_the_upright_photo(yolo):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_photo(yolo / "images/train/a.jpg", (40, 20), exif=exif)
    image = read_yolo(yolo, "train").images[0]
    assert (image["height"], image["width"]) == read_image(yolo / "images/train/a.jpg").shape[1:] == (40, 20)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.2", "line"),
        ("0 0.5 0.5 0.2 0.2 0.9", "line"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line"),
        ("cat 0.5 0.5 0.2 0.2", "line"),
        ("0,0.5,0.5,0.2,0.2", "line"),
        ("0 0.5 nan 0.2 0.2", "line"),
        ("2 0.5 0.5 0.2 0.2", "unknown category"),
        ("-1 0.5 0.5 0.2 0.2", "unknown category"),
        ("0.5 0.5 0.5 0.2 0.2", "unknown category"),
        ("0 20 10 10 10", "not normalised"),
        ("0 0.5 0.5 -0.2 0.2", "not normalised"),
    ],
)
def test_a_faulty_line_is_named_and_the_others_are_read(yolo, line, kind):
    path = write_labels(yolo / "labels/train/a.txt", "1 0.5 0.5 0.2 0.2", line)
    reading = inspect_yolo(yolo, "train")
    (fault,) = reading.faults
    assert (fault.kind, fault.path, fault.detail) == (kind, str(path), f"line 2: {line}")
    assert len(reading.annotations.annotations) == 1
    with pytest.raises(DataError, match=r"labels/train/a\.txt: .*line 2"):
        read_yolo(yolo, "train")


def test_rounding_of_a_tool_may_cross_the_border(yolo):
    write_labels(yolo / "labels/train/a.txt", "0 0.5 0.5 1.000001 1.0")
    assert read_yolo(yolo, "train").annotations[0]["bbox"] == pytest.approx([0, 0, 40, 20], abs=1e-3)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda root: write_labels(root / "labels/train/z.txt", "0 0.5 0.5 0.1 0.1"), "no photo"),
        (lambda root: write_photo(root / "images/train/a.png"), "same name"),
        (lambda root: (root / "images/train/c.jpg").write_bytes(b""), "unreadable"),
        (lambda root: (root / "labels/train/c.txt").write_bytes(b"\xff\xfe\xfd"), "unreadable"),
    ],
)
def test_files_that_do_not_fit_are_named(yolo, spoil, kind):
    spoil(yolo)
    assert [fault.kind for fault in inspect_yolo(yolo, "train").faults] == [kind]


def test_a_class_list_beside_the_labels_is_not_a_label_file(yolo):
    (yolo / "labels/train/classes.txt").write_text("cat\ndog\n")
    assert inspect_yolo(yolo, "train").faults == []


def test_the_data_module_reads_the_splits_it_is_told(yolo):
    write_photo(yolo / "images/other/z.jpg")
    data = YoloDataModule(yolo, val_split="other", num_workers=0)
    assert [len(data.read_split(split).images) for split in ("train", "val", "test")] == [3, 1, 1]
    assert (data.labels.class_names, data.labels.category_ids) == (("cat", "dog"), (0, 1))


def test_the_data_modules_class_list_may_lie_elsewhere(yolo, tmp_path):
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    assert YoloDataModule(yolo, classes=tmp_path / "names.txt", num_workers=0).labels.class_names == ("dog", "cat")


def test_the_data_module_checks_what_it_reads(yolo):
    path = write_labels(yolo / "labels/train/b.txt", "0 0.5 0.5 0.2")
    (problem,) = [p for p in YoloDataModule(yolo, num_workers=0).check().problems if p.kind == "line"]
    assert problem.files == ((str(path), "line 1: 0 0.5 0.5 0.2"),)


def test_a_training_item_has_the_boxes_in_pixels(yolo):
    write_photo(yolo / "images/train/a.jpg", (80, 40))
    data = YoloDataModule(yolo, train_scale=(80, 40), flip=0, val_split="train", num_workers=0)
    item = data.make_dataset("train")[0]
    assert item["path"] == str(yolo / "images/train/a.jpg")
    np.testing.assert_allclose(item["target"]["boxes"], [[30, 10, 50, 30], [0, 0, 16, 8]], atol=1e-4)


def test_splits_that_lists_name_are_told_apart(yolo):
    for name in "abc":
        Image.fromarray(np.random.default_rng(ord(name)).integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(
            yolo / f"images/train/{name}.jpg"
        )
    (yolo / "train.txt").write_text("images/train/a.jpg\nimages/train/b.jpg\n")
    (yolo / "val.txt").write_text("images/train/c.jpg\n")
    (yolo / "data.yaml").write_text("names: [cat, dog]\ntrain: train.txt\nval: val.txt\n")
    report = YoloDataModule(yolo, num_workers=0).check()
    assert {split: counts.images for split, counts in report.splits.items()} == {"train": 2, "val": 1}
    assert report.count("error") == 0
