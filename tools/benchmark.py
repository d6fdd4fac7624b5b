"""Time our models, our data loader and our scoring on the CPU; each benchmark is a sub-command that prints a table.

    python tools/benchmark.py siblings
    python tools/benchmark.py loader --root ADEChallengeData2016 --reduce_zero_label
    python tools/benchmark.py coco

Times of models and of scoring are medians of repetitions that alternate between those compared, so that what else the
machine does hits them alike. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.utils.data import ConcatDataset
from torchmetrics.detection import MeanAveragePrecision
from torchvision import tv_tensors

from flatten_dense.commands.published import PUBLISHED
from flatten_dense.data.ade20k import ADE20KDataModule
from flatten_dense.data.segmentation import SegmentationDataset
from flatten_dense.metrics import BACKENDS, STATS, CocoDetection
from flatten_dense.metrics.coco_evaluation import default_backend
from flatten_dense.structures import Detections

SIDE = 224  # timm's DeiT and Swin take no other


@dataclass(frozen=True)
class Pair:
    """A FLatten variant and the softmax model of the same size.

    Attributes:
        name: of the variant.
        sibling: registered name.
        options: arguments of the sibling.
        what: the sibling, in words.
    """

    name: str
    sibling: str
    options: Mapping[str, Any] = field(default_factory=dict)
    what: str = "timm's"


_ROWS = {row.label: row for row in PUBLISHED}
_NOT_IN_TIMM = "ours with softmax attention; timm has no such family"
SIBLINGS = (
    Pair("flatten_deit_tiny", "deit_tiny_patch16_224"),
    Pair("flatten_pvt_tiny", "flatten_pvt_tiny", _ROWS["PVT-T"].options, _NOT_IN_TIMM),
    Pair("flatten_pvt_v2_b0", "pvt_v2_b0"),
    Pair("flatten_pvt_v2_b2", "pvt_v2_b2"),
    Pair("flatten_swin_tiny", "swin_tiny_patch4_window7_224"),
    Pair("flatten_cswin_tiny", "flatten_cswin_tiny", _ROWS["CSwin-T"].options, _NOT_IN_TIMM),
)


def alternating_medians(calls: Sequence[Callable[[], object]], repetitions: int, warm_up: int) -> list[float]:
    """Median seconds of each call, the calls taking turns.

    Args:
        calls: what to time.
        repetitions: timed turns of each.
        warm_up: turns of each before those.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(warm_up + repetitions):
        for call, own in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            if turn >= warm_up:
                own.append(time.perf_counter() - started)
    return [statistics.median(own) for own in seconds]


def machine(threads: int) -> str:
    """What a timing depends on besides the model."""
    return f"{cpu_name()}, {threads} thread(s), torch {torch.__version__}, timm {timm.__version__}"


def cpu_name() -> str:
    """The processor, as it calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def forward_pass(name: str, images: torch.Tensor, **options: Any) -> Callable[[], object]:  # noqa: ANN401 - of a model
    """A call that runs an untrained model in evaluation mode on these images."""
    model = timm.create_model(name, **options).eval()

    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def siblings(options: argparse.Namespace) -> None:
    """Each FLatten family beside the softmax model of the same size: evaluation, float32."""
    torch.set_num_threads(options.threads)
    print(
        f"{machine(options.threads)}; float32, {options.batch_size} image(s) of {SIDE} x {SIDE}, "
        f"median of {options.repetitions} alternating repetitions after {options.warm_up} for warm-up.\n"
    )
    print("| FLatten | ms | softmax sibling | ms | FLatten / softmax |\n|---|---|---|---|---|")
    images = torch.randn(options.batch_size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for pair in SIBLINGS:
        calls = [forward_pass(pair.name, images), forward_pass(pair.sibling, images, **pair.options)]
        ours, theirs = (1e3 * s for s in alternating_medians(calls, options.repetitions, options.warm_up))
        print(
            f"| {pair.name} | {ours:.1f} | {pair.sibling} ({pair.what}) | {theirs:.1f} | {ours / theirs:.2f} |",
            flush=True,
        )


def loader(options: argparse.Namespace) -> None:
    """Training images per second and worker, from files to batches, with the published augmentation."""
    data = ADE20KDataModule(
        options.root,
        reduce_zero_label=options.reduce_zero_label,
        batch_size=options.batch_size,
        num_workers=options.workers,
    )
    data.setup("fit")
    dataset = data.datasets["train"]
    torch.set_num_threads(1)  # as in a worker
    torch.manual_seed(0)
    milliseconds = stage_milliseconds(dataset, options.images)
    total = sum(milliseconds.values())
    print(f"{machine(1)}; {options.images} images from {options.root}.\n")
    print("| step | ms of CPU per image | share |\n|---|---|---|")
    for name, own in milliseconds.items():
        print(f"| {name} | {own:.2f} | {own / total:.0%} |")
    print(f"| together | {total:.2f} | {1e3 / total:.1f} images/s |\n")
    seconds, count = loader_seconds(data, options.images)
    rate = count / seconds
    print(
        f"{options.workers} worker(s), batches of {options.batch_size}: {rate:.1f} images/s, "
        f"{rate / options.workers:.1f} per worker"
    )


def stage_milliseconds(dataset: SegmentationDataset, images: int) -> dict[str, float]:
    """Mean CPU time of reading a pair and of each step of its transform, in this process."""
    seconds: Counter[str] = Counter()
    for number in range(images):
        started = time.thread_time()
        photo, mask = dataset.load(number % len(dataset))
        seconds["read and check"] += time.thread_time() - started
        pair = tv_tensors.Image(photo), tv_tensors.Mask(mask)
        for step in dataset.transform.pipeline.transforms:
            started = time.thread_time()
            pair = step(*pair)
            seconds[type(step).__name__.strip("_")] += time.thread_time() - started
    return {name: 1e3 * own / images for name, own in seconds.items()}


def loader_seconds(data: ADE20KDataModule, images: int) -> tuple[float, int]:
    """How long at least so many images take through the loader, and how many they were, once its workers are busy."""
    warm_up = 2 * data.num_workers + 1  # batches: what the workers fetch ahead while they start
    once = data.datasets["train"]
    data.datasets["train"] = ConcatDataset([once] * (1 + (images + (warm_up + 1) * data.batch_size) // len(once)))
    batches = iter(data.train_dataloader())
    for _ in range(warm_up):
        next(batches)
    started, count = time.perf_counter(), 0
    while count < images:
        count += len(next(batches)["image"])
    return time.perf_counter() - started, count


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


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be an integer from {least}, got {text!r}")
        return int(text)

    return integer


def main(args: Sequence[str] | None = None) -> int:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    own = benchmarks.add_parser(
        "siblings", help=siblings.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    own.set_defaults(benchmark=siblings)
    own.add_argument("--batch_size", type=_at_least(1), default=1, help="images of a forward pass")
    own.add_argument("--repetitions", type=_at_least(1), default=30, help="timed forward passes of each model")
    own.add_argument("--warm_up", type=_at_least(0), default=5, help="forward passes of each model before those")
    own.add_argument("--threads", type=_at_least(1), default=torch.get_num_threads(), help="of torch")
    own = benchmarks.add_parser("loader", help=loader.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    own.set_defaults(benchmark=loader)
    own.add_argument("--root", required=True, help="data set in the layout of ADE20K; its training split is read")
    own.add_argument("--reduce_zero_label", action="store_true", help="0 in the masks means not labelled")
    own.add_argument("--images", type=_at_least(1), default=64, help="timed images")
    own.add_argument("--batch_size", type=_at_least(1), default=4, help="images of a batch")
    own.add_argument("--workers", type=_at_least(1), default=1, help="processes that load")
    own = benchmarks.add_parser("coco", help=coco.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    own.set_defaults(benchmark=coco)
    own.add_argument("--images", type=_at_least(1), default=5000, help="of the made-up split")
    own.add_argument("--detections", type=_at_least(1), default=100, help="in an image")
    own.add_argument("--classes", type=_at_least(1), default=80, help="of objects")
    own.add_argument("--repetitions", type=_at_least(1), default=3, help="timed evaluations of each kind")
    options = parser.parse_args(args)
    options.benchmark(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
