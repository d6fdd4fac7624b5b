from pathlib import Path

from flatten_dense.data.detection.annotations import DetectionAnnotations

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 7, "name": 12}]
ANNOTATIONS = DetectionAnnotations(Path("a.json"), Path("photos"), [{"id": 3}], [{"id": 1}], CATEGORIES)


def test_classes_are_the_categories_by_rising_id():
    assert ANNOTATIONS.labels.category_ids == (1, 7, 90)
    assert ANNOTATIONS.labels.class_names == ("person", "12", "toothbrush")


def test_every_class_has_a_colour_of_its_own():
    assert len(set(ANNOTATIONS.labels.palette)) == 3


def test_it_is_the_content_of_a_coco_file():
    assert ANNOTATIONS.to_coco() == {"images": [{"id": 3}], "annotations": [{"id": 1}], "categories": CATEGORIES}
