import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flatten_dense.callbacks import MetricsFile, weights_hash
from flatten_dense.metrics import SegmentationConfusion, scores_as_dict
from flatten_dense.structures import LabelSpace, default_palette

LABELS = LabelSpace(("a", "b", "c"), default_palette(3), reduce_zero_label=True)


def trainer(**facts) -> SimpleNamespace:
    defaults = {"is_global_zero": True, "sanity_checking": False, "global_step": 7, "loggers": []}
    return SimpleNamespace(state=SimpleNamespace(fn="fit"), **{**defaults, **facts})


def scores(prediction, truth):
    confusion = SegmentationConfusion(3)
    confusion.update(torch.tensor(prediction), torch.tensor(truth))
    return confusion.compute()


GOOD = scores([0, 1, 1], [0, 1, 1])


@pytest.fixture
def metrics_file(tmp_path):
    current = SimpleNamespace(scores=GOOD)
    callback = MetricsFile(
        tmp_path / "metrics.json",
        lambda: current.scores,
        lambda scores: scores_as_dict(scores, LABELS.class_names),
        {"split": "validation"},
    )
    return callback, current


def test_metrics_are_fractions_with_null_for_absent_classes(metrics_file):
    callback, _ = metrics_file
    callback.on_validation_end(trainer(), nn.Linear(1, 1))
    written = json.loads(callback.path.read_text())
    assert (written["mIoU"], written["aAcc"]) == (1.0, 1.0)
    assert written["per_class"]["b"] == {
        "IoU": 1.0,
        "Acc": 1.0,
        "precision": 1.0,
        "truth_pixels": 2,
        "predicted_pixels": 2,
    }
    assert written["per_class"]["c"]["IoU"] is None
    assert written["step"] == 7


def test_metrics_name_the_protocol_of_the_scores(metrics_file):
    callback, current = metrics_file
    current.scores = GOOD._replace(protocol="detectron2")
    callback.on_validation_end(trainer(), nn.Linear(1, 1))
    assert json.loads(callback.path.read_text())["protocol"] == "detectron2"


def test_only_one_process_writes(metrics_file):
    callback, _ = metrics_file
    callback.on_validation_end(trainer(is_global_zero=False), nn.Linear(1, 1))
    assert not callback.path.exists()


def test_equal_weights_have_equal_hashes():
    first, second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    assert weights_hash(first) == weights_hash(second)
    second.num_batches_tracked += 1
    assert weights_hash(first) != weights_hash(second)


def test_hash_sees_names_and_types():
    weights = nn.Linear(2, 2)
    assert weights_hash(nn.Sequential(weights)) != weights_hash(weights)
    before = weights_hash(weights)
    assert weights_hash(weights.double()) != before


def test_hash_of_scalars_and_bfloat16():
    module = nn.Linear(1, 1).bfloat16()
    module.register_buffer("scalar", torch.tensor(1.0))
    assert len(weights_hash(module)) == 64
