from pathlib import Path

import pytest
from PIL import Image

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.photo_checks import photo_faults, unnamed_photos
from flatten_dense.data.inspection import inspect_photo

SIZE = (40, 30)


def write_photo(path: Path, size=SIZE, orientation=1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)


def annotated(folder: Path, *names: str, size=SIZE) -> DetectionAnnotations:
    """An object in each photo."""
    images = [
        {"id": number, "file_name": name, "width": size[0], "height": size[1]} for number, name in enumerate(names)
    ]
    objects = [{"image_id": number} for number in range(len(names))]
    return DetectionAnnotations(folder / "x.json", folder, images, objects, [])


def faults(annotations: DetectionAnnotations):
    paths = [annotations.image_folder / image["file_name"] for image in annotations.images]
    return list(photo_faults(annotations, {str(path): inspect_photo(path) for path in paths}))


def test_a_photo_of_the_size_that_is_said(tmp_path):
    write_photo(tmp_path / "a.jpg")
    assert faults(annotated(tmp_path, "a.jpg")) == []


@pytest.mark.parametrize(
    ("stored", "orientation", "said", "kind", "detail"),
    [
        ((41, 30), 1, (40, 30), "size", "41x30, by its annotations 40x30"),
        ((30, 40), 1, (40, 30), "swapped sides", "30x40, by its annotations 40x30"),
        ((40, 30), 6, (40, 30), "swapped sides", "30x40, by its annotations 40x30"),
        ((40, 30), 6, (30, 40), "turned by EXIF", "orientation 6"),
        ((40, 30), 3, (40, 30), "turned by EXIF", "orientation 3"),
        ((41, 30), 8, (40, 30), "size", "30x41, by its annotations 40x30"),
    ],
)
def test_sizes_and_rotations(tmp_path, stored, orientation, said, kind, detail):
    write_photo(tmp_path / "a.jpg", stored, orientation)
    (fault,) = faults(annotated(tmp_path, "a.jpg", size=said))
    assert (fault.kind, fault.path, fault.detail) == (kind, str(tmp_path / "a.jpg"), detail)
    assert fault.severity == ("warning" if kind == "turned by EXIF" else "error")
    assert ("an EXIF tag turns" in fault.what) == (orientation != 1 and kind != "size")


def test_photos_that_are_missing_or_cannot_be_read(tmp_path):
    (tmp_path / "empty.jpg").touch()
    missing, unreadable = faults(annotated(tmp_path, "away.jpg", "empty.jpg"))
    assert (missing.kind, missing.path) == ("no photo", str(tmp_path / "away.jpg"))
    assert (unreadable.kind, unreadable.path) == ("unreadable", str(tmp_path / "empty.jpg"))
    assert "0 bytes" in unreadable.detail


def test_a_photo_that_two_images_name(tmp_path):
    write_photo(tmp_path / "a.jpg")
    (fault,) = faults(annotated(tmp_path, "a.jpg", "a.jpg"))
    assert (fault.kind, fault.severity, fault.detail) == ("same photo", "error", "image 1")


def test_a_photo_without_objects(tmp_path):
    write_photo(tmp_path / "a.jpg")
    annotations = annotated(tmp_path, "a.jpg")
    annotations.annotations.clear()
    (fault,) = faults(annotations)
    assert (fault.kind, fault.severity) == ("no objects", "warning")


def test_photos_that_no_split_names(tmp_path):
    for name in ("train/a.jpg", "train/more.jpg", "val/b.jpg", "val/sub/c.jpg", "val/sub/rest.png", "other/d.jpg"):
        write_photo(tmp_path / name)
    (tmp_path / "train/x.json").touch()
    splits = {"train": annotated(tmp_path / "train", "a.jpg"), "val": annotated(tmp_path / "val", "b.jpg", "sub/c.jpg")}
    train, val = unnamed_photos(splits)
    assert (train.split, train.files) == ("train", ((str(tmp_path / "train/more.jpg"), ""),))
    assert (val.split, val.files) == ("val", ((str(tmp_path / "val/sub/rest.png"), ""),))
    assert (train.kind, train.severity) == ("not named", "warning")


def test_splits_may_share_a_folder(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_photo(tmp_path / name)
    (problem,) = unnamed_photos({"train": annotated(tmp_path, "a.jpg"), "val": annotated(tmp_path, "b.jpg")})
    assert (problem.split, problem.files) == ("train and val", ((str(tmp_path / "c.jpg"), ""),))
