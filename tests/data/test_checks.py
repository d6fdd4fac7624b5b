from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flatten_dense.data.ade20k import ADE20KDataModule
from flatten_dense.data.checks import check_data
from flatten_dense.data.data_report import DataReport, Problem
from flatten_dense.data.folder_pairs import FolderPairsDataModule


def check(root: Path, **options) -> DataReport:
    return check_data(ADE20KDataModule(root, **{"num_workers": 0, **options}))


def only(report: DataReport, kind: str) -> Problem:
    (problem,) = [problem for problem in report.problems if problem.kind == kind]
    return problem


def errors(report: DataReport) -> list[tuple[str, str]]:
    return [(problem.kind, problem.split) for problem in report.problems if problem.severity == "error"]


def write_mask(root: Path, values, split: str = "training", name: str = "photo_0") -> Path:
    path = root / f"annotations/{split}/{name}.png"
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return path


def tile(*row: int) -> np.ndarray:
    """12 x 16 pixels of one row, repeated."""
    return np.tile(np.resize(row, 16), (12, 1))


@pytest.fixture
def clean(ade_root) -> Path:
    return ade_root(splits=("training", "validation", "test"))


def test_a_clean_set_has_no_problem(clean):
    report = check(clean)
    assert report.problems == []
    assert [report.splits[split].pairs for split in ("train", "val", "test")] == [4, 4, 4]


def test_pixels_and_masks_of_each_class_are_counted(ade_root):
    root = ade_root(num=2)
    write_mask(root, tile(0, 0, 0, 255), name="photo_0")
    write_mask(root, tile(0, 2, 2, 2), name="photo_1")
    counts = check(root).splits["train"]
    assert (counts.pixels, counts.ignored) == (384, 48)
    assert counts.class_pixels == [144 + 48, 0, 144]
    assert counts.class_images == [2, 0, 1]


def test_photos_and_masks_without_partner(clean):
    (clean / "annotations/training/photo_1.png").rename(clean / "annotations/training/other.png")
    report = check(clean)
    assert only(report, "no mask").files == ((str(clean / "images/training/photo_1.jpg"), ""),)
    assert only(report, "no photo").files == ((str(clean / "annotations/training/other.png"), ""),)
    assert report.splits["train"].pairs == 3, "the pairs that there are were read all the same"


@pytest.mark.parametrize("folder", ["images", "annotations"])
@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_files_that_cannot_be_read(clean, folder, content):
    path = next((clean / folder / "validation").glob("photo_2.*"))
    path.write_bytes(path.read_bytes()[:-40] if content == "cut" else content)
    report = check(clean)
    assert errors(report) == [("unreadable", "val")]
    ((name, reason),) = only(report, "unreadable").files
    assert name == str(path)
    assert any(word in reason for word in ("empty", "not a readable image", "damaged"))
    assert str(path) not in reason


def test_masks_of_another_size(clean):
    write_mask(clean, np.zeros((12, 15)))
    problem = only(check(clean), "size")
    assert problem.files == ((str(clean / "images/training/photo_0.jpg"), "16x12, its mask 15x12"),)


def test_sides_swapped_by_exif(clean):
    path = clean / "images/test/photo_3.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    report = check(clean)
    assert errors(report) == [("swapped sides", "test")]
    assert only(report, "swapped sides").files == ((str(path), "12x16, its mask 16x12"),)


def test_values_outside_the_classes_are_counted_and_placed(clean):
    values = tile(1)
    values[3, 5:8] = 77
    first = write_mask(clean, values, name="photo_0")
    values[2, 9] = 77
    second = write_mask(clean, values, name="photo_2")
    problem = only(check(clean), "values")
    assert problem.message == ("the value 77 is no class: 7 pixels in 2 mask(s); expected 0..2, or 255 for unlabelled")
    assert problem.files == (
        (str(first), "3 pixels, first at column 5 of row 3"),
        (str(second), "4 pixels, first at column 9 of row 2"),
    )


def test_the_frequent_of_many_values_are_named(clean):
    write_mask(clean, np.arange(40, 40 + 12 * 16).reshape(12, 16).clip(max=220))  # 40 to 219 once, 220 twelve times
    report = check(clean)
    values = [problem.message for problem in report.problems if problem.kind == "values"]
    assert len(values) == 21
    assert values[0].startswith("the value 220 is no class: 12 pixels")
    assert values[-1] == "161 further values are no class either"


@pytest.mark.parametrize(("zeros_in", "advised"), [(1, True), (0, False)])
def test_the_value_k_beside_common_zeros_asks_for_reduction(ade_root, zeros_in, advised):
    root = ade_root(num=5)
    for index in range(5):
        row = (0, 1, 2) if index < zeros_in else (1, 2)
        write_mask(root, tile(*row, 3), name=f"photo_{index}")
    kinds = [problem.message for problem in check(root).problems if problem.kind == "zero label"]
    assert bool(kinds) == advised
    if advised:
        assert kinds == [
            "the value 3 occurs and 0 is common (1 of 5 masks): you want zero-label reduction, "
            "--data.reduce_zero_label true"
        ]


def test_values_above_k_do_not_ask_for_reduction(clean):
    write_mask(clean, tile(0, 3, 4))
    assert [problem.kind for problem in check(clean).problems] == ["values", "values"]


def test_a_stray_value_beside_k_still_asks_for_reduction(clean):
    mask = tile(0, 3)
    mask[0, 0] = 200
    write_mask(clean, mask)
    assert "zero label" in [problem.kind for problem in check(clean).problems]


def test_reduced_labels_are_judged_as_such(clean):
    write_mask(clean, tile(0, 3, 4))
    report = check(clean, reduce_zero_label=True)
    assert errors(report) == [("values", "train")]
    assert "the value 4 is no class: 60 pixels" in only(report, "values").message
    assert report.splits["train"].class_images[2] == 1


def test_the_same_photo_in_two_splits_whatever_its_file(clean):
    pixels = Image.open(clean / "images/training/photo_1.jpg")
    pixels.save(clean / "images/validation/photo_2.png")
    (clean / "images/validation/photo_2.jpg").unlink()
    report = check(clean)
    assert errors(report) == [("in two splits", "train and val")]
    ((path, detail),) = only(report, "in two splits").files
    assert path == str(clean / "images/validation/photo_2.png")
    assert detail == f"the same pixels as {clean / 'images/training/photo_1.jpg'}"


def test_the_same_photo_twice_in_a_split_is_a_warning(clean):
    folder = clean / "images/training"
    (folder / "photo_3.jpg").write_bytes((folder / "photo_0.jpg").read_bytes())
    report = check(clean)
    assert errors(report) == []
    assert only(report, "twice").files[0][0] == str(folder / "photo_3.jpg")


def test_photos_of_equal_bytes_but_other_shape_differ(clean):
    for name, shape in (("photo_0", (12, 16)), ("photo_1", (16, 12))):
        (clean / f"images/training/{name}.jpg").unlink()
        Image.new("RGB", shape[::-1]).save(clean / f"images/training/{name}.png")
        write_mask(clean, np.zeros(shape), name=name)
    assert check(clean).problems == []


def test_one_folder_as_two_splits_is_read_once(ade_root):
    report = check(ade_root(), test_split="validation")
    assert report.problems == []
    assert list(report.splits) == ["train", "val"]


def test_classes_that_occur_nowhere_or_not_in_training(ade_root):
    root = ade_root(num=1)
    write_mask(root, tile(0))
    write_mask(root, tile(0, 2), split="validation")
    report = check(root, test_split="validation")
    assert errors(report) == []
    assert only(report, "class absent").message == "1 class(es) occur nowhere: dog"
    untrained = only(report, "class untrained")
    assert untrained.split == "val"
    assert untrained.message.endswith("cannot be learned: bird")


def test_masks_and_splits_with_few_labels(ade_root):
    root = ade_root(num=2)
    write_mask(root, tile(255), name="photo_0")
    write_mask(root, tile(0, 255), name="photo_1")
    report = check(root, test_split="validation")
    assert only(report, "nothing labelled").files == ((str(root / "annotations/training/photo_0.png"), ""),)
    assert only(report, "ignored").message.startswith("75% of the pixels")


@pytest.mark.parametrize(("folder", "severity"), [("validation", "error"), ("test", "warning")])
def test_a_missing_split_does_not_stop_the_others(clean, folder, severity):
    (clean / f"annotations/{folder}").rename(clean / "elsewhere")
    report = check(clean)
    assert [(problem.kind, problem.severity) for problem in report.problems] == [("folder", severity)]
    assert len(report.splits) == 2


def test_unknown_classes_leave_the_rest_to_be_checked(ade_root):
    root = ade_root(splits=("training", "validation", "test"), classes=False)
    (root / "annotations/training/photo_0.png").write_bytes(b"")
    report = check(root)
    assert errors(report) == [("classes", ""), ("unreadable", "train")]
    assert report.splits["train"].pairs == 4
    assert report.class_names == ()


def test_lists_are_checked(voc):
    lists = voc / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("2007_000032\n2007_000032\n2007_000999\nnone\n")
    (lists / "val.txt").write_text("2007_000032\n2007_000039\n")
    layout = {"images": "JPEGImages", "masks": "SegmentationClass", "test_split": "val"}
    data = FolderPairsDataModule(voc, **layout, split_lists="ImageSets/Segmentation/{split}.txt", num_workers=0)
    report = check_data(data)
    expected = {
        ("no mask", "train"),
        ("not found", "train"),
        ("listed twice", "train"),
        ("in two splits", "train and val"),
    }
    assert set(errors(report)) == expected


def test_colours_outside_the_map_are_named(camvid):
    (camvid / "part.txt").write_text("64 0 128 Car\n0 0 0 ignore\n")
    layout = {"images": "{split}", "masks": "{split}_labels", "mask_suffix": "_L"}
    report = check_data(FolderPairsDataModule(camvid, **layout, label_map=camvid / "part.txt", num_workers=0))
    assert errors(report) == [("values", split) for split in ("train", "val", "test")]
    assert "the colour (64, 128, 192) is no class: 60 pixels in 1 mask(s)" in report.problems[0].message
    assert report.splits["train"].ignored == 60


def test_many_pairs_are_read_by_processes(ade_root):
    root = ade_root(num=40)
    (root / "annotations/validation/photo_7.png").write_bytes(b"")
    seen = []
    data = ADE20KDataModule(root, test_split="validation", num_workers=1)
    report = check_data(data, progress=lambda done, total: seen.append((done, total)))
    assert errors(report) == [("unreadable", "val")]
    assert seen == [(done, 80) for done in range(1, 81)]


def test_nothing_is_written(clean):
    before = {path: path.stat().st_mtime_ns for path in clean.rglob("*")}
    check(clean)
    assert {path: path.stat().st_mtime_ns for path in clean.rglob("*")} == before
