import json
import math
import re

import pytest

from flatten_dense.data.images import DataError
from flatten_dense.metrics import CocoDetection, corners_suspected, read_results, read_truth, write_results

TRUTH = {
    "images": [{"id": 42, "height": 40, "width": 60}, {"id": 7, "height": 40, "width": 60}],
    "annotations": [
        {
            "id": 1,
            "image_id": 42,
            "category_id": 18,
            "bbox": [1, 2, 10, 20],
            "area": 150,
            "iscrowd": 0,
            "segmentation": [[1, 2, 11, 2, 11, 22, 1, 22]],
        }
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 20, "name": "sheep"}],
}
RESULT = {
    "image_id": 42,
    "category_id": 18,
    "bbox": [1, 2, 10.5, 20],
    "score": 0.9,
    "segmentation": {"size": [40, 60], "counts": [400, 1000, 1000]},
}


@pytest.fixture
def file(tmp_path):
    def write(content, name="file.json"):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


def truth_with(part, **change):
    """The truth with another first entry in a part."""
    return {**TRUTH, part: [{**TRUTH[part][0], **change}, *TRUTH[part][1:]]}


def without(entry, *keys):
    return {key: value for key, value in entry.items() if key not in keys}


def refusal(read, *args):
    with pytest.raises(DataError) as caught:
        read(*args)
    return str(caught.value)


def test_what_is_written_is_read_back(split, tmp_path):
    metric = CocoDetection(("bbox", "segm"))
    metric.begin(split.annotations, [7, 2, 90])
    metric.update(list(split.detections.values()), list(split.detections))
    results = metric.results()
    write_results(results, tmp_path / "new" / "results.json")
    for iou_type, region in (("bbox", "bbox"), ("segm", "segmentation")):
        keys = ("image_id", "category_id", "score", region)
        read = read_results(tmp_path / "new" / "results.json", split.annotations, iou_type)
        texts = [json.dumps(row, default=bytes.decode) for row in read]
        assert texts == [json.dumps({key: row[key] for key in keys}, default=bytes.decode) for row in results]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_a_sound_annotation_file_is_taken_as_it_is(file, iou_type):
    assert read_truth(file(TRUTH), iou_type) == TRUTH


def test_a_missing_area_is_that_of_the_box_or_the_mask(file):
    bare = {**TRUTH, "annotations": [without(TRUTH["annotations"][0], "area")]}
    bare["annotations"][0]["bbox"] = [1, 2, 20, 20]
    assert read_truth(file(bare), "bbox")["annotations"][0]["area"] == 400
    assert read_truth(file(bare), "segm")["annotations"][0]["area"] == 200


def test_annotations_of_images_that_are_not_listed_are_left_out(file):
    assert read_truth(file(truth_with("annotations", image_id=3)), "bbox")["annotations"] == []


def test_boxes_alone_need_no_sizes_of_images_and_no_masks(file):
    bare = {
        **TRUTH,
        "images": [without(image, "height", "width") for image in TRUTH["images"]],
        "annotations": [without(TRUTH["annotations"][0], "segmentation")],
    }
    truth = read_truth(file(bare), "bbox")
    assert read_results(file([without(RESULT, "segmentation")]), truth, "bbox")[0]["bbox"] == RESULT["bbox"]


@pytest.mark.parametrize(
    ("content", "iou_type", "expected"),
    [
        ([RESULT], "bbox", "holds a list, as a result file does; name the annotation file first"),
        ("text", "bbox", "holds 'text'; an annotation file holds lists of images, annotations and categories"),
        (without(TRUTH, "annotations"), "bbox", "holds an object of images, categories; .*image_info files"),
        ({**TRUTH, "categories": []}, "bbox", "0 categories; expected at least one"),
        ({**TRUTH, "images": [*TRUTH["images"], TRUTH["images"][0]]}, "bbox", "1 image entries with the id of .*: 42"),
        (truth_with("images", id="0042"), "bbox", r"1 image entries without an integer id: entry 0 \(0042\)"),
        (truth_with("categories", id=None), "bbox", "1 category entries without an integer id"),
        (truth_with("images", height=None), "segm", "1 image.s. without height and width in whole pixels: 42"),
        (truth_with("annotations", category_id=1), "bbox", r"of categories .*: entry 0 \(category_id 1\)"),
        (truth_with("annotations", bbox=[1, 2, 3]), "bbox", r"not four finite numbers .*: entry 0 \(bbox \[1, 2, 3\]"),
        (truth_with("annotations", area=None), "bbox", "whose area is no number"),
        (truth_with("annotations", iscrowd=None), "bbox", "iscrowd neither 0 nor 1"),
        (truth_with("annotations", segmentation=[[1, 2]]), "segm", "with a mask that cannot be used: .*3 or more poin"),
        (truth_with("annotations", segmentation=None), "segm", "with a mask that cannot be used: .*neither polygons"),
    ],
)
def test_annotation_files_that_cannot_be_used_are_refused(file, content, iou_type, expected):
    path = file(content)
    message = refusal(read_truth, path, iou_type)
    assert message.startswith(str(path))
    assert re.search(expected, message, re.DOTALL)


@pytest.mark.parametrize(
    ("content", "iou_type", "expected"),
    [
        (TRUTH, "bbox", "holds an object of images, annotations, categories; a result file .* annotation file first"),
        ({"results": []}, "bbox", "holds an object of results; a result file holds one list"),
        (3, "bbox", "holds 3; a result file holds one list of the detections of all images"),
        ([[1, 2]], "bbox", r"that are no objects with named values: entry 0 \(\[1, 2\]\)"),
        ([{**RESULT, "image_id": 5}], "bbox", r"1 detection.s. of images .*: entry 0 \(image_id 5\).* such as 7, 42"),
        ([{**RESULT, "image_id": "42"}], "bbox", r"of images .*: entry 0 \(image_id '42'\)"),
        ([without(RESULT, "image_id")], "bbox", r"of images .*: entry 0 \(image_id None\)"),
        ([{**RESULT, "category_id": 1}], "bbox", r"\(category_id 1\).*2 categories: 18, 20.*If the results count cla"),
        ([{**RESULT, "category_id": [18]}], "bbox", r"of categories .*: entry 0 \(category_id \[18\]\)"),
        ([{**RESULT, "score": math.nan}], "bbox", r"without a finite number as score: entry 0 \(score nan\)"),
        ([without(RESULT, "score")], "bbox", r"without a finite number as score: entry 0 \(score None\)"),
        ([{**RESULT, "bbox": [1, 2, 3, math.inf]}], "bbox", "is not four finite numbers"),
        ([{**RESULT, "bbox": [5, 5, -1, 9]}], "bbox", r"negative width or height; expected \[x, y, width, height\]"),
        ([without(RESULT, "bbox")], "bbox", "1 detection.s. without a box; --iou-type segm scores masks"),
        ([without(RESULT, "segmentation")], "segm", "1 detection.s. without a mask; --iou-type bbox scores boxes"),
        ([{**RESULT, "segmentation": {"size": [60, 40], "counts": [2400]}}], "segm", r"RLE of \[60, 40\]"),
        ([{**RESULT, "segmentation": {"size": [40, 60], "counts": "PP"}}], "segm", "do not add up|cannot be read"),
    ],
)
def test_result_files_that_cannot_be_scored_are_refused(file, content, iou_type, expected):
    path = file(content)
    message = refusal(read_results, path, TRUTH, iou_type)
    assert message.startswith(str(path))
    assert re.search(expected, message, re.DOTALL)


def test_all_that_is_wrong_is_said_at_once_with_the_first_places(file):
    rows = [RESULT, *({**RESULT, "score": None} for _ in range(7)), {**RESULT, "image_id": 1}]
    message = refusal(read_results, file(rows), TRUTH, "bbox")
    assert "7 detection(s) without a finite number as score: entry 1 (score None), entry 2" in message
    assert "entry 5 (score None), ...\n" in message
    assert "1 detection(s) of images that the annotations do not list: entry 8" in message


def test_no_detection_is_a_result(file):
    assert read_results(file([]), TRUTH, "bbox") == []


@pytest.mark.parametrize("form", [[[1, 2, 11, 2, 11, 22, 1, 22]], {"size": [40, 60], "counts": [42, 200, 2158]}])
def test_masks_come_as_compressed_rle_whatever_they_were(file, form):
    (row,) = read_results(file([{**RESULT, "segmentation": form}]), TRUTH, "segm")
    assert isinstance(row["segmentation"]["counts"], bytes)
    assert "bbox" not in row


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"images": [', "not JSON: Expecting value in line 1, column 13; it may have been cut off"),
        (b"\x1f\x8b\x08\x00\xff", "not JSON, it is no text at all"),
        (b"", "not JSON: Expecting value in line 1, column 1"),
    ],
)
def test_files_that_are_no_json_are_refused(tmp_path, content, expected):
    (tmp_path / "file.json").write_bytes(content)
    assert f"{tmp_path / 'file.json'}: {expected}" in refusal(read_truth, tmp_path / "file.json", "bbox")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert f"{tmp_path / 'none'}: no such file" in refusal(read_truth, tmp_path / "none", "bbox")
    assert f"{tmp_path}: cannot be read (Is a directory)" in refusal(read_truth, tmp_path, "bbox")


@pytest.mark.parametrize(
    ("boxes", "suspected"),
    [
        ([[10, 10, 15, 12], [0, 0, 60, 40]], False),
        ([[30, 20, 55, 38], [40, 10, 58, 35], [2, 3, 9, 9]], True),
        ([[30, 20, 55, 38], [40, 30, 30, 9]], False),  # the second cannot be corners
        ([], False),
    ],
)
def test_corners_in_place_of_width_and_height_are_suspected(boxes, suspected):
    assert corners_suspected([{**RESULT, "bbox": box} for box in boxes], TRUTH) is suspected


def test_without_sizes_nothing_is_suspected():
    truth = {"images": [{"id": 42}]}
    assert not corners_suspected([{**RESULT, "bbox": [30, 20, 55, 38]}], truth)
