import csv
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from flatten_dense.callbacks import EvaluationReport
from flatten_dense.metrics import SegmentationConfusion
from flatten_dense.structures import LabelSpace, default_palette

LABELS = LabelSpace(("a", "b, with a comma", "c"), default_palette(3))


@pytest.fixture
def report(tmp_path):
    confusion = SegmentationConfusion(3)
    confusion.update(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 255]))
    return EvaluationReport(tmp_path / "run", confusion.compute, LABELS)


def test_table_has_the_scores_and_pixels_of_each_class(report):
    report.on_test_end(SimpleNamespace(is_global_zero=True), nn.Linear(1, 1))
    with (report.run / "per_class.csv").open(newline="") as file:
        first, second, third = csv.DictReader(file)
    assert float(first["IoU"]) == float(first["Acc"]) == pytest.approx(2 / 3)
    assert (first["precision"], first["truth_pixels"], first["predicted_pixels"]) == ("1.0", "3", "2")
    assert (second["class"], second["IoU"], second["precision"]) == ("b, with a comma", "0.5", "0.5")
    assert (third["IoU"], third["precision"], third["truth_pixels"]) == ("", "", "0")


def test_confusion_matrix_is_drawn(report):
    report.on_test_end(SimpleNamespace(is_global_zero=True), nn.Linear(1, 1))
    assert Image.open(report.run / "pictures/confusion.png").width > 300


def test_only_one_process_writes(report):
    report.on_test_end(SimpleNamespace(is_global_zero=False), nn.Linear(1, 1))
    assert not report.run.exists()
