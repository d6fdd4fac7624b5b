import copy
import json
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from flatten_dense.data.detection.coco_json import inspect_coco, read_coco
from flatten_dense.data.images import DataError

SHARED = Path(__file__).parents[4] / "shared/data"
TRIANGLE = [[1.0, 1.0, 9.0, 1.0, 1.0, 9.0]]
CONTENT = {
    "info": {},
    "images": [
        {"id": 700, "file_name": "b.jpg", "height": 12, "width": 16},
        {"id": 0, "file_name": "a.jpg", "height": 12, "width": 16},
        {"id": 31, "file_name": "empty.jpg", "height": 12, "width": 16},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 0, "name": "person", "supercategory": "being"}],
    "annotations": [
        {"id": 5, "image_id": 0, "category_id": 90, "bbox": [1, 1, 8, 8], "area": 32, "iscrowd": 0,
         "segmentation": TRIANGLE},
        {"id": 3, "image_id": 700, "category_id": 0, "bbox": [0, 0, 2, 3]},
    ],
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(change=lambda content: None):
        content = copy.deepcopy(CONTENT)
        change(content)
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return path, tmp_path

    return write


def changed(section, index, **values):
    def change(content):
        content[section][index].update(values)

    return change


def test_ids_stay_the_users(write):
    annotations = read_coco(*write())
    assert [image["id"] for image in annotations.images] == [700, 0, 31]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in annotations.annotations] == [(5, 0, 90), (3, 700, 0)]


def test_classes_are_the_categories_by_rising_id(write):
    labels = read_coco(*write()).labels
    assert labels.class_names == ("person", "toothbrush")
    assert labels.category_ids == (0, 90)


def test_what_a_file_need_not_say_is_filled_in(write):
    _, bare = read_coco(*write()).annotations
    assert bare == {"id": 3, "image_id": 700, "category_id": 0, "bbox": [0, 0, 2, 3], "iscrowd": 0, "area": 6}


def test_a_missing_area_is_that_of_the_mask(write):
    def change(content):
        del content["annotations"][0]["area"]

    filled = read_coco(*write(change)).annotations[0]["area"]
    assert filled == coco_mask.area(coco_mask.frPyObjects(TRIANGLE, 12, 16))[0]


def test_missing_annotation_ids_are_new_ones(write):
    def change(content):
        del content["annotations"][1]["id"]

    assert [a["id"] for a in read_coco(*write(change)).annotations] == [5, 6]


def test_annotation_id_0_would_count_as_unmatched(write):
    annotations = read_coco(*write(changed("annotations", 1, id=0))).annotations
    assert [a["id"] for a in annotations] == [5, 6]


def test_the_file_is_not_changed(write):
    path, folder = write(changed("annotations", 1, id=0))
    before = path.read_bytes()
    read_coco(path, folder)
    assert path.read_bytes() == before


def test_crowds_keep_their_run_lengths(write):
    crowd = {"size": [12, 16], "counts": [12, 24, 156]}
    annotation = read_coco(*write(changed("annotations", 0, iscrowd=1, segmentation=crowd))).annotations[0]
    assert annotation["iscrowd"] == 1
    assert coco_mask.area({**annotation["segmentation"]}) == 24


@pytest.mark.parametrize("empty", [[], None, {}])
def test_an_empty_mask_is_none(write, empty):
    assert "segmentation" not in read_coco(*write(changed("annotations", 0, segmentation=empty))).annotations[0]


def test_polygons_under_three_points_are_left_out_with_a_warning(write):
    path, folder = write(changed("annotations", 0, segmentation=[*TRIANGLE, [1, 1, 4, 4]]))
    (fault,) = inspect_coco(path, folder).faults
    assert (fault.kind, fault.detail, fault.severity) == ("short polygon", "annotation 5", "warning")
    assert read_coco(path, folder).annotations[0]["segmentation"] == TRIANGLE


def test_a_box_without_extent_stays(write):
    assert len(read_coco(*write(changed("annotations", 0, bbox=[1, 1, 0, 4]))).annotations) == 2


def test_whole_numbers_may_be_written_as_floats(write):
    annotations = read_coco(*write(changed("images", 0, id=700.0, height=12.0)))
    assert json.dumps(annotations.images[0]["id"]) == "700"
    assert json.dumps(annotations.images[0]["height"]) == "12"


def test_pycocotools_reads_the_result(write):
    coco = COCO()
    coco.dataset = read_coco(*write()).to_coco()
    coco.createIndex()
    assert coco.annToMask(coco.anns[5]).sum() == coco_mask.area(coco_mask.frPyObjects(TRIANGLE, 12, 16))[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("annotations", 0, image_id=4), "whose image_id is no image's id (annotation 5: image_id 4)"),
        (
            changed("annotations", 0, category_id="90"),
            "category_id is no category's id (annotation 5: category_id '90'",
        ),
        (changed("annotations", 0, bbox=[1, 1, -2, 4]), "the size 0 or more (annotation 5: [1, 1, -2, 4])"),
        (changed("annotations", 0, bbox=[1, float("nan"), 2, 4]), "finite numbers, the size 0 or more (annotation 5"),
        (changed("annotations", 0, bbox=None), "the size 0 or more (annotation 5: null)"),
        (changed("annotations", 0, bbox=[1, 2, 3]), "bbox is not [x, y, width, height]"),
        (changed("annotations", 0, iscrowd="no"), "iscrowd is neither 0 nor 1 (annotation 5: 'no')"),
        (changed("annotations", 0, segmentation={"size": [12, 16], "counts": [1]}), "annotation 5: run lengths that"),
        (changed("annotations", 0, id=3), "annotation(s) of one id (annotation 3)"),
        (changed("annotations", 0, id="five"), "whose id is no whole number (annotation 'five')"),
        (changed("images", 0, id="700"), 'without a whole number as id and a file_name ({"id": "700"'),
        (changed("images", 0, id=31), "image(s) whose id another one has (empty.jpg: id 31)"),
        (changed("images", 0, file_name=None), "without a whole number as id and a file_name"),
        (changed("images", 0, width=0), "without a height and width in pixels (b.jpg: id 700)"),
        (changed("categories", 0, name=None), "categories without a whole number as id and a name"),
        (changed("categories", 0, id=0), "categories whose id or name another one has"),
        (changed("categories", 0, name="person"), "categories whose id or name another one has"),
        (lambda content: content["annotations"].append(7), "no JSON object (annotation number 2)"),
        (lambda content: content["annotations"][1].update(id=None, bbox=0), "(annotation number 1: 0)"),
        (lambda content: content.update(categories=[], annotations=[]), "file without categories"),
    ],
)
def test_faults_are_told_with_their_place(write, change, message):
    path, folder = write(change)
    with pytest.raises(DataError) as error:
        read_coco(path, folder)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_an_image_at_fault_does_not_make_its_annotations_so(write):
    assert len(inspect_coco(*write(changed("images", 0, height=None))).faults) == 1


def test_a_check_reads_on_behind_a_fault(write):
    def change(content):
        content["annotations"].insert(0, {"id": 1, "image_id": 0, "category_id": 5, "bbox": [0, 0, 1, 1]})
        content["annotations"].append({"id": 2, "image_id": 5, "category_id": 0, "bbox": [0, 0, 1, 1]})

    reading = inspect_coco(*write(change))
    assert [fault.kind for fault in reading.faults] == ["unknown category", "unknown image"]
    assert [a["id"] for a in reading.annotations.annotations] == [5, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "not valid JSON"),
        (b"\xff\xd8\xff", "not valid JSON"),
        ("[]", "holds a list, expected an object with images, annotations, categories"),
        (
            '{"images": [], "categories": {}}',
            "annotations and categories must be a list in a COCO json file; it has ima",
        ),
        ('{"images": [], "categories": []}', "annotations must be a list.*`predict` takes the images"),
    ],
)
def test_files_that_are_no_coco_json(tmp_path, text, message):
    path = tmp_path / "instances.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        read_coco(path, tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.json: no such file; expected the annotations"):
        read_coco(tmp_path / "nowhere.json", tmp_path)


def test_a_missing_image_folder(write):
    path, folder = write()
    with pytest.raises(DataError, match="train2017: no such folder; it should hold the images"):
        read_coco(path, folder / "train2017")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_real_files_are_as_pycocotools_reads_them(capsys):
    path = SHARED / "coco_mini/annotations/instances_val2017.json"
    theirs = COCO(str(path))
    ours = read_coco(path, SHARED / "coco_mini/val2017")
    assert {image["id"] for image in ours.images} == set(theirs.imgs)
    for annotation in ours.annotations:
        expected = theirs.annToRLE(theirs.anns[annotation["id"]])
        mine = COCO.annToRLE(theirs, annotation)
        assert mine["counts"] in (expected["counts"], expected["counts"].decode())
