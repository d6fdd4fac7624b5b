"""`flatten-dense make-shards`: a folder of photos per class becomes a few tar files that can be streamed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from flatten_dense.data.classification.image_folder import ImageFolderDataset, class_folders
from flatten_dense.data.classification.shard_files import ShardIndex, write_shard
from flatten_dense.structures import ClassLabels

_DESCRIPTION = """Put the photos of ROOT/train/CLASS/NAME.jpg and ROOT/val/CLASS/NAME.jpg into tar files in WebDataset's
format, for `--data ShardDataModule`. Files go in as they are, in an order that mixes the classes. ROOT is only read."""
_SPLITS = ("train", "val", "test")
_MEGABYTE = 10**6
_OF_TAR = 3 * 1024  # bytes: headers and padding of the members of a photo

_Photo = tuple[Path, int, str]


def run(args: Sequence[str]) -> None:
    """Write the shards of all splits.

    Args:
        args: ROOT OUT [--size MB] [--workers N].

    Raises:
        ValueError: an option is out of its range, OUT is not empty, or WebDataset is not installed.
        DataError: the folder is not as it must be, or a file is no photo.
    """
    parser = argparse.ArgumentParser(prog="flatten-dense make-shards", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("root", type=Path, metavar="ROOT", help="holds train and val, perhaps test")
    parser.add_argument("out", type=Path, metavar="OUT", help="a new or empty folder")
    parser.add_argument("--size", type=float, default=32, metavar="MB", help="of a shard (default: 32)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="shards written at a time (default: 4)")
    options = parser.parse_args(args)
    for name, value in (("size", options.size), ("workers", options.workers)):
        if value <= 0:
            raise ValueError(f"--{name} must be above 0, got {value:g}")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ValueError(f"{options.out}: not an empty folder; name a new one, nothing is overwritten")
    labels = ClassLabels(tuple(class_folders(options.root / "train")))
    splits = [split for split in _SPLITS if (options.root / split).is_dir()]
    for split in splits:
        shards = _plan(options.root, split, labels, options.size * _MEGABYTE)
        index = _write(options.out / split, shards, labels, options.workers)
        samples, size = (sum(getattr(shard, name) for shard in index.shards) for name in ("samples", "size"))
        rank_zero_info(f"{options.out / split}: {samples} photos in {len(index.shards)} shards, {size / 1e6:.1f} MB")


def _plan(root: Path, split: str, labels: ClassLabels, size: float) -> list[list[_Photo]]:
    """Photos of each shard, in an order that follows from their names alone."""
    photos = ImageFolderDataset(root / split, labels, lambda image: image).samples
    shards: list[list[_Photo]] = []
    filled = size
    for number in np.random.default_rng(0).permutation(len(photos)):
        path, label = photos[number]
        if filled >= size:
            shards.append([])
            filled = 0
        shards[-1].append((path, label, path.relative_to(root).as_posix()))
        filled += path.stat().st_size + _OF_TAR
    return shards


def _write(folder: Path, shards: list[list[_Photo]], labels: ClassLabels, workers: int) -> ShardIndex:
    folder.mkdir(parents=True)
    firsts = accumulate(map(len, shards), initial=0)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        bar = progress.add_task(f"Writing {folder}", total=len(shards))
        futures = [
            pool.submit(write_shard, folder / f"{number:06}.tar", photos, first)
            for number, (photos, first) in enumerate(zip(shards, firsts, strict=False))
        ]
        try:
            done = []
            for future in futures:
                done.append(future.result())
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    index = ShardIndex(labels.class_names, tuple(done))
    index.write(folder)
    return index
