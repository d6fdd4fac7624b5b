import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from flatten_dense.cli import main

MICRO_RECIPE = Path(__file__).parent / "micro_recipe.yaml"


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
