from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from flatten_dense.callbacks import DetectionPlotter
from flatten_dense.structures import DetectionLabels, Detections, InputFormat, vivid_palette

LABELS = DetectionLabels(("a", "b"), vivid_palette(2), (5, 9))
LEFT, RIGHT, FAR = [10.0, 10, 50, 50], [60.0, 10, 100, 50], [200.0, 100, 250, 150]


def detections(*found) -> Detections:
    """From (box, class, score)."""
    boxes, labels, scores = zip(*found, strict=True) if found else ((), (), ())
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels).long())


def target(*objects) -> dict:
    """From (box, class, is a crowd)."""
    boxes, labels, crowds = zip(*objects, strict=True) if objects else ((), (), ())
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels).long(),
        "iscrowd": torch.tensor(crowds).long(),
    }


def batch(truth, size=(200, 300), name="folder/a.jpg") -> dict:
    return {"image": [torch.zeros(3, 20, 30)], "size": [size], "image_id": [7], "path": [name], "target": [truth]}


def sampled(tmp_path, truth, found, **more):
    return DetectionPlotter(tmp_path, LABELS, InputFormat()).sample({"detections": [found]}, batch(truth, **more))


def test_objects_and_boxes_without_a_partner_of_their_class_are_marked(tmp_path):
    truth = target((LEFT, 0, 0), (RIGHT, 1, 0), (FAR, 0, 0))
    sample = sampled(tmp_path, truth, detections((LEFT, 0, 0.9), (RIGHT, 0, 0.8), (FAR, 0, 0.7), (FAR, 0, 0.6)))
    assert sample.missed == [False, True, False]
    assert sample.wrong == [False, True, False, True]


def test_an_object_that_only_a_guess_found_is_missed(tmp_path):
    sample = sampled(tmp_path, target((LEFT, 0, 0)), detections((LEFT, 0, 0.1)))
    assert sample.missed == [True]


def test_crowds_are_never_missed_and_what_lies_in_one_is_not_wrong(tmp_path):
    truth = target(([0.0, 0, 120, 60], 0, 1), (FAR, 0, 0))
    sample = sampled(tmp_path, truth, detections((FAR, 0, 0.9), (LEFT, 0, 0.8), (RIGHT, 1, 0.7)))
    assert sample.missed == [False, False]
    assert sample.wrong == [False, False, True]


def test_a_copy_of_a_large_photo_is_small_and_keeps_its_true_size(tmp_path):
    sample = sampled(tmp_path, target(), detections(), size=(3000, 4000))
    assert (tuple(sample.photo.shape), sample.image_size) == ((3, 768, 1024), (3000, 4000))


def test_no_more_are_drawn_than_count(tmp_path):
    many = detections(*((LEFT, 0, 1 - index / 1000) for index in range(150)))
    sample = sampled(tmp_path, target(), many)
    assert len(sample.wrong) == len(sample.detections.boxes) == 100


@pytest.mark.parametrize(("hook", "name"), [("validation", "validation_step_000007.png"), ("test", "test.png")])
def test_a_sheet_is_written_after_an_evaluation(tmp_path, hook, name):
    plotter = DetectionPlotter(tmp_path / "pictures", LABELS, InputFormat())
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn="fit"),
        is_global_zero=True,
        sanity_checking=False,
        global_step=7,
        loggers=[],
        num_val_batches=[1],
        num_test_batches=[1],
    )
    outputs = {"detections": [detections((LEFT, 0, 0.9))]}
    getattr(plotter, f"on_{hook}_batch_end")(trainer, nn.Linear(1, 1), outputs, batch(target((LEFT, 0, 0))), 0)
    getattr(plotter, f"on_{hook}_end")(trainer, nn.Linear(1, 1))
    sheet = np.asarray(Image.open(tmp_path / "pictures" / name))
    assert (sheet == LABELS.palette[0]).all(-1).sum() > 500
