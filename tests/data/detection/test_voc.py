from pathlib import Path

import pytest
from PIL import Image
from torchvision.datasets import VOCDetection

from flatten_dense.data.detection.voc import VocDataModule, inspect_voc, read_voc, voc_class_names
from flatten_dense.data.images import DataError

DOG = ("dog", (48, 240, 195, 371))
PERSON = ("person", (8, 12, 352, 498))


def write_xml(path: Path, objects=(), size=(353, 500), difficult=()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"] if size else []
    for number, (name, corners) in enumerate(objects):
        tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
        mark = int(number in difficult)
        parts.append(f"<object><name>{name}</name><difficult>{mark}</difficult><bndbox>{box}</bndbox></object>")
    path.write_text(f"<annotation>{''.join(parts)}</annotation>")
    return path


def write_photo(path: Path, size=(353, 500)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two listed images, in the order that is not the sorted one, and one of another split."""
    root = tmp_path / "VOC2007"
    write_xml(root / "Annotations/000001.xml", [DOG, PERSON])
    write_xml(root / "Annotations/000002.xml", [("train", (1, 1, 353, 500))], difficult=[0])
    write_xml(root / "Annotations/000009.xml", [("cat", (1, 1, 2, 2))])
    for name in ("000001", "000002", "000009"):
        write_photo(root / f"JPEGImages/{name}.jpg")
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/test.txt").write_text("000002\n000001\n")
    (root / "ImageSets/Main/train.txt").write_text("000009\n")
    return root


def test_boxes_are_those_of_cocos_own_translation(voc):
    """The first image of VOC2007's test set, as in PASCAL_VOC.zip of cocodataset.org."""
    boxes = [(a["bbox"], a["area"]) for a in read_voc(voc, "test").annotations if a["image_id"] == 1]
    assert boxes == [([47, 239, 148, 132], 19536), ([7, 11, 345, 487], 168015)]


def test_a_box_around_everything_covers_the_image(voc):
    (box,) = [a["bbox"] for a in read_voc(voc, "test").annotations if a["image_id"] == 2]
    assert box == [0, 0, 353, 500]


def test_images_are_sorted_and_numbered_from_1(voc):
    assert read_voc(voc, "test").images == [
        {"id": 1, "file_name": "000001.jpg", "width": 353, "height": 500},
        {"id": 2, "file_name": "000002.jpg", "width": 353, "height": 500},
    ]


def test_names_and_corners_are_those_that_torchvision_reads(voc, tmp_path):
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit/VOC2012").symlink_to(voc)
    (voc / "ImageSets/Main/val.txt").write_text("000001\n000002\n")
    theirs = [
        (o["name"], *(int(o["bndbox"][corner]) for corner in ("xmin", "ymin", "xmax", "ymax")))
        for _, target in VOCDetection(str(tmp_path), "2012", "val")
        for o in target["annotation"]["object"]
    ]
    ours = read_voc(voc, "val")
    names = {category["id"]: category["name"] for category in ours.categories}
    boxes = [(names[a["category_id"]], *a["bbox"]) for a in ours.annotations]
    assert [(name, x + 1, y + 1, x + w, y + h) for name, x, y, w, h in boxes] == theirs


def test_difficult_objects_are_crowds(voc):
    assert [a["iscrowd"] for a in read_voc(voc, "test").annotations] == [0, 0, 1]


def test_classes_are_those_of_all_splits_sorted(voc):
    assert read_voc(voc, "test").categories == [
        {"id": 1, "name": "cat"},
        {"id": 2, "name": "dog"},
        {"id": 3, "name": "person"},
        {"id": 4, "name": "train"},
    ]


def test_a_class_list_in_the_folder_gives_the_order(voc):
    (voc / "classes.txt").write_text("train\nperson\ndog\ncat\nbus\n")
    assert [c["name"] for c in read_voc(voc, "test").categories] == ["train", "person", "dog", "cat", "bus"]
    assert [a["category_id"] for a in read_voc(voc, "test").annotations] == [3, 2, 1]


@pytest.mark.parametrize("layout", ["{kind}", ""])
def test_a_folder_for_each_split_needs_no_list(tmp_path, layout):
    for split, name in (("train", "b"), ("train", "a"), ("valid", "c")):
        write_xml(tmp_path / split / layout.format(kind="Annotations") / f"{name}.xml", [DOG])
        write_photo(tmp_path / split / layout.format(kind="JPEGImages") / f"{name}.png")
    found = read_voc(tmp_path, "train")
    assert [image["file_name"] for image in found.images] == ["a.png", "b.png"]
    assert all((found.image_folder / image["file_name"]).is_file() for image in found.images)


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_size_that_is_not_written_is_the_photos(voc, size):
    write_xml(voc / "Annotations/000001.xml", [DOG], size)
    write_photo(voc / "JPEGImages/000001.jpg", (40, 30))
    image = read_voc(voc, "test").images[0]
    assert (image["width"], image["height"]) == (40, 30)


@pytest.mark.parametrize(("corners", "box"), [((0, 0, 10, 10), [0, 0, 10, 10]), ((-3, 1, 5, 5), [-3, 0, 8, 5])])
def test_counting_from_0_does_not_move_a_box_across_the_border(voc, corners, box):
    write_xml(voc / "Annotations/000009.xml", [("cat", corners)])
    assert read_voc(voc, "train").annotations[0]["bbox"] == box


def test_fractions_are_kept(voc):
    write_xml(voc / "Annotations/000009.xml", [("cat", (45.5, 2, 50.25, 3))])
    assert read_voc(voc, "train").annotations[0]["bbox"] == [44.5, 1, 5.75, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY x "ha">]><annotation><object><name>&x;</name></object></annotation>', "DOCTYPE"),
        ('<!DOCTYPE annotation SYSTEM "file:///etc/hostname"><annotation/>', "DOCTYPE"),
        ("<annotation>\n<object></annotation>", "line 2"),
        ("<labels/>", "not <annotation>"),
        ("", "no well-formed XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "encoding"),
    ],
)
def test_xml_that_is_no_annotation_is_refused(voc, content, reason):
    path = voc / "Annotations/000009.xml"
    path.write_text(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_voc(voc, "train", ["cat"])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "kind", "detail"),
    [
        (lambda root: write_xml(root / "Annotations/000001.xml", [("cow", (1, 1, 2, 2))]), "unknown category", "cow"),
        (lambda root: write_xml(root / "Annotations/000001.xml", [("", (1, 1, 2, 2))]), "unknown category", "object 1"),
        (lambda root: write_xml(root / "Annotations/000001.xml", [("dog", (1, "", 2, 2))]), "no box", "object 1 (dog)"),
        (lambda root: write_xml(root / "Annotations/000001.xml", [("dog", (1, "nan", 2, 2))]), "no box", "object 1"),
        (lambda root: (root / "JPEGImages/000001.jpg").unlink(), "no photo", ""),
        (lambda root: write_photo(root / "JPEGImages/000001.png"), "same name", "000001.jpg, 000001.png"),
        (lambda root: (root / "Annotations/000001.xml").unlink(), "no annotation", "000001.xml"),
        (lambda root: (root / "ImageSets/Main/test.txt").write_text("000002\n000002\n"), "listed twice", "000002"),
    ],
)  # fmt: skip
def test_a_fault_is_named_and_the_rest_is_read(voc, spoil, kind, detail):
    spoil(voc)
    reading = inspect_voc(voc, "test", ["dog", "person", "train"])
    (fault,) = reading.faults
    assert fault.kind == kind
    assert detail in fault.detail
    assert any(image["file_name"] == "000002.jpg" for image in reading.annotations.images)
    with pytest.raises(DataError, match=r"000001|000002"):
        read_voc(voc, "test", ["dog", "person", "train"])


def test_an_unknown_split_says_what_is_expected(voc):
    with pytest.raises(DataError, match=r"no split 'val'; expected ROOT/ImageSets/Main/val\.txt"):
        read_voc(voc, "val")


def test_names_in_a_list_may_have_their_suffix(voc):
    (voc / "ImageSets/Main/test.txt").write_text("000001.jpg\n")
    assert [image["file_name"] for image in read_voc(voc, "test").images] == ["000001.jpg"]


@pytest.mark.parametrize("spoil", ["empty", "gone"])
def test_a_folder_without_names_does_not_say_its_classes(tmp_path, spoil):
    if spoil == "empty":
        write_xml(tmp_path / "Annotations/a.xml")
    with pytest.raises(DataError, match="classes are unknown" if spoil == "empty" else "no such folder"):
        voc_class_names(tmp_path if spoil == "empty" else tmp_path / "nowhere")


def test_the_data_module_reads_the_splits_it_is_told(voc):
    data = VocDataModule(voc, val_split="test", num_workers=0)
    assert data.read_split("train").images[0]["file_name"] == "000009.jpg"
    assert len(data.read_split("val").images) == len(data.read_split("test").images) == 2
    assert data.labels.class_names == ("cat", "dog", "person", "train")
    assert data.labels.category_ids == (1, 2, 3, 4)


def test_the_data_modules_class_list_may_lie_elsewhere(voc, tmp_path):
    (tmp_path / "names.txt").write_text("train\ndog\nperson\ncat\n")
    data = VocDataModule(voc, classes=tmp_path / "names.txt", num_workers=0)
    assert data.labels.class_names == ("train", "dog", "person", "cat")


def test_the_data_module_checks_what_it_reads(voc):
    write_xml(voc / "Annotations/000009.xml", [("cat", (1, 1, 2, 2)), ("cat", (400, 1, 500, 9))])
    (problem,) = [
        p for p in VocDataModule(voc, val_split="test", num_workers=0).check().problems if p.kind == "box outside"
    ]
    assert problem.files == ((str(voc / "JPEGImages/000009.jpg"), "cat [399, 0, 101, 9] in 353x500"),)
