import csv
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import distributed, nn

from flatten_dense.callbacks import ClassificationReport
from flatten_dense.metrics import ClassificationConfusion
from flatten_dense.structures import ClassLabels, InputFormat

LABELS = ClassLabels(("cat", "dog", "cow"))
MODULE = nn.Linear(1, 1)


def trainer(**facts) -> SimpleNamespace:
    return SimpleNamespace(**{"is_global_zero": True, "world_size": 1, **facts})


def batch(*items):
    """(name, truth, probabilities) of each image."""
    names, truths, probabilities = zip(*items, strict=True)
    images = torch.zeros(len(items), 3, 8, 8)
    batch = {"image": images, "label": torch.tensor(truths), "path": [f"folder/{name}" for name in names]}
    return {"probabilities": torch.tensor(probabilities)}, batch


def report(path, *batches, num_mistakes=2):
    metric = ClassificationConfusion(3)
    for outputs, own in batches:
        metric.update(outputs["probabilities"], own["label"])
    callback = ClassificationReport(path, metric.compute, LABELS, InputFormat(), num_mistakes)
    callback.on_test_start(trainer(), MODULE)
    for index, (outputs, own) in enumerate(batches):
        callback.on_test_batch_end(trainer(), MODULE, outputs, own, index)
    return callback


SURE = ("sure.png", 0, [0.0, 0.9, 0.1])
SURER = ("surer.png", 2, [0.95, 0.0, 0.05])
DOUBTFUL = ("doubtful.png", 1, [0.5, 0.4, 0.1])
RIGHT = ("right.png", 1, [0.0, 1.0, 0.0])


@pytest.mark.parametrize("batches", [[[SURE, SURER, DOUBTFUL, RIGHT]], [[DOUBTFUL], [RIGHT], [SURER], [SURE]]])
def test_the_surest_mistakes_are_kept_whatever_the_batches(tmp_path, batches):
    callback = report(tmp_path, *(batch(*items) for items in batches))
    assert [photo.name for photo in callback._mistakes] == ["folder/surer.png", "folder/sure.png"]
    assert callback._mistakes[0].truth == "cow"


def test_all_files_are_written(tmp_path):
    report(tmp_path, batch(SURE, RIGHT)).on_test_end(trainer(), MODULE)
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"class": "dog", "accuracy": "1.0", "precision": "0.5", "images": "1", "predicted": "2"}
    for name in ("confusion", "mistakes"):
        assert Image.open(tmp_path / "pictures" / f"{name}.png").width > 100


def test_mistakes_of_an_earlier_evaluation_do_not_stay(tmp_path):
    report(tmp_path, batch(SURE)).on_test_end(trainer(), MODULE)
    report(tmp_path, batch(RIGHT)).on_test_end(trainer(), MODULE)
    assert not (tmp_path / "pictures/mistakes.png").exists()


def test_one_process_collects_the_mistakes_of_all(tmp_path, monkeypatch):
    other = report(tmp_path / "other", batch(SURER))._mistakes
    drawn = []

    def gather(into, own):
        into[:] = [own, other]

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    monkeypatch.setattr(
        "flatten_dense.callbacks.classification_report.classification_sheet",
        lambda photos: drawn.extend(photos) or Image.new("RGB", (1, 1)),
    )
    report(tmp_path, batch(DOUBTFUL, SURE)).on_test_end(trainer(world_size=2), MODULE)
    assert [photo.name for photo in drawn] == ["folder/surer.png", "folder/sure.png"]
