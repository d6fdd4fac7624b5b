import numpy as np
import pytest

from flatten_dense.metrics import CocoDetection
from flatten_dense.metrics.detection_matching import match_detections

IDS = [7, 2, 90]


def results_of(split):
    metric = CocoDetection(("bbox", "segm"))
    metric.begin(split.annotations, IDS)
    metric.update(list(split.detections.values()), list(split.detections))
    return metric.results()


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_hits_and_ignored_detections_are_those_of_cocoeval(splits, coco_eval, seed, iou_type):
    split = splits(seed)
    evaluation = coco_eval(split, iou_type)
    ours = match_detections(split.annotations, results_of(split), IDS, iou_type)
    assert ours.ignored.any(), "the example has no crowd"
    for index, category_id in enumerate(IDS):
        theirs = [
            entry
            for entry in evaluation.evalImgs
            if entry and entry["category_id"] == category_id and entry["aRng"] == evaluation.params.areaRng[0]
        ]
        own = ours.classes == index
        ignored = np.concatenate([entry["dtIgnore"][0] for entry in theirs])
        hits = np.concatenate([entry["dtMatches"][0] > 0 for entry in theirs]) & ~ignored
        assert np.array_equal(ours.truth[own] >= 0, hits)
        assert np.array_equal(ours.ignored[own], ignored)
        assert np.array_equal(ours.scores[own], np.concatenate([entry["dtScores"] for entry in theirs]))


def test_no_truth_is_found_twice(split):
    truth = match_detections(split.annotations, results_of(split), IDS).truth
    found = truth[truth >= 0]
    assert len(found) == len(set(found.tolist())) > 0


def test_the_best_truths_of_the_own_and_of_another_class_are_known():
    annotations = {
        "images": [{"id": 1}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 10, 10]},
            {"id": 2, "image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 8]},
            {"id": 3, "image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 20]},
        ],
    }
    row = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 16], "score": 0.5}
    matches = match_detections(annotations, [row], IDS)
    assert (matches.own_iou[0], matches.own_truth[0]) == (pytest.approx(16 / 20), 2)
    assert (matches.other_iou[0], matches.other_truth[0]) == (pytest.approx(10 / 16), 0)
    assert matches.truth.tolist() == [2]
    assert matches.truth_classes.tolist() == [1, 0, 0]


def test_of_a_class_100_detections_of_an_image_take_part():
    annotations = {"images": [{"id": 1}, {"id": 2}], "annotations": []}
    rows = [
        {"image_id": 1, "category_id": 7 if number < 120 else 2, "bbox": [0, 0, 1, 1], "score": number / 1000}
        for number in range(150)
    ]
    matches = match_detections(annotations, rows, IDS)
    assert np.bincount(matches.classes).tolist() == [100, 30]
    assert matches.scores.tolist() == [number / 1000 for number in range(149, 19, -1)]


def test_only_the_named_images_are_looked_at(split):
    some = sorted(split.detections)[:4]
    matches = match_detections(split.annotations, results_of(split), IDS, image_ids=some)
    assert len(matches.scores) == sum(len(split.detections[image_id].boxes) for image_id in some)


def test_nothing_at_all_gives_no_match():
    matches = match_detections({"images": [], "annotations": []}, [], IDS)
    assert [len(column) for column in matches] == [0] * 9
