import numpy as np
import pytest

from flatten_dense.metrics import ERROR_KINDS, CocoDetection, detection_errors

CAT, DOG = 3, 8
IDS = [CAT, DOG]


def scene(truths, found):
    """One image: truths (category, box) or (category, box, "crowd"), detections (category, box, score)."""
    annotations = [
        {"id": number, "image_id": 1, "category_id": kind, "bbox": box, "iscrowd": int(bool(crowd))}
        for number, (kind, box, *crowd) in enumerate(truths)
    ]
    results = [{"image_id": 1, "category_id": kind, "bbox": box, "score": score} for kind, box, score in found]
    categories = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    return {"images": [{"id": 1}], "annotations": annotations, "categories": categories}, results


def errors_of(truths, found, **options):
    return detection_errors(*scene(truths, found), IDS, **options)


def counts(errors):
    return {kind: own.tolist() for kind, own in errors.counts.items() if own.any()}


HERE, THERE = [0, 0, 10, 10], [50, 50, 10, 10]
HALF_OFF = [5, 0, 10, 10]  # IoU 1/3 with HERE


@pytest.mark.parametrize(
    ("truths", "found", "expected"),
    [
        ([(CAT, HERE)], [(CAT, HERE, 0.9)], {"correct": [1, 0]}),
        ([(CAT, HERE)], [(CAT, HALF_OFF, 0.9)], {"localisation": [1, 0]}),
        ([(CAT, HERE)], [(DOG, HERE, 0.9)], {"confusion": [0, 1]}),
        ([(CAT, HERE)], [(DOG, HALF_OFF, 0.9)], {"both": [0, 1], "missed": [1, 0]}),
        ([(CAT, HERE)], [(CAT, HERE, 0.9), (CAT, HERE, 0.8)], {"correct": [1, 0], "duplicate": [1, 0]}),
        ([(CAT, HERE)], [(CAT, THERE, 0.9)], {"background": [1, 0], "missed": [1, 0]}),
        ([(CAT, HERE)], [], {"missed": [1, 0]}),
        ([], [(DOG, HERE, 0.9)], {"background": [0, 1]}),
        ([(CAT, HERE, "crowd")], [(CAT, HERE, 0.9), (CAT, HERE, 0.8)], {}),
        ([(CAT, HERE, "crowd")], [(DOG, HERE, 0.9)], {"background": [0, 1]}),
        ([(CAT, HERE), (DOG, HERE)], [(CAT, HALF_OFF, 0.9)], {"localisation": [1, 0], "missed": [0, 1]}),
        ([(CAT, HERE), (DOG, HERE)], [(CAT, HERE, 0.9), (CAT, HERE, 0.8)], {"correct": [1, 0], "confusion": [1, 0]}),
    ],
)
def test_every_kind_of_mistake_is_told_apart(truths, found, expected):
    assert counts(errors_of(truths, found)) == expected


def test_masks_can_be_matched_instead_of_boxes():
    annotations, results = scene([(CAT, HERE)], [(CAT, HERE, 0.9)])
    annotations["images"][0] |= {"height": 20, "width": 20}
    annotations["annotations"][0]["segmentation"] = [[0, 0, 10, 0, 10, 10, 0, 10]]
    results[0]["segmentation"] = {"size": [20, 20], "counts": [20 * 5, 20 * 10, 20 * 5]}  # IoU 50 / 250
    assert counts(detection_errors(annotations, results, IDS, "segm")) == {"localisation": [1, 0]}


def test_detections_below_the_threshold_are_not_counted_and_find_nothing():
    truths, found = [(CAT, HERE), (CAT, THERE)], [(CAT, HERE, 0.6), (CAT, THERE, 0.4), (DOG, THERE, 0.2)]
    assert counts(errors_of(truths, found, score_threshold=0.5)) == {"correct": [1, 0], "missed": [1, 0]}
    assert errors_of(truths, found, score_threshold=0.5).ap50 == 1


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_ap50_is_that_of_cocoeval(splits, coco_eval, seed, iou_type):
    split = splits(seed)
    metric = CocoDetection(("bbox", "segm"))
    metric.begin(split.annotations, [7, 2, 90])
    metric.update(list(split.detections.values()), list(split.detections))
    errors = detection_errors(split.annotations, metric.results(), [7, 2, 90], iou_type)
    assert errors.ap50 == pytest.approx(coco_eval(split, iou_type).stats[1], abs=1e-12)
    assert all(cost >= 0 for cost in errors.cost.values())


# Two cats and a false alarm above them both: precision 1/2 at recall 1/2, then 2/3 at recall 1: AP 2/3 throughout.
FALSE_ALARM = [(CAT, [80, 80, 10, 10], 0.9), (CAT, HERE, 0.8), (CAT, THERE, 0.7)]


@pytest.mark.parametrize(
    ("found", "kind", "ap50", "fixed"),
    [
        (FALSE_ALARM, "background", 2 / 3, 1),
        ([(CAT, HERE, 0.9), (CAT, HERE, 0.8), (CAT, THERE, 0.7)], "duplicate", (51 + 50 * 2 / 3) / 101, 1),
        ([(CAT, HALF_OFF, 0.9), (CAT, THERE, 0.7)], "localisation", 51 / 101 / 2, 1),
        ([(DOG, HERE, 0.9), (CAT, THERE, 0.7)], "confusion", 51 / 101, 1),
        ([(DOG, HALF_OFF, 0.9), (CAT, HERE, 0.8), (CAT, THERE, 0.7)], "both", 1, 1),
        ([(CAT, HERE, 0.9)], "missed", 51 / 101, 1),
        ([], "missed", 0, 1),
        # Of two that were meant for one truth the better finds it, and the other goes.
        ([(CAT, HALF_OFF, 0.9), (CAT, HALF_OFF, 0.8)], "localisation", 0, 51 / 101),
        # The truth is found already: the mistake goes away.
        ([(CAT, HALF_OFF, 0.9), (CAT, HERE, 0.8)], "localisation", 51 / 101 / 2, 51 / 101),
    ],
)
def test_a_mistake_costs_what_ap50_gains_without_it(found, kind, ap50, fixed):
    errors = errors_of([(CAT, HERE), (CAT, THERE)], found)
    assert tuple(errors.cost) == ERROR_KINDS
    assert errors.ap50 == pytest.approx(ap50)
    assert errors.ap50 + errors.cost[kind] == pytest.approx(fixed)


def test_a_class_that_was_missed_altogether_does_not_count_once_that_is_put_right():
    errors = errors_of([(CAT, HERE), (DOG, THERE)], [(CAT, HERE, 0.9)])
    assert (errors.ap50, errors.cost["missed"]) == (0.5, 0.5)


def test_without_truth_there_is_no_cost():
    errors = errors_of([], [(CAT, HERE, 0.9)])
    assert np.isnan(errors.ap50)
    assert np.isnan(errors.cost["background"])


def test_the_table_of_confusions_has_each_truth_and_each_detection_once():
    errors = errors_of(
        [(CAT, HERE), (CAT, THERE), (DOG, [80, 0, 10, 10]), (DOG, [0, 80, 10, 10], "crowd")],
        [
            (CAT, HERE, 0.9),
            (DOG, HERE, 0.85),  # the cat is found already
            (DOG, THERE, 0.8),  # the cat that is taken for a dog
            (DOG, THERE, 0.7),  # nothing is left to be taken for one
            (CAT, [30, 30, 5, 5], 0.6),
            (DOG, [0, 80, 10, 10], 0.6),  # in a crowd
        ],
    )
    assert errors.confusion.tolist() == [[1, 1, 0], [0, 0, 1], [1, 2, 0]]
    assert errors.class_names == ("cat", "dog")


def test_only_the_named_images_are_looked_at():
    annotations, results = scene([(CAT, HERE)], [(CAT, HERE, 0.9)])
    annotations["images"].append({"id": 2})
    results.append({"image_id": 2, "category_id": DOG, "bbox": HERE, "score": 0.9})
    assert counts(detection_errors(annotations, results, IDS, image_ids=[2])) == {"background": [0, 1]}
