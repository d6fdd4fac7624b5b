import csv
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from flatten_dense.callbacks import ClassificationWriter
from flatten_dense.structures import ClassLabels

MODULE = nn.Linear(1, 1)
ONE = SimpleNamespace(world_size=1)


def predicted(path, *batches):
    writer = ClassificationWriter(path / "out", ClassLabels(("cat", "dog")))
    writer.on_predict_start(ONE, MODULE)
    for index, (probabilities, names, failed, large) in enumerate(batches):
        photos = [torch.zeros(3, 20, 30, dtype=torch.uint8) for _ in names]
        batch = {"photo": photos, "path": [f"in/{name}" for name in names], "failed": failed, "large": large}
        writer.on_predict_batch_end(ONE, MODULE, [torch.tensor(p) for p in probabilities], batch, index)
    writer.on_predict_end(ONE, MODULE)
    return writer


def test_a_line_for_each_photo(tmp_path):
    predicted(tmp_path, ([[0.25, 0.75]], ["a.jpg"], [], []), ([[0.9, 0.1]], ["b.jpg"], [], []))
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {"photo": "in/a.jpg", "class_1": "dog", "probability_1": "0.750000"}
    assert expected.items() <= rows[0].items()
    assert (rows[1]["class_1"], rows[1]["class_2"]) == ("cat", "dog")


def test_the_first_photos_are_drawn(tmp_path):
    predicted(tmp_path, ([[0.25, 0.75]], ["a.jpg"], [], []))
    assert Image.open(tmp_path / "out/predictions.png").width > 200


def test_photos_that_cannot_be_done_are_told(tmp_path):
    large = SimpleNamespace(path="in/map.tif", size=(30000, 20000))
    writer = predicted(tmp_path, ([], [], ["in/bad.jpg: damaged"], [large]))
    assert writer.failed[0] == "in/bad.jpg: damaged"
    assert "in/map.tif: 20000 x 30000 pixels" in writer.failed[1]
    assert not (tmp_path / "out/predictions.png").exists()


def test_several_processes_would_write_over_one_another(tmp_path):
    writer = ClassificationWriter(tmp_path, ClassLabels(("cat", "dog")))
    with pytest.raises(ValueError, match="2 processes"):
        writer.on_predict_start(SimpleNamespace(world_size=2), MODULE)
