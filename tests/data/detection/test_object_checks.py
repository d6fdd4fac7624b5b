from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from flatten_dense.data.detection.annotations import DetectionAnnotations
from flatten_dense.data.detection.faults import SplitReading
from flatten_dense.data.detection.object_checks import box_format_problems, crowd_problems, object_faults


def reading(*boxes, own_ids=True, **more) -> SplitReading:
    """Objects in one photo of 40x30."""
    annotations = [
        {"id": number, "image_id": 5, "category_id": 2, "bbox": list(b), "area": b[2] * b[3], "iscrowd": 0, **more}
        for number, b in enumerate(boxes, start=17)
    ]
    image = {"id": 5, "file_name": "a.jpg", "width": 40, "height": 30}
    categories = [{"id": 2, "name": "dog"}]
    return SplitReading(DetectionAnnotations(Path("x"), Path("train"), [image], annotations, categories), [], own_ids)


def kinds(split_reading: SplitReading, split="val") -> list[tuple[str, str]]:
    return [(fault.kind, fault.severity) for fault in object_faults(split, split_reading)]


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (-0.9, -1, 41.9, 32), (39, 29, 1, 1)])
def test_a_box_inside_is_sound_up_to_a_pixel(box):
    assert kinds(reading(box)) == []


@pytest.mark.parametrize("box", [(1, 1, 0, 5), (1, 1, 5, 0), (50, 50, 0, 0), (5, 5, -2, 4)])
def test_boxes_without_area(box):
    assert kinds(reading(box)) == [("degenerate box", "error")]


@pytest.mark.parametrize("box", [(40, 0, 5, 5), (0, 30, 5, 5), (-5, 0, 5, 5), (0, -9, 5, 5)])
def test_boxes_outside(box):
    assert kinds(reading(box)) == [("box outside", "error")]


def test_what_training_leaves_out_is_worth_a_warning_there():
    assert kinds(reading((40, 0, 5, 5), (1, 1, 0, 5)), "train") == [
        ("box outside", "warning"),
        ("degenerate box", "warning"),
    ]


@pytest.mark.parametrize("box", [(-1.1, 0, 5, 5), (0, -2, 5, 5), (36, 0, 5.5, 5), (0, 26, 5, 5.5)])
def test_boxes_that_reach_beyond_the_border(box):
    assert kinds(reading(box)) == [("box beyond", "warning")]


def test_the_place_is_the_photo_the_id_and_the_box():
    (fault,) = object_faults("val", reading((45, 0, 5.25, 5)))
    assert fault.path == "train/a.jpg"
    assert fault.detail == "annotation 17, dog [45, 0, 5.2, 5] in 40x30"


def test_ids_that_no_file_holds_are_not_named():
    (fault,) = object_faults("val", reading((45, 0, 5, 5), own_ids=False))
    assert fault.detail == "dog [45, 0, 5, 5] in 40x30"


@pytest.mark.parametrize(("area", "found"), [(100, 0), (149, 0), (151, 1), (1.1, 0), (0.9, 1), (0, 1)])
def test_areas_far_from_the_boxs(area, found):
    assert kinds(reading((0, 0, 10, 10), area=area)) == [("area", "warning")] * found


def rle(box):
    left, top, width, height = box
    mask = np.zeros((30, 40), np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    return coco_mask.encode(mask)


@pytest.mark.parametrize("kind", ["polygon", "rle"])
@pytest.mark.parametrize(
    ("box", "found"), [((4, 4, 10, 10), 0), ((4, 4, 12, 12), 0), ((4, 4, 20, 20), 1), ((20, 4, 10, 10), 1)]
)
def test_boxes_far_from_their_masks(kind, box, found):
    segmentation = rle((4, 4, 10, 10)) if kind == "rle" else [[4, 4, 14, 4, 9, 9], [14, 14, 4, 14, 9, 9]]
    assert kinds(reading(box, segmentation=segmentation)) == [("box and mask", "warning")] * found


def test_an_object_that_is_there_twice():
    assert kinds(reading((0, 0, 5, 5), (0, 0, 5, 5), (0, 0, 5, 5), (0, 0, 5, 6))) == [("same object", "warning")]


def format_problems(*boxes):
    return [problem.message for problem in box_format_problems("train", reading(*boxes).annotations)]


def test_boxes_given_by_two_corners_are_recognised():
    (message,) = format_problems((1, 1, 9, 9), (20, 15, 38, 28), (5, 5, 6, 6))
    assert message.startswith(
        "33% of the 3 boxes reach beyond their photos, but all fit in if they are read as [left, top"
    )


def test_boxes_given_as_shares_are_recognised():
    (message,) = format_problems((0.1, 0.2, 0.5, 1), (0, 0, 1, 1))
    assert "shares of the sides" in message


@pytest.mark.parametrize("boxes", [(), ((1, 1, 9, 9), (20, 15, 30, 28), (30, 5, 6, 6)), ((1, 1, 9, 9),)])
def test_other_boxes_are_as_they_should_be(boxes):
    assert format_problems(*boxes) == []


@pytest.mark.parametrize(("crowds", "found"), [(1, 0), (2, 1)])
def test_many_crowds(crowds, found):
    annotations = reading(*[(number, 0, 5, 5) for number in range(5)]).annotations
    for annotation in annotations.annotations[:crowds]:
        annotation["iscrowd"] = 1
    assert [p.kind for p in crowd_problems("train", annotations)] == ["crowds"] * found
