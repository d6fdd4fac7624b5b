"""Toy folders in the layout of ADE20K."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def ade_root(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``num`` pairs of 12x16 noise and masks of classes 0..2 per split, and a list of three classes."""

    def write(num: int = 4, splits: tuple[str, ...] = ("training", "validation"), classes: bool = True) -> Path:
        rng = np.random.default_rng(0)
        root = tmp_path / "toy"
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

    return write
