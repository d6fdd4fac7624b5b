from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import distributed, nn

from flatten_dense.callbacks import WorstImages
from flatten_dense.metrics import score_confusion
from flatten_dense.structures import InputFormat, LabelSpace, default_palette

LABELS = LabelSpace(("a", "b", "c"), default_palette(3))
RED = (214, 24, 31)
MODULE = nn.Linear(1, 1)


def trainer(**facts) -> SimpleNamespace:
    return SimpleNamespace(**{"is_global_zero": True, "world_size": 1, **facts})


def scores():
    return score_confusion(torch.zeros(3, 4, dtype=torch.int64))


def batch(wrong_columns, size=(8, 10)):
    """Images whose first columns are taken for class 1, named after how many."""
    truth = torch.zeros(size, dtype=torch.int64)
    predictions = [truth.clone() for _ in wrong_columns]
    for prediction, columns in zip(predictions, wrong_columns, strict=True):
        prediction[:, :columns] = 1
    names = [f"folder/{columns:03d}.jpg" for columns in wrong_columns]
    images = [torch.zeros(3, *size)] * len(predictions)
    return {"masks": predictions}, {"image": images, "mask": [truth] * len(predictions), "path": names}


def evaluated(path, *wrong_columns, num_images=3):
    worst = WorstImages(path / "pictures/worst.png", scores, LABELS, InputFormat(), num_images)
    worst.on_test_start(trainer(), MODULE)
    for index, columns in enumerate(wrong_columns):
        worst.on_test_batch_end(trainer(), MODULE, *batch(columns), index)
    return worst


def test_the_worst_are_kept_worst_first_whatever_the_batches(tmp_path):
    for batches in ([[3, 0, 5], [1, 9, 2]], [[9], [5], [3], [2], [1], [0]], [[0, 1, 2, 3, 5, 9]]):
        worst = evaluated(tmp_path, *batches)
        assert [image.path for image in worst._worst] == ["folder/009.jpg", "folder/005.jpg", "folder/003.jpg"]


def test_an_images_score_is_the_mean_iou_of_its_classes(tmp_path):
    (image,) = evaluated(tmp_path, [4])._worst
    assert image.score == pytest.approx((6 / 10 + 0) / 2)
    assert image.errors == "40.0% wrong"


def test_images_without_a_label_are_left_out(tmp_path):
    worst = evaluated(tmp_path)
    outputs, images = batch([5])
    images["mask"] = [torch.full((8, 10), 255)]
    worst.on_test_batch_end(trainer(), MODULE, outputs, images, 0)
    worst.on_test_end(trainer(), MODULE)
    assert not worst.path.exists()


def test_the_picture_shows_the_worst_image_at_the_top(tmp_path):
    worst = evaluated(tmp_path, [1, 9])
    worst.on_test_end(trainer(), MODULE)
    red = (np.asarray(Image.open(worst.path))[:, :-200] == RED).all(-1)
    widths = [width for width in red.sum(1).tolist() if width]
    assert widths[0] == pytest.approx(9 * widths[-1], rel=0.1)


def test_each_evaluation_starts_anew(tmp_path):
    worst = evaluated(tmp_path, [9])
    worst.on_validation_start(trainer(), MODULE)
    assert worst._worst == []


def test_only_small_copies_are_kept(tmp_path):
    worst = evaluated(tmp_path)
    worst.on_test_batch_end(trainer(), MODULE, *batch([500], size=(700, 2000)), 0)
    (image,) = worst._worst
    assert image.photo.shape[-2:] == image.truth.shape == image.prediction.shape == (224, 640)
    assert image.prediction[0].tolist() == [1] * 160 + [0] * 480


def test_worst_of_all_processes_are_drawn_by_one(tmp_path, monkeypatch):
    here, there = evaluated(tmp_path / "here", [1, 5]), evaluated(tmp_path / "there", [9, 2])

    def gather(results, own):
        results[:] = [here._worst, there._worst]

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    there.on_test_end(trainer(world_size=2, is_global_zero=False), MODULE)
    here.on_test_end(trainer(world_size=2), MODULE)
    alone = evaluated(tmp_path / "alone", [1, 2, 5, 9])
    alone.on_test_end(trainer(), MODULE)
    assert not there.path.exists()
    assert here.path.read_bytes() == alone.path.read_bytes()
