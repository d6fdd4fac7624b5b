import csv
import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from flatten_dense.callbacks import DetectionReport
from flatten_dense.metrics import CocoDetection
from flatten_dense.structures import DetectionLabels, Detections, vivid_palette

LABELS = DetectionLabels(("cat", "dog"), vivid_palette(2), (17, 4))
TRUTH = {
    "images": [{"id": 90, "file_name": "a.jpg", "height": 100, "width": 100}],
    "annotations": [
        {"id": 1, "image_id": 90, "category_id": 4, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
    ],
    "categories": [{"id": 4, "name": "dog"}, {"id": 17, "name": "cat"}],
}


@pytest.fixture
def report(tmp_path):
    coco = CocoDetection(("bbox",))
    coco.begin(TRUTH, LABELS.category_ids)
    boxes = torch.tensor([[10.0, 10, 50, 50], [60, 60, 90, 90]])
    coco.update([Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 0]))], [90])
    return DetectionReport(tmp_path / "run", coco.compute, coco, LABELS)


def test_the_table_has_the_scores_of_each_class(report):
    report.on_test_end(SimpleNamespace(is_global_zero=True), nn.Linear(1, 1))
    with (report.run / "per_class.csv").open(newline="") as file:
        cat, dog = csv.DictReader(file)
    assert (cat["class"], cat["bbox_AP"], cat["detections"]) == ("cat", "", "1")
    assert (dog["class"], float(dog["bbox_AP"]), dog["truths"]) == ("dog", pytest.approx(1.0), "1")


def test_what_was_found_is_a_result_file_with_the_data_sets_own_numbers(report):
    report.on_test_end(SimpleNamespace(is_global_zero=True), nn.Linear(1, 1))
    rows = json.loads((report.run / "detections.json").read_text())
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in rows] == [
        (90, 4, [10, 10, 40, 40]),
        (90, 17, [60, 60, 30, 30]),
    ]


def test_curves_mistakes_and_confusions_are_drawn(report):
    report.on_test_end(SimpleNamespace(is_global_zero=True), nn.Linear(1, 1))
    for name in ("precision_recall", "errors", "confusion"):
        assert Image.open(report.run / f"pictures/{name}.png").width > 300


def test_only_one_process_writes(report):
    report.on_test_end(SimpleNamespace(is_global_zero=False), nn.Linear(1, 1))
    assert not report.run.exists()
