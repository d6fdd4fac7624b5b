"""COCO's numbers: our metric beside others."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import MeanAveragePrecision

from benchmarks.timing import alternating_medians, machine
from flatten_dense.metrics import BACKENDS, STATS, CocoDetection
from flatten_dense.metrics.coco_evaluation import default_backend
from flatten_dense.structures import Detections


@dataclass(frozen=True)
class CocoExample:
    """A made-up split: the content of its annotation file, and what was found in each image."""

    annotations: dict[str, Any]
    found: dict[int, Detections]

    @classmethod
    def make(cls, images: int, per_image: int, classes: int) -> CocoExample:
        """About 7 objects of 3 classes an image, half of the detections around them, the others anywhere in it.

        Coordinates are quarters of pixels, so that no evaluator rounds them.
        """
        rng = np.random.default_rng(0)
        annotations, found = [], {}
        for image_id in range(1, images + 1):
            labels = rng.choice(rng.integers(0, classes, 3), rng.poisson(7))
            boxes = _random_boxes(rng, len(labels))
            for label, (left, top, right, bottom) in zip(labels.tolist(), boxes.tolist(), strict=True):
                box = [left, top, right - left, bottom - top]
                numbers = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1, "iscrowd": 0}
                annotations.append({**numbers, "bbox": box, "area": box[2] * box[3]})
            near = rng.integers(0, len(labels), per_image // 2) if len(labels) else np.zeros(0, dtype=np.int64)
            moved = (
                boxes[near] + np.round(rng.normal(0, 0.08, (len(near), 4)) * np.ptp(boxes[near], axis=1)[:, None]) / 4
            )
            others = per_image - len(near)
            every = np.concatenate(
                [np.sort(moved.reshape(-1, 2, 2), axis=1).reshape(-1, 4), _random_boxes(rng, others)]
            )
            kinds = np.concatenate([labels[near], rng.choice(rng.integers(0, classes, 10), others)])
            scores = np.sort(rng.uniform(size=per_image).astype(np.float32))[::-1].copy()
            order = rng.permutation(per_image)
            found[image_id] = Detections(
                torch.from_numpy(every[order]).float(), torch.from_numpy(scores), torch.from_numpy(kinds[order])
            )
        pictures = [{"id": image_id, "height": 480, "width": 640} for image_id in found]
        categories = [{"id": number, "name": str(number)} for number in range(1, classes + 1)]
        return cls({"images": pictures, "annotations": annotations, "categories": categories}, found)

    def ours(self, backend: str) -> list[float]:
        """The twelve numbers, from tensors, by our metric."""
        metric = CocoDetection(("bbox",), backend)
        metric.begin(self.annotations, [category["id"] for category in self.annotations["categories"]])
        for image_id, detections in self.found.items():
            metric.update([detections], [image_id])
        return [metric.compute().stats["bbox"][name] for name in STATS]

    def bare(self) -> Callable[[], list[float]]:
        """A call of COCOeval alone: truth and results are loaded before."""
        rows = [
            {"image_id": image_id, "category_id": label + 1, "bbox": [x, y, x2 - x, y2 - y], "score": score}
            for image_id, found in self.found.items()
            for (x, y, x2, y2), score, label in zip(*(values.tolist() for values in found[:3]), strict=True)
        ]
        truth = COCO()
        truth.dataset = {**self.annotations, "annotations": [dict(row) for row in self.annotations["annotations"]]}
        truth.createIndex()
        results = truth.loadRes(rows)

        def run() -> list[float]:
            evaluation = COCOeval(truth, results, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            return list(evaluation.stats)

        return run

    def torchmetrics(self) -> Callable[[], list[float]]:
        """A call of torchmetrics' metric on pycocotools, from tensors."""
        rows: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in self.found}
        for row in self.annotations["annotations"]:
            rows[row["image_id"]].append(row)
        truth = [
            {
                "boxes": torch.tensor([row["bbox"] for row in own]).reshape(-1, 4) @ _TO_CORNERS,
                "labels": torch.tensor([row["category_id"] - 1 for row in own], dtype=torch.int64),
            }
            for own in rows.values()
        ]
        found = [dict(zip(("boxes", "scores", "labels"), own[:3], strict=True)) for own in self.found.values()]
        names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")

        def run() -> list[float]:
            # Its own thresholds are rounded to 32 bits, which moves AP by some 1e-4.
            ious, recalls = (np.linspace(*ends).tolist() for ends in ((0.5, 0.95, 10), (0, 1, 101)))
            metric = MeanAveragePrecision(backend="pycocotools", iou_thresholds=ious, rec_thresholds=recalls)
            for own, true in zip(found, truth, strict=True):
                metric.update([own], [true])
            scores = metric.compute()
            return [scores[name].item() for name in (*names, "mar_small", "mar_medium", "mar_large")]

        return run


_TO_CORNERS = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    sides = np.round(np.exp(rng.uniform(np.log(12), np.log(300), (count, 2))))
    corners = np.round(rng.uniform(size=(count, 2)) * (np.array([640, 480]) - sides) * 4) / 4
    return np.concatenate([corners, corners + sides], axis=1)


def coco(options: argparse.Namespace) -> None:
    """COCO's numbers for boxes: ours beside a bare COCOeval and torchmetrics' MeanAveragePrecision."""
    example = CocoExample.make(options.images, options.detections, options.classes)
    backends = [backend for backend in BACKENDS if backend == "pycocotools" or default_backend() == backend]
    numbers: dict[str, list[float]] = {}

    def quietly(name: str, call: Callable[[], list[float]]) -> Callable[[], None]:
        def run() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                numbers[name] = call()

        return run

    with contextlib.redirect_stdout(io.StringIO()):
        calls = {f"ours, {backend}": partial(example.ours, backend) for backend in backends}
        calls |= {"COCOeval alone": example.bare(), "MeanAveragePrecision": example.torchmetrics()}
    medians = alternating_medians([quietly(*call) for call in calls.items()], options.repetitions, warm_up=0)
    seconds = dict(zip(calls, medians, strict=True))
    truth, baseline, rival = numbers["COCOeval alone"], seconds["COCOeval alone"], seconds["MeanAveragePrecision"]
    print(
        f"{machine(torch.get_num_threads())}; {options.images} images, {options.detections} detections each, "
        f"{options.classes} classes, median of {options.repetitions} alternating repetitions.\n"
    )
    print(
        "| evaluation | s | / COCOeval alone | MeanAveragePrecision / it | largest difference |\n|---|---|---|---|---|"
    )
    for name, own in seconds.items():
        apart = max(abs(a - b) for a, b in zip(numbers[name], truth, strict=True))
        print(f"| {name} | {own:.1f} | {own / baseline:.2f} | {rival / own:.2f} | {apart:.1e} |")
    if len(backends) == 1:
        print("\nfaster-coco-eval is not installed")
