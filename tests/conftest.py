import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flatten_dense.backbones import TimmBackbone
from flatten_dense.cli import main
from flatten_dense.heads import MaskRCNNHead
from flatten_dense.necks import FPN
from flatten_dense.structures import DetectionLabels, default_palette
from flatten_dense.tasks.detection import DetectionTask

MICRO_RECIPE = Path(__file__).parent / "micro_recipe.yaml"
MICRO_HEAD = {"fc_channels": 16, "train_proposals": 50, "test_proposals": 50, "roi_samples": 16}


@pytest.fixture(scope="session")
def golden_io() -> ModuleType:
    """The reader of the reference numbers in tests/golden."""
    spec = importlib.util.spec_from_file_location("golden_io", Path(__file__).parent / "golden" / "golden_io.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ade_root(tmp_path: Path) -> Callable[..., Path]:
    """Writes a toy data set into this test's own folder; options as :func:`write_toy`."""

    def write(num: int = 4, splits: tuple[str, ...] = ("training", "validation"), classes: bool = True) -> Path:
        return write_toy(tmp_path / "toy", num, splits, classes)

    return write


class Fitted(NamedTuple):
    """A finished fit of the micro recipe: 4 steps, validated after 2 and 4, last.ckpt every 3."""

    run: Path
    data: Path
    recipe: Path

    @property
    def best(self) -> Path:
        return self.run / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Only to be read: every test shares it."""
    folder = tmp_path_factory.mktemp("fitted")
    data = write_toy(folder / "toy", 4, ("training", "validation", "test"))
    options = ["-c", str(MICRO_RECIPE), "--data.root", str(data), "--runs", str(folder / "runs"), "--name", "micro"]
    assert main(["fit", *options]) == 0
    (run,) = (folder / "runs" / "micro").iterdir()
    return Fitted(run, data, MICRO_RECIPE)


def write_toy(root: Path, num: int, splits: tuple[str, ...], classes: bool = True) -> Path:
    """Write ``num`` pairs of 12x16 noise and masks of classes 0..2 per split, and a list of three classes."""
    rng = np.random.default_rng(0)
    for split in splits:
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations" / split).mkdir(parents=True)
        for index in range(num):
            photo = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            mask = rng.integers(0, 3, (12, 16), dtype=np.uint8)
            Image.fromarray(photo).save(root / "images" / split / f"photo_{index}.jpg")
            Image.fromarray(mask).save(root / "annotations" / split / f"photo_{index}.png")
    if classes:
        (root / "classes.txt").write_text("cat\ndog\nbird\n")
    return root


@pytest.fixture
def make_detector() -> Callable[..., DetectionTask]:
    """A Mask R-CNN on the micro backbone; options replace the defaults."""

    def make(num_classes: int = 3, seed: int = 0, **options) -> DetectionTask:
        torch.manual_seed(seed)
        names = tuple(f"class {index}" for index in range(num_classes))
        ids = tuple(range(7, 7 + num_classes))
        parts = {
            "backbone": TimmBackbone("flatten_pvt_test"),
            "neck": partial(FPN, out_channels=16, extra_levels=1),
            "head": partial(MaskRCNNHead, **MICRO_HEAD),
            "labels": DetectionLabels(names, default_palette(num_classes), ids),
        }
        return DetectionTask(**{**parts, **options})

    return make


@pytest.fixture
def detector_recipe() -> dict[str, Any]:
    """What a checkpoint says of the task that `make_detector` makes."""
    neck = {"class_path": "flatten_dense.necks.FPN", "init_args": {"out_channels": 16, "extra_levels": 1}}
    backbone = {"class_path": "flatten_dense.backbones.TimmBackbone", "init_args": {"name": "flatten_pvt_test"}}
    head = {"class_path": "flatten_dense.heads.MaskRCNNHead", "init_args": MICRO_HEAD}
    task = "flatten_dense.tasks.detection.DetectionTask"
    data = {"class_path": "flatten_dense.data.detection.CocoDataModule", "init_args": {"root": "anywhere"}}
    return {
        "name": "micro",
        "model": {"class_path": task, "init_args": {"backbone": backbone, "neck": neck, "head": head}},
        "data": data,
    }


@pytest.fixture
def detection_batch() -> dict[str, Any]:
    """Two images of different size, one of them without objects."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 10:40, 10:40], masks[1, 20:60, 50:90] = True, True
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return {
        "image": [torch.randn(3, 64, 96, generator=generator), torch.randn(3, 80, 50, generator=generator)],
        "target": [
            {
                "boxes": torch.tensor([[10.0, 10, 40, 40], [50, 20, 90, 60]]),
                "labels": torch.tensor([0, 2]),
                "masks": masks,
            },
            {**nothing, "masks": torch.zeros(0, 80, 50, dtype=torch.bool)},
        ],
        "image_id": [17, 4],
        "path": ["a.jpg", "b.jpg"],
    }


@pytest.fixture(scope="session")
def same_objects() -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """For each expected object the index of its like among those found; equal scores may come in either order."""

    def match(boxes: Tensor, labels: Tensor, found_boxes: Tensor, found_labels: Tensor) -> Tensor:
        distances = torch.cdist(boxes, found_boxes).masked_fill(labels[:, None] != found_labels, torch.inf)
        order = distances.argmin(1)
        assert sorted(order.tolist()) == list(range(len(found_boxes)))
        return order

    return match
