from pathlib import Path

import pytest

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.detection_report import DetectionReport, count_objects


def annotation(image_id, category_id, area=2000, **more):
    return {"image_id": image_id, "category_id": category_id, "area": area, "iscrowd": 0, **more}


@pytest.fixture
def counts():
    images = [{"id": number} for number in (10, 11, 12)]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    annotations = [
        annotation(10, 7, area=32**2 - 1),
        annotation(10, 7, area=32**2),
        annotation(11, 3, area=96**2, segmentation=[[0, 0, 1, 1, 2, 2]]),
        annotation(11, 7, iscrowd=1),
    ]
    return count_objects(DetectionAnnotations(Path(), Path(), images, annotations, categories), ["cat", "dog", "cow"])


def test_objects_and_images_of_each_class_go_by_name(counts):
    assert counts.class_objects == [1, 2, 0]
    assert counts.class_images == [1, 1, 0]


def test_crowds_are_no_objects(counts):
    assert (counts.objects, counts.crowds) == (3, 1)


def test_sizes_have_cocos_bounds(counts):
    assert counts.sizes == (1, 1, 1)


def test_images_and_masks(counts):
    assert (counts.images, counts.empty, counts.masks) == (3, 1, 1)


def test_the_tables_have_a_row_per_class_and_per_split(counts):
    report = DetectionReport("root", ("cat", "dog", "cow"), {"train": counts, "val": counts})
    classes, splits = report.tables()
    assert classes.columns == ("class", "train objects", "photos", "val objects", "photos")
    assert classes.rows == [("cat", "1", "1", "1", "1"), ("dog", "2", "1", "2", "1"), ("cow", "0", "0", "0", "0")]
    assert classes.totals == [("all", "3", "3", "3", "3")]
    shares = ("1 (33.3%)", "1 (25.0%)", "1 (25.0%)", "1 (25.0%)", "1 (25.0%)", "1 (25.0%)")
    assert splits.rows == [("train", "3", *shares), ("val", "3", *shares)]
    assert report.amount() == "6 photos with 8 objects"


def test_json_goes_by_names(counts):
    split = DetectionReport("root", ("cat", "dog", "cow"), {"train": counts}).to_dict()["splits"]["train"]
    assert split["classes"]["dog"] == {"objects": 2, "images": 1}
    assert split["sizes"] == {"small": 1, "medium": 1, "large": 1}
    assert (split["images"], split["images_without_objects"], split["crowds"]) == (3, 1, 1)
