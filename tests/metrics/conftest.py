"""A small split in COCO's terms with all that makes it hard, detections for it, and COCOeval called by hand."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from flatten_dense.structures import Detections

CATEGORY_IDS = [7, 2, 90]  # neither contiguous nor sorted


class Split(NamedTuple):
    """The content of an annotation file, and what was found in each image."""

    annotations: dict[str, Any]
    detections: dict[int, Detections]


def compress(mask: np.ndarray) -> dict[str, Any]:
    return rle_masks.encode(np.asfortranarray(mask.astype(np.uint8)))


def ellipse(size: tuple[int, int], box: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    left, top, right, bottom = box
    width, height = max(right - left, 1), max(bottom - top, 1)
    return ((2 * x - left - right) / width) ** 2 + ((2 * y - top - bottom) / height) ** 2 <= 1


def run_lengths(mask: np.ndarray) -> list[int]:
    """RLE as COCO's annotation files hold it: lengths by columns, zeros first."""
    pixels = mask.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(np.r_[0, pixels]))
    return np.diff(np.r_[0, changes, len(pixels)]).tolist()


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def make_split(seed: int, num_images: int = 9) -> Split:
    """Sparse, shuffled ids; the first image has no truth, the second no detections, the third neither."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(num_images) * 1003).tolist()  # 0 among them
    images, annotations, detections = [], [], {}
    for number, image_id in enumerate(ids):
        height, width = (int(side) for side in rng.integers(150, 260, 2))
        images.append({"id": image_id, "file_name": f"{image_id}.jpg", "height": height, "width": width})
        boxes, labels = [], []
        for _ in range(0 if number in (0, 2) else int(rng.integers(2, 7))):
            sides = rng.choice([20, 50, 110]) * rng.uniform(0.8, 1.2, 2)
            corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - sides)
            left, top, right, bottom = (round(float(value), 2) for value in (*corner, *(corner + sides)))
            label = int(rng.integers(0, 3))
            boxes.append([left, top, right, bottom])
            labels.append(label)
            middle = (left + right) / 2
            segmentation: Any = [rectangle(left, top, middle - 1, bottom), rectangle(middle + 1, top, right, bottom)]
            crowd = rng.uniform() < 0.15
            if crowd:
                mask = ellipse((height, width), np.array(boxes[-1]))
                segmentation = {"size": [height, width], "counts": run_lengths(mask)}
            annotations.append(
                {
                    "id": 5000 - 3 * len(annotations),
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": 0.9 * (right - left) * (bottom - top),
                    "iscrowd": int(crowd),
                    "segmentation": segmentation,
                }
            )
        detections[image_id] = _guesses(rng, (height, width), boxes, labels, none=number in (1, 2))
    categories = [{"id": number, "name": f"kind {number}"} for number in CATEGORY_IDS]
    rng.shuffle(annotations)
    return Split({"images": images, "annotations": annotations, "categories": categories}, detections)


def _guesses(rng, size, boxes, labels, none) -> Detections:
    """Each truth about twice, a little off, sometimes of another class, and boxes anywhere; scores repeat."""
    around = np.repeat(np.array(boxes).reshape(-1, 4), 2, axis=0)
    kinds = np.repeat(np.array(labels, dtype=np.int64), 2)
    around = around + rng.normal(0, 0.1, around.shape) * np.tile(around[:, 2:] - around[:, :2], 2)
    corners = rng.uniform(0, 100, (5, 2))
    found = np.concatenate([around, np.concatenate([corners, corners + rng.uniform(5, 50, (5, 2))], axis=1)])
    found = found.clip(0, [size[1], size[0]] * 2)[: 0 if none else None]
    kinds = np.concatenate([kinds, rng.integers(0, 3, 5)])[: len(found)]
    kinds = np.where(rng.uniform(size=len(found)) < 0.15, (kinds + 1) % 3, kinds)
    scores = np.sort(rng.integers(1, 20, len(found)) / 20)[::-1].copy()
    return Detections(
        torch.tensor(found, dtype=torch.float32),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(kinds),
        [compress(ellipse(size, box)) for box in found],
    )


def write_by_hand(split: Split, folder: Path, iou_type: str) -> tuple[Path, Path]:
    """An annotation file and a result file, written without the package."""
    category_ids = [category["id"] for category in split.annotations["categories"]]
    rows = []
    for image_id, found in split.detections.items():
        for (left, top, right, bottom), score, label, mask in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.masks, strict=True
        ):
            row = {"image_id": image_id, "category_id": category_ids[label], "score": score}
            if iou_type == "bbox":
                row["bbox"] = [left, top, right - left, bottom - top]
            else:
                row["segmentation"] = {"size": mask["size"], "counts": mask["counts"].decode()}
            rows.append(row)
    files = folder / "truth_by_hand.json", folder / "results_by_hand.json"
    for file, content in zip(files, (split.annotations, rows), strict=True):
        file.write_text(json.dumps(content))
    return files


def official(truth_file: Path, results_file: Path, iou_type: str, image_ids: Iterable[int] | None = None) -> COCOeval:
    truth = COCO(str(truth_file))
    evaluation = COCOeval(truth, truth.loadRes(str(results_file)), iou_type)
    if image_ids is not None:
        evaluation.params.imgIds = sorted(image_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.fixture
def split() -> Split:
    return make_split(seed=0)


@pytest.fixture
def splits() -> Callable[[int], Split]:
    """Makes another one of each seed."""
    return make_split


@pytest.fixture
def coco_eval(tmp_path: Path) -> Callable[..., COCOeval]:
    """Runs COCOeval over a split, from two files that were written by hand."""

    def run(split: Split, iou_type: str, image_ids: Iterable[int] | None = None) -> COCOeval:
        return official(*write_by_hand(split, tmp_path, iou_type), iou_type, image_ids)

    return run
