import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_masks

from flatten_dense.metrics import BACKENDS, STATS, CocoDetection, evaluate_coco
from flatten_dense.metrics.coco_evaluation import default_backend
from flatten_dense.structures import Detections

COCO_MINI = Path(__file__).parents[3] / "shared/data/coco_mini/annotations"


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    return request.param


def results_of(split):
    metric = CocoDetection(("bbox", "segm"))
    metric.begin(split.annotations, [category["id"] for category in split.annotations["categories"]])
    metric.update(list(split.detections.values()), list(split.detections))
    return metric.results()


def numbers(scores, iou_type):
    return [scores.stats[iou_type][name] for name in STATS]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_one_kind_of_region_alone_scores_as_cocoeval_does(split, coco_eval, backend, iou_type):
    scores = evaluate_coco(split.annotations, results_of(split), (iou_type,), backend=backend)
    assert list(scores.stats) == [iou_type]
    assert numbers(scores, iou_type) == pytest.approx(coco_eval(split, iou_type).stats, abs=1e-12)
    assert scores.main == scores.stats[iou_type]["AP"]


def test_masks_are_small_or_large_by_their_own_area(split, coco_eval, backend):
    """With the box's area, as COCOeval takes it where results hold both, the numbers by size would be others."""
    results = results_of(split)
    scores = evaluate_coco(split.annotations, results, ("segm",), backend=backend)
    for row in results:
        row["bbox"] = [0, 0, 200, 200]
    assert evaluate_coco(split.annotations, results, ("segm",), backend=backend).stats == scores.stats


def test_no_result_scores_0(split, backend):
    scores = evaluate_coco(split.annotations, [], ("bbox", "segm"), backend=backend)
    assert numbers(scores, "bbox") == numbers(scores, "segm") == [0] * 12
    assert not scores.detections.any()


def test_without_ids_all_classes_of_the_annotations_come_by_rising_id(split):
    scores = evaluate_coco(split.annotations, results_of(split))
    assert scores.category_ids == (2, 7, 90)
    assert scores.class_names == ("kind 2", "kind 7", "kind 90")


def test_a_class_that_the_annotations_do_not_know_changes_nothing(split):
    results = results_of(split)
    more = evaluate_coco(split.annotations, results, category_ids=[55, 90])
    assert more.category_ids == (55, 90, 2, 7)
    assert np.isnan(more.per_class["bbox"].ap[0])
    assert more.stats == evaluate_coco(split.annotations, results).stats


def test_neither_input_is_modified(split, backend):
    results = results_of(split)
    before = copy.deepcopy((split.annotations, results))
    evaluate_coco(split.annotations, results, ("bbox", "segm"), backend=backend)
    assert (split.annotations, results) == before


def test_the_faster_backend_is_used_where_it_is_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "faster_coco_eval")
    assert default_backend() == "faster-coco-eval"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert default_backend() == "pycocotools"


@pytest.mark.skipif(not COCO_MINI.exists(), reason="needs ../shared/data/coco_mini")
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_real_images_score_as_cocoeval_does(splits, coco_eval, backend, iou_type):
    split = jittered(json.loads((COCO_MINI / "instances_val2017.json").read_text()), type(splits(0)))
    ids = [category["id"] for category in split.annotations["categories"]]
    metric = CocoDetection(("bbox", "segm"), backend)
    metric.begin(split.annotations, ids)
    images = list(split.detections)
    for start in range(0, len(images), 3):
        batch = images[start : start + 3]
        metric.update([split.detections[image_id] for image_id in batch], batch)
    expected = coco_eval(split, iou_type).stats
    assert (expected > 0.1).all()
    assert numbers(metric.compute(), iou_type) == pytest.approx(expected, abs=1e-9)


def jittered(annotations, make):
    """Each truth, crowds too, moved a little, sometimes lost or of another class, in every image but each ninth."""
    from pycocotools.coco import COCO

    rng = np.random.default_rng(0)
    index = COCO()
    index.dataset = annotations
    index.createIndex()
    ids = [category["id"] for category in annotations["categories"]]
    detections = {}
    for number, image in enumerate(annotations["images"]):
        true = [a for a in index.imgToAnns[image["id"]] if rng.uniform() < 0.9 and number % 9]
        x, y, width, height = np.array([a["bbox"] for a in true]).reshape(-1, 4).T
        boxes = np.stack([x, y, x + width, y + height], axis=1)
        boxes += rng.normal(0, 0.05, boxes.shape) * np.stack([width, height] * 2, axis=1)
        labels = np.array([ids.index(a["category_id"]) for a in true], dtype=np.int64)
        labels[rng.uniform(size=len(labels)) < 0.1] = 3
        scores = np.sort(rng.integers(1, 100, len(true)) / 100)[::-1].copy()
        masks = [shifted(index.annToMask(a), rng.integers(-3, 4, 2)) for a in true]
        detections[image["id"]] = Detections(
            torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores).float(), torch.tensor(labels), masks
        )
    return make(annotations, detections)


def shifted(mask, by):
    from pycocotools import mask as rle_masks

    return rle_masks.encode(np.asfortranarray(np.roll(mask, by, (0, 1))))


def test_a_mask_within_the_box_of_an_object_without_mask_is_neither_right_nor_wrong():
    square = [[10, 10, 40, 10, 40, 40, 10, 40]]
    truth = {"image_id": 1, "category_id": 1, "iscrowd": 0, "area": 900.0}
    known = {**truth, "id": 1, "bbox": [10, 10, 30, 30], "segmentation": square}
    unknown = {**truth, "id": 2, "bbox": [50, 50, 40, 40]}
    annotations = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [known, unknown],
    }

    def found(box, score):
        mask = np.zeros((100, 100), dtype=np.uint8, order="F")
        mask[box[1] : box[3], box[0] : box[2]] = 1
        return {"image_id": 1, "category_id": 1, "score": score, "bbox": box, "segmentation": rle_masks.encode(mask)}

    results = [found((55, 55, 80, 80), 0.9), found((10, 10, 40, 40), 0.5)]
    assert evaluate_coco(annotations, results, ("segm",)).stats["segm"]["AP"] == pytest.approx(1.0)
