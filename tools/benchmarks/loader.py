"""Training data, from files to batches."""

from __future__ import annotations

import argparse
import time
from collections import Counter

import torch
from torch.utils.data import ConcatDataset
from torchvision import tv_tensors

from benchmarks.timing import machine
from flatten_dense.data.ade20k import ADE20KDataModule
from flatten_dense.data.segmentation import SegmentationDataset


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
