import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_masks
from pycocotools.coco import COCO
from torch import nn

from flatten_dense.callbacks import DetectionWriter
from flatten_dense.structures import DetectionLabels, Detections, vivid_palette

LABELS = DetectionLabels(("cat", "dog"), vivid_palette(2), (17, 4))
MODULE = nn.Linear(1, 1)
ONE = SimpleNamespace(world_size=1)


def found(*scores, masks=None):
    boxes = torch.tensor([[10.0, 20, 60, 90]]).expand(len(scores), 4)
    return Detections(boxes, torch.tensor(scores), torch.ones(len(scores), dtype=torch.int64), masks)


def photos(*names, failed=(), large=()):
    return {
        "photo": [torch.full((3, 500, 600), 128, dtype=torch.uint8) for _ in names],
        "name": [name.partition(".")[0] for name in names],
        "path": [f"folder/{name}" for name in names],
        "failed": list(failed),
        "large": list(large),
    }


def predicted(path, *batches):
    writer = DetectionWriter(path / "out", LABELS)
    writer.on_predict_start(ONE, MODULE)
    for index, (outputs, batch) in enumerate(batches):
        writer.on_predict_batch_end(ONE, MODULE, outputs, batch, index)
    writer.on_predict_end(ONE, MODULE)
    return writer


def test_photos_are_numbered_from_one_as_they_come(tmp_path):
    predicted(tmp_path, ([found(0.9), found()], photos("a.jpg", "b.jpg")), ([found(0.8, 0.7)], photos("c.png")))
    images = json.loads((tmp_path / "out/images.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in images] == [(1, "a.jpg"), (2, "b.jpg"), (3, "c.png")]
    assert images[0] == {"id": 1, "file_name": "a.jpg", "width": 600, "height": 500}
    rows = json.loads((tmp_path / "out/detections.json").read_text())
    assert [row["image_id"] for row in rows] == [1, 3, 3]
    assert rows[0]["category_id"] == 4
    assert rows[0]["bbox"] == [10, 20, 50, 70]


def test_tools_of_coco_load_both_files(tmp_path):
    inside = np.zeros((500, 600), dtype=np.uint8, order="F")
    inside[20:90, 10:60] = 1
    predicted(tmp_path, ([found(0.9, masks=[rle_masks.encode(inside)])], photos("a.jpg")))
    results = COCO(tmp_path / "out/images.json").loadRes(str(tmp_path / "out/detections.json"))
    (row,) = results.loadAnns(results.getAnnIds(imgIds=[1]))
    assert np.array_equal(results.annToMask(row), inside)
    assert results.loadCats(row["category_id"])[0]["name"] == "dog"


def test_all_detections_are_in_the_file_and_the_sure_ones_in_the_overlay(tmp_path):
    predicted(tmp_path, ([found(0.9, 0.05)], photos("a.jpg")), ([found(0.05)], photos("b.jpg")))
    assert len(json.loads((tmp_path / "out/detections.json").read_text())) == 3
    drawn, plain = (np.asarray(Image.open(tmp_path / f"out/overlays/{name}.png")) for name in "ab")
    assert (drawn == LABELS.palette[1]).all(-1).sum() > 100
    assert (plain == 128).all()


def test_nothing_found_makes_an_empty_list(tmp_path):
    predicted(tmp_path, ([found()], photos("a.jpg")))
    assert json.loads((tmp_path / "out/detections.json").read_text()) == []


def test_until_the_end_detections_are_in_a_partial_file(tmp_path):
    writer = DetectionWriter(tmp_path / "out", LABELS)
    writer.on_predict_start(ONE, MODULE)
    writer.on_predict_batch_end(ONE, MODULE, [found(0.9)], photos("a.jpg"), 0)
    assert not (tmp_path / "out/detections.json").exists()
    assert (tmp_path / "out/detections.json.partial").exists()
    writer.on_predict_end(ONE, MODULE)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "detections.json",
        "images.json",
        "overlays",
    ]


def test_what_cannot_be_read_and_what_is_too_large_is_reported(tmp_path):
    large = SimpleNamespace(path="folder/map.tif", size=(20_000, 30_000))
    writer = predicted(tmp_path, ([], photos(failed=["folder/bad.jpg: damaged"], large=[large])))
    assert writer.failed[0] == "folder/bad.jpg: damaged"
    assert writer.failed[1].startswith("folder/map.tif: 30000 x 20000 pixels are too many")


def test_the_summary_counts_photos_and_objects(tmp_path):
    writer = predicted(tmp_path, ([found(0.9, 0.8), found()], photos("a.jpg", "b.jpg")))
    assert writer.summary.startswith("2 objects in 2 photos")


def test_several_processes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got 2 processes, leave --trainer\.devices"):
        DetectionWriter(tmp_path, LABELS).on_predict_start(SimpleNamespace(world_size=2), MODULE)
