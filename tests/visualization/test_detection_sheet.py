import numpy as np
import pytest
import torch

from flatten_dense.structures import DetectionLabels, Detections, vivid_palette
from flatten_dense.visualization import DetectionSample, describe_detections, detection_sheet

LABELS = DetectionLabels(tuple("abcd"), vivid_palette(4), (1, 2, 3, 4))
RED = (214, 24, 31)


def sample(missed=(False,), wrong=(False,), scores=(0.9,), label=0, crowd=(0,), photo=(60, 80), size=(600, 800)):
    boxes = torch.tensor([[100.0, 100.0, 300.0, 300.0]])
    truth = {
        "boxes": boxes.expand(len(crowd), 4),
        "labels": torch.full((len(crowd),), label),
        "iscrowd": torch.tensor(crowd),
    }
    found = Detections(boxes.expand(len(scores), 4), torch.tensor(scores), torch.full((len(scores),), label))
    return DetectionSample(torch.full((3, *photo), 128, dtype=torch.uint8), size, truth, found, missed, wrong, "a.jpg")


def count(sheet, colour, columns=slice(None)) -> int:
    return int((np.asarray(sheet)[:, columns] == colour).all(-1).sum())


def test_truth_is_on_the_left_and_prediction_on_the_right():
    right_half = sample(scores=())
    sheet = detection_sheet([right_half._replace(wrong=())], LABELS)
    colour = LABELS.palette[0]
    left, right = slice(0, 16 + 720), slice(16 + 720, 16 + 720 + 8 + 720)
    assert count(sheet, colour, left) > 500
    assert count(sheet, colour, right) == 0


@pytest.mark.parametrize(("missed", "wrong"), [((True,), (False,)), ((False,), (True,))])
def test_what_is_missed_is_red_on_the_left_and_what_is_wrong_on_the_right(missed, wrong):
    sheet = detection_sheet([sample(missed, wrong)], LABELS)
    left, right = (count(sheet, RED, slice(16 + half * 728, 736 + half * 728)) for half in (0, 1))
    assert (left > 500, right > 500) == (missed[0], wrong[0])


def test_legend_names_the_classes_that_are_shown():
    sheet = detection_sheet([sample(label=2)], LABELS)
    legend = slice(16 + 2 * 728, None)
    assert count(sheet, LABELS.palette[2], legend) > 100
    assert count(sheet, LABELS.palette[1], legend) == 0


def test_the_photo_is_brought_to_the_size_of_the_picture():
    large, small = (detection_sheet([sample(photo=photo)], LABELS) for photo in ((600, 800), (60, 80)))
    assert large.tobytes() == small.tobytes()


def test_a_note_counts_objects_without_crowds_and_detections_that_are_drawn():
    objects = sample(missed=(True, False, True), crowd=(0, 0, 1), scores=(0.9, 0.5, 0.1), wrong=(False, True, True))
    assert describe_detections(objects) == "1 of 2 found, 1 wrong"


def test_a_note_tells_why_nothing_is_drawn():
    unsure = sample(missed=(True,), scores=(0.21, 0.1), wrong=(False, True))
    assert describe_detections(unsure) == "0 of 1 found, no score reaches 0.30, the best is 0.21"


def test_an_image_without_objects_is_no_fault():
    empty = sample(missed=(), crowd=(), scores=(), wrong=())
    assert describe_detections(empty) == "no objects, 0 wrong"
    detection_sheet([empty], LABELS)
