"""From tensors to COCO's twelve numbers: the whole path, against COCOeval on a result file that naive code wrote.

An oracle takes the place of a head: it knows the image by a number in its first pixel, and finds its objects moved,
under other names, not at all, or where there are none.
"""

import io
import json
import math
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from flatten_dense.backbones import TimmBackbone
from flatten_dense.data.detection import CocoDataModule
from flatten_dense.data.detection.dataset import DetectionDataset
from flatten_dense.data.shapes import write_shapes
from flatten_dense.heads import DetectionHead
from flatten_dense.heads.detection import RawDetections
from flatten_dense.metrics import STATS
from flatten_dense.necks import FPN
from flatten_dense.tasks.detection import DetectionTask

REAL = Path(__file__).parents[3] / "shared/data/coco_mini"
VAL = "annotations/instances_val2017.json"
LONG, SHORT = 160, 128
CELLS = 28


def resized(height, width):
    factor = min(LONG / max(height, width), SHORT / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def invent(content):
    """For each image, by its place in the file: boxes in pixels of the input, scores, category ids, and soft masks."""
    rng = np.random.default_rng(0)
    ids = [category["id"] for category in content["categories"]]
    found = []
    for number, image in enumerate(content["images"]):
        height, width = image["height"], image["width"]
        small_height, small_width = resized(height, width)
        boxes, categories = [], []
        for annotation in content["annotations"]:
            if annotation["image_id"] == image["id"] and number % 5 and rng.random() < 0.8:
                x, y, w, h = annotation["bbox"]
                jitter = rng.normal(0, 0.08, 4) * (w, h, w, h)
                boxes.append(np.array([x, y, x + w, y + h]) + jitter)
                categories.append(annotation["category_id"] if rng.random() < 0.85 else rng.choice(ids))
        for _ in range(rng.integers(0, 4) if number % 5 else 0):
            corner, side = rng.random(2) * (width - 30, height - 30), 10 + rng.random(2) * 20
            boxes.append(np.concatenate([corner, corner + side]))
            categories.append(rng.choice(ids))
        boxes = np.array(boxes).reshape(-1, 4)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 2)
        scale = np.array([small_width / width, small_height / height] * 2)
        order = np.argsort(-rng.random(len(boxes)))
        y, x = np.mgrid[:CELLS, :CELLS] / (CELLS - 1) * 2 - 1
        blobs = np.clip(1.3 - np.hypot(x, y) * rng.uniform(0.6, 1.2, (len(boxes), 1, 1)), 0, 1)
        scores = np.sort(rng.random(len(boxes)))[::-1]
        found.append((boxes[order] * scale, scores.copy(), np.array(categories, dtype=int)[order], blobs))
    return found


class Oracle(DetectionHead):
    iou_types = ("bbox", "segm")

    def __init__(self, *args, found, category_ids):
        super().__init__(*args)
        self.found, self.category_ids = found, list(category_ids)

    def loss(self, features, images, targets):
        raise NotImplementedError

    def predict(self, features, images):
        raw = []
        for pixels in images.tensor:
            boxes, scores, categories, blobs = self.found[int(pixels[0, 0, 0])]
            labels = torch.tensor([self.category_ids.index(number) for number in categories], dtype=torch.int64)
            numbers = (torch.tensor(values, dtype=torch.float32) for values in (boxes, scores, blobs))
            boxes, scores, blobs = numbers
            raw.append(RawDetections(boxes, scores, labels, blobs))
        return raw


class Numbered(DetectionDataset):
    def __getitem__(self, index):
        sample = super().__getitem__(index)
        sample["image"].zero_()[0, 0, 0] = index
        return sample


class NumberedData(CocoDataModule):
    def make_dataset(self, split):
        made = super().make_dataset(split)
        return Numbered(made.annotations, self.labels, made.transform, made.with_masks)


def evaluate(root, batch_size, devices=1):
    """The product's numbers."""
    data = NumberedData(root, eval_scale=(LONG, SHORT), eval_batch_size=batch_size, num_workers=0)
    content = json.loads((root / VAL).read_text())
    head = partial(Oracle, found=invent(content), category_ids=data.labels.category_ids)
    task = DetectionTask(TimmBackbone("flatten_pvt_test"), head, partial(FPN, out_channels=8), data.labels)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    strategy = {"devices": devices, **({"strategy": "ddp"} if devices > 1 else {})}
    trainer = Trainer(accelerator="cpu", **quiet, **strategy)
    trainer.validate(task, datamodule=data, verbose=False)
    return task.scores.stats, trainer.is_global_zero


def bilinear(start, stop, side):
    """[side, CELLS]: how much of each cell of a box a pixel's centre reads; beyond the box there is nothing."""
    position = (np.arange(side) + 0.5 - start) / (stop - start) * CELLS - 0.5
    return np.clip(1 - np.abs(position[:, None] - np.arange(CELLS)), 0, None)


def score_by_hand(root, folder):
    """COCOeval on the official file and a result file of our own."""
    truth = root / VAL
    content = json.loads(truth.read_text())
    results = []
    for image, (boxes, scores, categories, blobs) in zip(content["images"], invent(content), strict=True):
        height, width = image["height"], image["width"]
        small_height, small_width = resized(height, width)
        for box, score, category, blob in zip(boxes, scores, categories, blobs, strict=True):
            left, top, right, bottom = box * np.array([width / small_width, height / small_height] * 2)
            mask = bilinear(top, bottom, height) @ blob @ bilinear(left, right, width).T >= 0.5
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": int(category),
                    "bbox": [left, top, right - left, bottom - top],
                    "score": float(score),
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    path = folder / "results.json"
    path.write_text(json.dumps(results))
    stats = {}
    with redirect_stdout(io.StringIO()):
        for iou_type in ("bbox", "segm"):
            coco = COCO(str(truth))
            rows = json.loads(path.read_text())
            for row in rows if iou_type == "segm" else ():
                del row["bbox"]  # small, medium and large go by the masks
            run = COCOeval(coco, coco.loadRes(rows), iou_type)
            run.evaluate()
            run.accumulate()
            run.summarize()
            stats[iou_type] = dict(zip(STATS, run.stats.tolist(), strict=True))
    return stats


def make_awkward(path):
    """Sparse ids in no order, a photo without objects, and crowds, of which one is a compressed mask and one is not."""
    content = json.loads(path.read_text())
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] != 3]
    for annotation, counts in zip(annotations[:2], ("compressed", "plain"), strict=True):
        annotation["iscrowd"] = 1
        if counts == "plain":
            size = annotation["segmentation"]["size"]
            columns = coco_mask.decode(annotation["segmentation"]).T.flatten()
            ends = [*(np.flatnonzero(np.diff(columns)) + 1).tolist(), len(columns)]
            runs = np.diff([0, *ends]).tolist()
            annotation["segmentation"] = {"size": size, "counts": [0, *runs] if columns[0] else runs}
    for image in content["images"]:
        image["id"] = 1000 - 37 * image["id"]
    for annotation in annotations:
        annotation["image_id"] = 1000 - 37 * annotation["image_id"]
    path.write_text(json.dumps({**content, "annotations": annotations[::-1]}))


@pytest.fixture(scope="module", params=["shapes", "coco_mini"])
def root(request, tmp_path_factory):
    if request.param == "shapes":
        root = write_shapes(tmp_path_factory.mktemp("shapes") / "data", 1, 13) / "coco"
        make_awkward(root / VAL)
        return root
    if not REAL.is_dir():
        pytest.skip("needs the COCO photos")
    return REAL


def assert_equal(ours, by_hand):
    for iou_type, numbers in by_hand.items():
        known = {name: value for name, value in numbers.items() if value > -1}
        assert all(math.isnan(ours[iou_type][name]) for name in numbers.keys() - known)
        assert {name: ours[iou_type][name] for name in known} == pytest.approx(known, abs=1e-9)
        assert 0.05 < known["AP"] < 0.95


def test_the_sets_have_what_makes_scoring_hard(root):
    content = json.loads((root / VAL).read_text())
    ids = {image["id"] for image in content["images"]}
    assert any(annotation["iscrowd"] for annotation in content["annotations"])
    assert max(ids) > 2 * len(ids)
    assert len(ids) % 2, "two processes must not get as many images each"
    found = [len(scores) for _, scores, _, _ in invent(content)]
    assert 0 in found
    assert max(found) > 3


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_twelve_numbers_are_cocoevals(root, batch_size, tmp_path):
    stats, _ = evaluate(root, batch_size)
    assert_equal(stats, score_by_hand(root, tmp_path))


def test_so_they_are_from_two_processes(root, tmp_path):
    out = tmp_path / "stats.json"
    command = [sys.executable, __file__, str(root), str(out)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert_equal(json.loads(out.read_text()), score_by_hand(root, tmp_path))


if __name__ == "__main__":
    numbers, is_first = evaluate(Path(sys.argv[1]), batch_size=2, devices=2)
    if is_first:
        Path(sys.argv[2]).write_text(json.dumps(numbers))
