"""Toy data sets in the layouts of well-known ones, in this test's own folder."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loops.progress import _BatchProgress, _ProcessedTracker
from PIL import Image


def write_photo(path: Path, seed: int, size: tuple[int, int] = (16, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def write_values(path: Path, values: list[int], mode: str = "L") -> None:
    """A mask of 12 equal rows of 16 pixels, over which the values are spread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = np.resize(np.array(values, dtype=np.uint8), 16)
    mask = Image.fromarray(np.tile(row, (12, 1)))
    if mode == "P":
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    mask.save(path)


def write_colours(path: Path, colours: list[tuple[int, int, int]]) -> None:
    """A mask of 12 equal rows of 16 pixels, over which the colours are spread."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = np.array([colours[index % len(colours)] for index in range(16)], dtype=np.uint8)
    Image.fromarray(np.tile(row, (12, 1, 1))).save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """PASCAL VOC: palette masks of 21 classes with void borders, fewer masks than photos, and split lists."""
    names = ["2007_000032", "2007_000039", "2007_000063", "2007_000999"]
    for seed, name in enumerate(names):
        write_photo(tmp_path / f"JPEGImages/{name}.jpg", seed)
    for name in names[:3]:
        write_values(tmp_path / f"SegmentationClass/{name}.png", [0, 255, 1, 20], "P")
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2007_000032\n2007_000063\n")
    (lists / "val.txt").write_text("2007_000039\n")
    (tmp_path / "classes.txt").write_text("\n".join(["background", *(f"object {index}" for index in range(1, 21))]))
    return tmp_path


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Cityscapes: city folders, long suffixes, other pictures beside the masks, ids 0..33 and a label map."""
    for seed, (split, city) in enumerate([("train", "aachen"), ("train", "bochum"), ("val", "munster")]):
        name = f"{split}/{city}/{city}_000000_000019"
        write_photo(tmp_path / f"leftImg8bit/{name}_leftImg8bit.png", seed)
        write_values(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", [0, 7, 8, 33])
        write_values(tmp_path / f"gtFine/{name}_gtFine_instanceIds.png", [0, 7, 8, 33])
        write_colours(tmp_path / f"gtFine/{name}_gtFine_color.png", [(128, 64, 128)])
        (tmp_path / f"gtFine/{name}_gtFine_polygons.json").write_text("{}")
    (tmp_path / "map.csv").write_text("value,class\n7,road\n8,sidewalk\n33,bicycle\n*,ignore\n")
    return tmp_path


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """CamVid as released: colour masks NAME_L.png, and label_colors.txt with a name for each colour."""
    for seed, split in enumerate(["train", "val", "test"]):
        write_photo(tmp_path / f"{split}/0016E5_{seed}.png", seed)
        write_colours(tmp_path / f"{split}_labels/0016E5_{seed}_L.png", [(64, 0, 128), (64, 128, 192), (0, 0, 0)])
    (tmp_path / "label_colors.txt").write_text("64 0 128\tCar\n64 128 192\tSUVPickupTruck\n0 0 0\t\tVoid\n")
    (tmp_path / "merged.txt").write_text("64 0 128\tCar\n64 128 192\tCar\n0 0 0\t\tignore\n")
    return tmp_path


@pytest.fixture
def make_trainer() -> Callable[..., SimpleNamespace]:
    """What a data module asks its trainer for, as it is after so many batches of an epoch."""

    def make(processes=1, rank=0, batches=0, last=False, accumulated=1) -> SimpleNamespace:
        done = _ProcessedTracker(ready=batches, started=batches, processed=batches, completed=batches - 1)
        loop = SimpleNamespace(batch_progress=_BatchProgress(current=done, is_last_batch=last))
        return SimpleNamespace(
            world_size=processes,
            global_rank=rank,
            accumulate_grad_batches=accumulated,
            fit_loop=SimpleNamespace(epoch_loop=loop),
        )

    return make
