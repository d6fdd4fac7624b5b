from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image folder into this test's own folder: small photos of noise, of every class as many."""

    def write(classes=("cat", "dog"), num: int = 3, splits=("train", "val"), root: str = "photos") -> Path:
        rng = np.random.default_rng(0)
        for split in splits:
            for name in classes:
                folder = tmp_path / root / split / name
                folder.mkdir(parents=True)
                for index in range(num):
                    pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"photo_{index}.png")
        return tmp_path / root

    return write
